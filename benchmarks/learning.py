"""What federated training reaches on real images, beside pooled and local-only training and the floors.

Federated averaging runs in one process, without NVFlare and encryption (`benchmarks.aggregation` measures those): the
same rounds, weights and settings as `jobs/train`. Pooled and local-only training have a plan's settings without any, and
pass each image as often. Every number of hospitals is measured with every label skew (Dirichlet's alpha; `iid` for none).

    python -m benchmarks.learning --data pediatric-chest-xray.zip --hospitals 3 10 --alpha 0.1 0.5 iid --seeds 3
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.default_job import add_settings, asked_plan
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import hospitals_of, spec_of
from silo_app.encoder.averaging import Moments, step_of
from silo_app.encoder.dataset import Images
from silo_app.encoder.devices import device_for
from silo_app.encoder.evaluate import Evaluation, SiloImages, evaluate_model
from silo_app.encoder.model import Encoder, build, encoder_of, load_vector, to_vector
from silo_app.encoder.optimizer import Squares
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.sampling import Weighable
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.train import RoundOutcome, train_round
from silo_app.encoder.tuning import tune_round, tuning_round

QUICK_IMAGES, QUICK = 400, (2.0, 4)
"""Of a hospital or a set; passes over them in all, and rounds."""
SKEWED = 0.1
IID = 1e6
"""A Dirichlet draw this even is none."""
ALWAYS = (
    Target("federated_auc_over_local", 1.0, at_least=True),
    Target("federated_precision_over_raw_pixels", 1.0, at_least=True),
)
ALIKE = (
    Target("federated_auc", 0.985, at_least=True),
    Target("federated_precision", 0.90, at_least=True),
    Target("federated_auc_over_pooled", 0.99, at_least=True),
)
"""Of hospitals whose labels are less skewed than `SKEWED`; the others share with every kind what `ALWAYS` says."""
_AT_SKEWED = f"_at_alpha_{SKEWED}"
UNLIKE = (Target(f"federated_auc_over_pooled{_AT_SKEWED}", 0.97, at_least=True),)
HELD: tuple[tuple[Callable[[float], bool], tuple[Target, ...]], ...] = (
    (lambda _: True, ALWAYS),
    (lambda alpha: alpha > SKEWED, ALIKE),
    (lambda alpha: alpha <= SKEWED, UNLIKE),
)
"""Which label skews are held to which targets."""


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return the figures' means over the seeds in each federation, and the least of what is held to a target."""
    if arguments.quick:
        arguments.backbone, arguments.seeds = "densenet-small", 1
    federations = {
        (hospitals, alpha): dict(_means(arguments, hospitals, alpha))
        for hospitals in arguments.hospitals
        for alpha in arguments.alpha
    }
    figures = [
        Figure(f"{hospitals} hospitals, alpha {_named(alpha)}: {name}", value, "s" if name.endswith("_s") else "")
        for (hospitals, alpha), means in federations.items()
        for name, value in means.items()
    ]
    for are_held, targets in HELD:
        chosen = [means for (_, alpha), means in federations.items() if are_held(alpha)]
        for name in (target.figure for target in targets if chosen):
            least = min(means[name.removesuffix(_AT_SKEWED)] for means in chosen)
            figures.append(Figure(name, least, "x" if "_over_" in name else ""))
    return figures


def wanted(arguments: argparse.Namespace) -> tuple[Target, ...]:
    """Return the targets of the label skews that are measured."""
    return tuple(target for are_held, targets in HELD if any(map(are_held, arguments.alpha)) for target in targets)


def _named(alpha: float) -> str:
    return "iid" if alpha >= IID else f"{alpha:g}"


def _means(arguments: argparse.Namespace, hospitals: int, alpha: float) -> Iterator[tuple[str, float]]:
    runs = [dict(_one(arguments, hospitals, alpha, seed)) for seed in range(1, arguments.seeds + 1)]
    names = [name for name in runs[0] if all(name in run for run in runs)]
    means = {name: statistics.mean(run[name] for run in runs) for name in names}
    yield from means.items()
    if len(runs) > 1:
        yield "federated_auc_stdev", statistics.stdev(run["federated_auc"] for run in runs)
    yield "federated_auc_over_pooled", means["federated_auc"] / means["pooled_auc"]
    yield "federated_auc_over_local", means["federated_auc"] / means["local_auc"]
    yield "federated_precision_over_raw_pixels", means["federated_precision"] / means["raw_pixels_precision"]


def federated(model: Encoder, silos: Sequence[Images], plan: TrainingPlan) -> NDArray[np.float32]:
    """Return the weights after all rounds of federated averaging (McMahan et al., AISTATS 2017), averaging as planned."""
    return federated_and_own(model, silos, plan.model_copy(update={"personal": "none"}))[0]


def federated_and_own(
    model: Encoder, silos: Sequence[Images], plan: TrainingPlan
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return the shared weights after all rounds, and the copies that the silos tuned beside, none if the plan has none."""
    own: dict[int, NDArray[np.float32]] = {}
    squares: dict[int, Squares] = {}
    shares = np.array([plan.weight(len(one), Weighable.of(one.targets, one.known)) for one in silos], np.float64)
    weights = to_vector(model)
    moments = Moments.none(plan.averaging, len(weights))
    for number in range(plan.rounds):
        update, weight = np.zeros(len(weights), np.float64), 0.0
        tuning = tuning_round(number, plan.rounds, plan.tuned_rounds)
        for silo, (images, share) in enumerate(zip(silos, shares, strict=True)):
            load_vector(model, weights)
            outcome = _round(model, images, plan, number, squares.get(silo))
            squares[silo] = outcome.squares
            counted = share * plan.counted(outcome.unsure)
            update += counted * (to_vector(model) - weights)
            weight += counted
            if tuning is not None:
                load_vector(model, own.get(silo, weights))
                tune_round(model, images, plan.training, number=tuning, tuned=plan.tuned_rounds, seed=plan.seed)
                own[silo] = to_vector(model)
        step, moments = step_of(plan.averaging, moments, (update / weight).astype(np.float32))
        weights = weights + step
    return weights, list(own.values())


def alone(model: Encoder, images: Images, plan: TrainingPlan) -> NDArray[np.float32]:
    """Return the weights after as many rounds on one set of images."""
    squares: Squares | None = None
    for number in range(plan.rounds):
        squares = _round(model, images, plan, number, squares).squares
    return to_vector(model)


def pooled_images(silos: Sequence[Images]) -> Images:
    """Return all silos' images as if they lay in one place."""
    return Images(
        [view for one in silos for view in one.views],
        *(np.concatenate([getattr(one, part) for one in silos]) for part in ("pixels", "targets", "known")),
    )


def _one(arguments: argparse.Namespace, count: int, alpha: float, seed: int) -> Iterator[tuple[str, float]]:
    torch.set_num_threads(arguments.threads)
    chosen = asked_plan(arguments, seed=seed, quick=QUICK)
    read = {"input_size": arguments.input_size, "channels": chosen.encoder.channels, "looks": chosen.encoder.looks}
    spec = spec_of(arguments.data, backbone=arguments.backbone, **read)
    limit = QUICK_IMAGES if arguments.quick else arguments.limit
    hospitals = hospitals_of(arguments.data, spec, hospitals=count, alpha=alpha, seed=seed, limit=limit)
    rounds = TrainingPlan().rounds
    epochs = chosen.rounds * chosen.training.epochs
    plan = TrainingPlan.checked({"rounds": rounds, "seed": seed, "training": {"epochs": epochs / rounds}})
    silos = [one.images.where(~one.images.held_out) for one in hospitals]
    device = device_for(arguments.device)
    model, start = build(spec, seed).to(device), time.process_time()
    result = evaluated(federated(model, silos, chosen), spec, hospitals, device, floors=True)
    yield "federated_cpu_s", time.process_time() - start
    yield from _figures("federated", result)
    yield "raw_pixels_precision", result.retrieval["raw pixels"].precision or 0.0
    yield "untrained_precision", result.retrieval["untrained encoder"].precision or 0.0
    yield "statistics_auc", statistics.mean(result.statistics_auc.values())
    pooled, *locals_ = (
        evaluated(alone(build(spec, seed).to(device), one, plan), spec, hospitals, device)
        for one in (pooled_images(silos), *silos)
    )
    yield from _figures("pooled", pooled)
    for name in dict(_figures("local", locals_[0])):
        yield name, statistics.mean(dict(_figures("local", one))[name] for one in locals_)


def _round(model: Encoder, images: Images, plan: TrainingPlan, number: int, squares: Squares | None = None) -> RoundOutcome:
    return train_round(
        model, images, plan.training, round_number=number, rounds=plan.rounds, seed=plan.seed, squares=squares
    )


def evaluated(
    weights: NDArray[np.float32],
    spec: EncoderSpec,
    hospitals: Sequence[SiloImages],
    device: torch.device,
    *,
    floors: bool = False,
) -> Evaluation:
    """Return what the encoder with these weights is worth on the hospitals' held-out patients."""
    return evaluate_model(encoder_of(spec, weights, device), spec, hospitals, with_floors=floors)


def _figures(way: str, result: Evaluation) -> Iterator[tuple[str, float]]:
    """Yield the means over findings, on held-out patients of all hospitals."""
    pooled = result.findings["pooled"].values()
    near = result.retrieval["encoder"]
    yield f"{way}_auc", statistics.mean(one.auc.value for one in pooled)
    yield f"{way}_balanced_accuracy", statistics.mean(one.balanced_accuracy.value for one in pooled)
    yield f"{way}_precision", near.precision or 0.0
    yield f"{way}_map", near.mean_average_precision or 0.0


def _alpha(text: str) -> float:
    return IID if text == "iid" else float(text)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="zips or folders of images with a CSV")
    parser.add_argument("--hospitals", type=int, nargs="+", default=[3])
    parser.add_argument("--alpha", type=_alpha, nargs="+", default=[0.5], help="label skew (Dirichlet), or iid")
    parser.add_argument("--epochs", type=float, default=8.0, help="passes over the images in all, in every way of training")
    add_settings(parser)
    parser.add_argument("--limit", type=int, help="images in all, at most")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds are averaged")
    parser.add_argument("--backbone", default=EncoderSpec().backbone)
    parser.add_argument("--input-size", type=int, default=EncoderSpec().input_size)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="as training.device in silo.yaml")


if __name__ == "__main__":
    sys.exit(
        main(
            "learning",
            measure,
            wanted,
            describe="Federated against pooled and local-only training, with the floors; AUC on held-out patients.",
            options=_options,
        )
    )
