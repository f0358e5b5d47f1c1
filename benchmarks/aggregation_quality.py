"""What encryption costs in quality: the same seeds trained with plain and with encrypted sums, on real X-rays.

Hospitals, training and the whole protocol (masks, encryption, fields of 16 and 12 bits, error feedback, weights) run in
one process, without network. Rounding is random, so an encrypted run differs from its plain twin; the question is whether
it differs by more than one seed differs from another.

    python -m benchmarks.aggregation_quality --data pediatric-chest-xray.zip
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.aggregation import JOB, federation
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import hospitals_of, spec_of
from silo_app.aggregation.layout import Layout, digest_of
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.sums import RoundSum
from silo_app.encoder.dataset import Images
from silo_app.encoder.evaluate import evaluate_model
from silo_app.encoder.model import Encoder, build, layout_of, load_vector, to_vector
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.train import train_round

WIDTHS = (16, 12)
QUICK_IMAGES, QUICK_ROUNDS, QUICK_SEEDS = 400, 2, 2
TARGETS = tuple(Target(f"difference_over_spread_{bits}_bits", 1.0) for bits in WIDTHS)

Add = Callable[[int, list[NDArray[np.float32]]], NDArray[np.float32]]
"""Turns the silos' updates of a round into the change of the global weights."""


def trained(model: Encoder, silos: Sequence[Images], plan: TrainingPlan, add: Add) -> NDArray[np.float32]:
    """Return the weights after all rounds, each round's updates having gone through `add`."""
    weights = to_vector(model)
    for number in range(plan.rounds):
        updates = []
        for images in silos:
            load_vector(model, weights)
            train_round(model, images, plan.training, round_number=number, rounds=plan.rounds, seed=plan.seed)
            updates.append(to_vector(model) - weights)
        weights = weights + add(number, updates)
    return weights


def plain_sums(counts: Sequence[int]) -> Add:
    """Return the weighted mean in float64, as nobody could compute it in a federation."""
    shares = np.array(counts) / sum(counts)
    return lambda _number, updates: (shares @ np.stack(updates).astype(np.float64)).astype(np.float32)


def encrypted_sums(model: Encoder, counts: Sequence[int], bits: int) -> Add:
    """Return the sum as silos and server compute it, after a round of statistics from which the weights come."""
    names, shapes = zip(*layout_of(model), strict=True)
    layout = Layout(names, shapes)
    sessions = federation(layout, AggregationSettings(bits=bits), counts, digest_of(to_vector(model)))
    _closed(sessions, 0, lambda session, _: session.encrypt_statistics(0))

    def add(number: int, updates: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        opened = _closed(sessions, number + 1, lambda session, place: session.encrypt_update(number + 1, updates[place]))
        assert opened is not None  # noqa: S101  (a round of updates)
        return opened

    return add


def _closed(
    sessions: Sequence[SiloSession], number: int, message_of: Callable[[SiloSession, int], NDArray[np.uint8]]
) -> NDArray[np.float32] | None:
    """Run one round of the protocol; return what every silo opened."""
    bundles = {session.silo: session.share_secrets(number) for session in sessions}
    total, names = RoundSum(JOB, number), list(bundles)
    for place, session in enumerate(sessions):
        session.begin_round(number, bundles)
        total.add(message_of(session, place))
    signatures = {session.silo: session.sign_survivors(number, names) for session in sessions}
    reveals = {session.silo: session.reveal(number, signatures) for session in sessions}
    result = total.result()
    opened = [session.open_sum(number, result, total.contributors, reveals) for session in sessions]
    return opened[0].update


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Train each seed plain and encrypted; compare the AUC on held-out patients."""
    torch.set_num_threads(arguments.threads)
    seeds = QUICK_SEEDS if arguments.quick else arguments.seeds
    runs = [_one(arguments, seed) for seed in range(1, seeds + 1)]
    plain = [run["plain"] for run in runs]
    spread = max(plain) - min(plain)
    figures = [Figure(f"plain_auc_seed_{seed}", auc, "") for seed, auc in enumerate(plain, start=1)]
    figures.append(Figure("spread_between_seeds", spread, "largest - smallest plain AUC"))
    for bits in WIDTHS:
        aucs = [run[f"{bits}"] for run in runs]
        differences = [abs(one - other) for one, other in zip(aucs, plain, strict=True)]
        figures += [Figure(f"auc_{bits}_bits_seed_{seed}", auc, "") for seed, auc in enumerate(aucs, start=1)]
        figures += [
            Figure(f"mean_difference_{bits}_bits", statistics.mean(aucs) - statistics.mean(plain), "AUC"),
            Figure(f"largest_difference_{bits}_bits", max(differences), "AUC, same seed"),
            Figure(f"difference_over_spread_{bits}_bits", max(differences) / spread, "x"),
        ]
    return figures


def _one(arguments: argparse.Namespace, seed: int) -> dict[str, float]:
    spec = spec_of(arguments.data, backbone=arguments.backbone, input_size=arguments.input_size)
    images, rounds = (QUICK_IMAGES, QUICK_ROUNDS) if arguments.quick else (arguments.images, arguments.rounds)
    hospitals = hospitals_of(arguments.data, spec, hospitals=arguments.hospitals, alpha=0.5, seed=seed, limit=images)
    plan = TrainingPlan.checked({"rounds": rounds, "seed": seed, "training": {"batch_size": 16}})
    silos = [one.images.where(~one.images.held_out) for one in hospitals]
    counts = [len(one) for one in silos]
    ways = {"plain": plain_sums(counts)} | {f"{bits}": encrypted_sums(build(spec, seed), counts, bits) for bits in WIDTHS}
    aucs = {}
    for way, add in ways.items():
        model = build(spec, seed)
        load_vector(model, trained(build(spec, seed), silos, plan, add))
        result = evaluate_model(model, spec, hospitals, with_floors=False)
        aucs[way] = statistics.mean(one.auc.value for one in result.findings["pooled"].values())
    return aucs


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="zips or folders of images with a CSV")
    parser.add_argument("--hospitals", type=int, default=3)
    parser.add_argument("--images", type=int, default=1500, help="how many images of the set are used")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbone", default="densenet-small")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)


if __name__ == "__main__":
    sys.exit(
        main(
            "aggregation_quality",
            measure,
            TARGETS,
            describe="AUC after encrypted sums against plain ones, beside the spread between seeds.",
            options=_options,
        )
    )
