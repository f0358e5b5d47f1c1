"""What the federation gives a hospital for findings that only it knows: adults' findings, beside children's pneumonia.

The hospitals of `benchmarks.unlike`: two with children and one with adults, who alone have labels for more than pneumonia,
and few images with each. One encoder for all findings is trained by `jobs/train` as it stands ("shared") and, as often over
each image, on the adults' images alone ("own"), with that job's settings too. AUC is of the adults' held-out patients;
findings of fewer than --least images there are left out, since nothing can be said of them. A figure is a mean over the
seeds, each with other held-out patients; "+-" is half of its 95 % interval over them (Student's t).

    python -m benchmarks.findings --data pediatric-chest-xray.zip nih-chest-xray-700.zip
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.default_job import default_plan
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import spec_of, unlike_hospitals
from benchmarks.learning import alone, federated
from benchmarks.unlike import QUICK_EPOCHS, QUICK_IMAGES, QUICK_ROUNDS, encoder_of, with_interval
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import SiloImages
from silo_app.encoder.metrics import findings_figures
from silo_app.encoder.model import Encoder, build

TARGETS = (Target("mean_gain", 0.0, at_least=True),)
ADULTS = 2
Aucs = Mapping[str, float]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return AUC by finding under both encoders, the gain, and the mean gain over all findings."""
    torch.set_num_threads(arguments.threads)
    runs = [_one(arguments, seed) for seed in range(1, 2 if arguments.quick else arguments.seeds + 1)]
    everywhere = sorted(set.intersection(*(set(shared) for shared, _ in runs)))
    figures: list[Figure] = []
    for name in everywhere:
        figures += with_interval(f"{name}: shared AUC", [shared[name] for shared, _ in runs])
        figures += with_interval(f"{name}: own AUC", [own[name] for _, own in runs])
        figures += with_interval(f"{name}: gain", [shared[name] - own[name] for shared, own in runs])
    gains = [statistics.mean(shared[name] - own[name] for name in everywhere) for shared, own in runs]
    return [*figures, Figure("findings", len(everywhere), ""), *with_interval("mean_gain", gains, "AUC")]


def _one(arguments: argparse.Namespace, seed: int) -> tuple[Aucs, Aucs]:
    """Return the adults' AUC by finding under the shared encoder and under their own."""
    spec = spec_of(arguments.data, backbone=arguments.backbone, input_size=arguments.input_size, embedding_dim=128)
    limit = QUICK_IMAGES if arguments.quick else arguments.limit
    hospitals = unlike_hospitals(arguments.data, spec, seed=seed, limit=limit, all_findings=True)
    silos = [one.images.where(~one.images.held_out) for one in hospitals]
    plan = default_plan(
        seed=seed,
        epochs=QUICK_EPOCHS if arguments.quick else arguments.epochs,
        rounds=QUICK_ROUNDS if arguments.quick else None,
    )
    shared = encoder_of(spec, federated(build(spec, seed), silos, plan))
    own = encoder_of(spec, alone(build(spec, seed), silos[ADULTS], plan))
    names = _told(hospitals[ADULTS], [str(finding) for finding in spec.findings], arguments.least)
    return tuple(_aucs(model, hospitals[ADULTS], [str(f) for f in spec.findings], names) for model in (shared, own))  # type: ignore[return-value]


def _told(adults: SiloImages, findings: list[str], least: int) -> list[str]:
    """Return the findings that enough held-out images have, and enough have not."""
    images = adults.images.where(adults.images.held_out)
    present = (images.known & (images.targets > 0.5)).sum(axis=0)
    absent = (images.known & (images.targets <= 0.5)).sum(axis=0)
    return [name for name, has, has_not in zip(findings, present, absent, strict=True) if min(has, has_not) >= least]


def _aucs(model: Encoder, adults: SiloImages, findings: list[str], names: list[str]) -> Aucs:
    rows, images = adults.images.held_out, adults.images
    logits = embed(model, images.pixels)[1]
    found = findings_figures(findings, logits[rows], images.targets[rows], images.known[rows], images.patients[rows])
    return {name: found[name].auc.value for name in names}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs=2, required=True, help="two sets; the first is divided in two")
    parser.add_argument("--limit", type=int, default=700, help="images a hospital, at most")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds are averaged")
    parser.add_argument("--epochs", type=float, default=32.0, help="passes over the images in all, in both ways of training")
    parser.add_argument("--least", type=int, default=5, help="held-out images with a finding, at least")
    parser.add_argument("--backbone", default="densenet-small")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)


if __name__ == "__main__":
    sys.exit(
        main(
            "findings",
            measure,
            TARGETS,
            describe="Findings that one hospital alone knows: the shared encoder against its own.",
            options=_options,
        )
    )
