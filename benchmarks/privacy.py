"""What differential privacy promises and costs: epsilon, what an attacker learns, and how good the encoder still is.

1. Epsilon of three settings beside an accountant of another kind (`benchmarks.independent_accountant`).
2. Who was trained on? The worst case for a patient: pictures of noise with random findings, which a network can only
   learn by heart. An attacker with the final weights calls those members whose loss is small (Yeom et al., CSF 2018); its
   AUC over as many members as strangers is 0.5 for an attacker that learns nothing.
3. With --data: the AUC on held-out patients at epsilon 1, 3, 8, and without noise and clipping; --plot draws it.

    python -m benchmarks.privacy --data pediatric-chest-xray.zip --plot privacy.svg
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks import independent_accountant
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import hospitals_of, spec_of
from benchmarks.learning import pooled_images
from silo_app import durable
from silo_app.cases import CaseId, Finding, PatientKey, Split, View
from silo_app.encoder.dataset import Images
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import evaluate_model
from silo_app.encoder.losses import each_findings_loss
from silo_app.encoder.model import Encoder, build
from silo_app.encoder.private import planned_steps, train_round_privately
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.train import train_round
from silo_app.privacy.accountant import Steps, epsilon_of, noise_for

DELTA = 1e-5
SETTINGS = (Steps(1.0, 0.01, 1000), Steps(1.5, 0.06, 80), Steps(4.0, 0.5, 60))
MEMBERS = 120
QUICK_STEPS = 150
EPSILONS = (1.0, 3.0, 8.0)
TARGETS = (
    Target("largest_difference_of_epsilon", 0.05),
    Target("attack_auc_without_privacy", 0.6, at_least=True),
    Target("attack_beyond_chance_at_epsilon_3", 1.96),
)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Measure all three parts; the third needs images."""
    torch.set_num_threads(arguments.threads)
    figures = [*_accounting(), *_attacks(arguments)]
    if arguments.data:
        utility = dict(_utility(arguments))
        figures += [Figure(name, value, "AUC, held-out patients") for name, value in utility.items()]
        if arguments.plot:
            _plot(arguments.plot, utility)
    return figures


def _accounting() -> Iterator[Figure]:
    differences = []
    for number, one in enumerate(SETTINGS, start=1):
        ours, other = epsilon_of([one], DELTA), independent_accountant.epsilon(one.noise, one.rate, one.steps, DELTA)
        differences.append(abs(ours - other))
        told = f"noise {one.noise:g}, rate {one.rate:g}, {one.steps} steps"
        yield Figure(f"epsilon_{number}", ours, told)
        yield Figure(f"epsilon_{number}_independently", other, told)
    yield Figure("largest_difference_of_epsilon", max(differences), "")


def _attacks(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Attack networks trained on nothing that generalises; both learn from the same members."""
    spec = EncoderSpec.model_validate(
        {"backbone": "densenet-small", "input_size": 32, "embedding_dim": 16, "findings": [Finding.PNEUMONIA]}
    )
    without, with_privacy = [], []
    for seed in range(1, (1 if arguments.quick else 3) + 1):
        members, strangers = _noise_images(spec, seed), _noise_images(spec, seed + 1000)
        settings = TrainSettings(
            batch_size=30, steps=QUICK_STEPS if arguments.quick else arguments.attack_steps, learning_rate=3e-3, contrast=0
        )
        model = build(spec, seed)
        train_round(model, members, settings, round_number=0, rounds=1, seed=seed)
        without.append(_attack_auc(model, members, strangers))
        model = build(spec, seed)
        _privately(model, members, settings, 3.0)
        with_privacy.append(_attack_auc(model, members, strangers))
    runs = len(without)
    deviation = np.sqrt((2 * MEMBERS + 1) / (12 * MEMBERS**2) / runs)  # of the AUC of an attacker that guesses
    beyond = abs(statistics.mean(with_privacy) - 0.5) / deviation
    yield Figure("attack_auc_without_privacy", statistics.mean(without), f"{MEMBERS} members and strangers, {runs} runs")
    yield Figure("attack_auc_at_epsilon_3", statistics.mean(with_privacy), "")
    yield Figure("attack_beyond_chance_at_epsilon_3", float(beyond), "standard deviations of guessing")


def _noise_images(spec: EncoderSpec, seed: int) -> Images:
    """Return one picture of noise for each of MEMBERS patients, with findings drawn at random."""
    random = np.random.default_rng(seed)
    views = [
        View(digest=f"{seed}-{n}", case=CaseId(f"{seed}-{n}"), patient=PatientKey(f"{seed}-{n}"), split=Split.TRAIN)
        for n in range(MEMBERS)
    ]
    pixels = random.integers(0, 256, (MEMBERS, spec.input_size // 4, spec.input_size // 4), dtype=np.uint8)
    targets = random.integers(0, 2, (MEMBERS, len(spec.findings))).astype(np.float32)
    return Images(views, pixels.repeat(4, axis=1).repeat(4, axis=2), targets, np.ones(targets.shape, np.bool_))


def _privately(model: Encoder, images: Images, settings: TrainSettings, epsilon: float | None) -> None:
    patients = len(np.unique(images.patients))
    planned = planned_steps(settings, patients, 0.0)
    noise = noise_for(epsilon, DELTA, planned.rate, planned.steps) if epsilon else 0.0
    planned = planned_steps(settings, patients, noise)
    clip_norm = 1.0 if epsilon else 1e6
    train_round_privately(model, images, settings, planned, clip_norm=clip_norm, round_number=0, rounds=1)


def _attack_auc(model: Encoder, members: Images, strangers: Images) -> float:
    losses = [_losses(model, images) for images in (members, strangers)]
    truth = np.repeat([1, 0], [len(one) for one in losses])
    return float(roc_auc_score(truth, -np.concatenate(losses)))


def _losses(model: Encoder, images: Images) -> NDArray[np.float32]:
    _, logits = embed(model, images.pixels)
    parts = (torch.from_numpy(part) for part in (logits, images.targets, images.known))
    return np.asarray(each_findings_loss(*parts).numpy(), np.float32)


def _utility(arguments: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Train one silo with all images at every epsilon: the same steps, so that only noise and clipping differ."""
    spec = spec_of(arguments.data, backbone="densenet-small", input_size=arguments.input_size)
    limit = 300 if arguments.quick else arguments.images
    hospitals = hospitals_of(arguments.data, spec, hospitals=1, alpha=100.0, seed=1, limit=limit)
    images = pooled_images([one.images.where(~one.images.held_out) for one in hospitals])
    epochs = 2 if arguments.quick else arguments.epochs
    settings = TrainSettings(batch_size=arguments.batch_size, epochs=epochs, learning_rate=2e-3, contrast=0)
    for epsilon in (*EPSILONS, None):
        model = build(spec, 1)
        _privately(model, images, settings, epsilon)
        result = evaluate_model(model, spec, hospitals, with_floors=False)
        auc = statistics.mean(one.auc.value for one in result.findings["pooled"].values())
        yield f"auc_at_epsilon_{epsilon:g}" if epsilon else "auc_without_privacy", auc


def _plot(file: Path, utility: dict[str, float]) -> None:
    """Draw the AUCs as an SVG; 0.5, which knows nothing, is the bottom."""
    left, bottom, height, step = 60, 250, 220, 110
    parts = [
        f'<line x1="{left}" x2="{left + 4 * step}" y1="{y}" y2="{y}" stroke="#ccc"/>'
        f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{value:.1f}</text>'
        for value, y in ((v, bottom - height * (v - 0.5) / 0.5) for v in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
    ]
    points = []
    for place, (name, auc) in enumerate(utility.items()):
        x, y = left + step * (place + 0.5), bottom - height * (max(auc, 0.5) - 0.5) / 0.5
        label = "no privacy" if name.startswith("auc_without") else f"epsilon {name.rpartition('_')[2]}"
        points.append(f"{x},{y:.1f}")
        parts.append(f'<circle cx="{x}" cy="{y:.1f}" r="4" fill="#06c"/>')
        parts.append(f'<text x="{x}" y="{y - 10:.1f}" text-anchor="middle">{auc:.3f}</text>')
        parts.append(f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{label}</text>')
    parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#06c" stroke-width="2"/>')
    parts.append(f'<text x="{left}" y="16">AUC on held-out patients</text>')
    size = f'viewBox="0 0 {left + 4 * step + 20} {bottom + 36}"'
    style = 'font-family="sans-serif" font-size="13" style="background:#fff"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(parts)}</svg>'
    durable.write_text(file.resolve(), svg + "\n", mode=durable.SHARED)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="zips or folders of images with a CSV")
    parser.add_argument("--plot", type=Path, help="draw utility over epsilon into this SVG (needs --data)")
    parser.add_argument("--images", type=int, default=2500, help="how many images of the set are used")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128, help="patients a step, on average")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--attack-steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)


if __name__ == "__main__":
    sys.exit(main("privacy", measure, TARGETS, describe=str(__doc__).splitlines()[0], options=_options))
