"""What silos without labels give to a training: alone, and as a third hospital beside two with labels.

The labels of one hospital, or of all, are taken away for training only; every figure is of held-out patients of all three
hospitals with their labels. Federated averaging as in `benchmarks.learning`: the same rounds, weights and settings.

    python -m benchmarks.unlabelled --data pediatric-chest-xray.zip
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import hospitals_of, spec_of
from benchmarks.learning import evaluated, federated
from silo_app.encoder.dataset import Images
from silo_app.encoder.model import build
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.spec import EncoderSpec

TARGETS = (
    Target("no_labels_precision_over_untrained", 1.0, at_least=True),
    Target("third_without_labels_precision_over_two_alone", 1.0, at_least=True),
)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return the figures' means over the seeds, and two ratios."""
    torch.set_num_threads(arguments.threads)
    runs = [dict(_one(arguments, seed)) for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)]
    means = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    ratios = {
        "no_labels_precision_over_untrained": means["no_labels_precision"] / means["untrained_precision"],
        "third_without_labels_precision_over_two_alone": means["third_without_labels_precision"]
        / means["two_alone_precision"],
    }
    return [
        *(Figure(name, value, "") for name, value in means.items()),
        *(Figure(name, value, "x") for name, value in ratios.items()),
    ]


def without_labels(images: Images) -> Images:
    """Return the same views, of which nothing is known."""
    return Images(images.views, images.pixels, images.targets, np.zeros_like(images.known))


def _one(arguments: argparse.Namespace, seed: int) -> Iterator[tuple[str, float]]:
    spec = spec_of(arguments.data, backbone=arguments.backbone, input_size=arguments.input_size)
    limit = 200 if arguments.quick else arguments.limit
    hospitals = hospitals_of(arguments.data, spec, hospitals=3, alpha=arguments.alpha, seed=seed, limit=limit)
    rounds = 2 if arguments.quick else arguments.rounds
    plan = TrainingPlan.checked({"rounds": rounds, "seed": seed, "training": {"epochs": arguments.epochs}})
    off = plan.model_copy(update={"training": plan.training.model_copy(update={"self_supervised": 0.0})})
    first, second, third = (one.images.where(~one.images.held_out) for one in hospitals)
    silent = [without_labels(one) for one in (first, second, third)]
    ways: Mapping[str, tuple[Sequence[Images], TrainingPlan]] = {
        "no_labels": (silent, plan),
        "two_alone": ((first, second), plan),
        "third_without_labels": ((first, second, silent[2]), plan),
        "third_without_labels_and_self_supervision": ((first, second, silent[2]), off),
        "all_labels": ((first, second, third), plan),
    }
    for name, (silos, chosen) in ways.items():
        weights = federated(build(spec, seed), silos, chosen)
        result = evaluated(weights, spec, hospitals, torch.device("cpu"), floors=name == "no_labels")
        if name == "no_labels":
            yield "raw_pixels_precision", result.retrieval["raw pixels"].precision or 0.0
            yield "untrained_precision", result.retrieval["untrained encoder"].precision or 0.0
        yield f"{name}_precision", result.retrieval["encoder"].precision or 0.0
        yield f"{name}_map", result.retrieval["encoder"].mean_average_precision or 0.0
        yield f"{name}_auc", statistics.mean(one.auc.value for one in result.findings["pooled"].values())


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="zips or folders of images with a CSV")
    parser.add_argument("--alpha", type=float, default=100.0, help="label skew (Dirichlet); 100 is none")
    parser.add_argument("--limit", type=int, default=900, help="how many images of the set are used")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds are averaged")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--backbone", default="densenet-small")
    parser.add_argument("--input-size", type=int, default=EncoderSpec().input_size)
    parser.add_argument("--threads", type=int, default=1)


if __name__ == "__main__":
    sys.exit(main("unlabelled", measure, TARGETS, describe=str(__doc__).splitlines()[0], options=_options))
