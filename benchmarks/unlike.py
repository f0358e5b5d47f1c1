"""Really unlike hospitals: whether look or finding chooses the neighbours, and how good the encoder is in each.

Hospitals 1 and 2 share the first set's patients, hospital 3 has the second set. One hospital takes no more than --limit
images, so that none outnumbers the others. Hospitals 1 and 2 look alike: the worst hospital's figure says more than
the mean.

    python -m benchmarks.unlike --data pediatric-chest-xray.zip nih-chest-xray-700.zip
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import unlike_hospitals
from benchmarks.learning import alone, federated, pooled_images
from silo_app.cases import Finding
from silo_app.encoder import floors
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import SiloImages
from silo_app.encoder.looks import look_of
from silo_app.encoder.metrics import findings_figures
from silo_app.encoder.model import Encoder, build, load_vector
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.retrieval import classes_of, neighbourhood
from silo_app.encoder.settings import AveragingPlan
from silo_app.encoder.spec import EncoderSpec

QUICK_IMAGES = 250
TARGETS = (
    Target("recipe_map_over_pooled", 1.0, at_least=True),
    Target("recipe_worst_balanced_accuracy", 0.75, at_least=True),
    Target("recipe_worst_own_share_over_chance", 1.3),
)
Vectors = NDArray[np.float32]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return means over the seeds, of every way to train with every way to treat looks."""
    torch.set_num_threads(arguments.threads)
    runs = [dict(_one(arguments, seed)) for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)]
    means = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    best = f"recipe+{arguments.looks}" if arguments.looks != "kept" else "recipe"
    if not {"recipe", "pooled"} <= set(arguments.ways):
        return [Figure(name, value, "") for name, value in means.items()]
    means["recipe_map_over_pooled"] = means[f"{best}: map"] / means["pooled: map"]
    same = best.replace("recipe", "pooled")
    means["recipe_map_over_pooled_with_same_looks"] = means[f"{best}: map"] / means[f"{same}: map"]
    means["recipe_worst_balanced_accuracy"] = means["recipe: worst balanced accuracy"]
    means["recipe_worst_own_share_over_chance"] = means[f"{best}: worst own share"]
    return [Figure(name, value, "") for name, value in means.items()]


def _one(arguments: argparse.Namespace, seed: int) -> Iterator[tuple[str, float]]:
    spec = EncoderSpec(
        findings=(Finding.PNEUMONIA,), backbone=arguments.backbone, input_size=arguments.input_size, embedding_dim=128
    )
    limit = QUICK_IMAGES if arguments.quick else arguments.limit
    hospitals = unlike_hospitals(arguments.data, spec, seed=seed, limit=limit)
    silos = [one.images.where(~one.images.held_out) for one in hospitals]
    plain = _plan(arguments, seed, {})
    averaging = AveragingPlan.model_validate_json(arguments.averaging)
    recipe = _plan(arguments, seed, json.loads(arguments.recipe)).model_copy(update={"averaging": averaging})
    everything = pooled_images([one.images for one in hospitals])
    yield from _figures("raw pixels", hospitals, floors.raw_pixel_vectors(everything.pixels))
    yield from _encoded("random", build(spec, seed), hospitals)
    ways: Mapping[str, Callable[[Encoder], Vectors]] = {
        "fedavg": lambda model: federated(model, silos, plain),
        "recipe": lambda model: federated(model, silos, recipe),
        "pooled": lambda model: alone(model, pooled_images(silos), plain),
    }
    for way, trained in ways.items():
        if way not in arguments.ways:
            continue
        start = time.process_time()
        model = build(spec, seed)
        load_vector(model, trained(model))
        yield f"{way}: CPU seconds", time.process_time() - start
        yield from _encoded(way, model, hospitals)


def _plan(arguments: argparse.Namespace, seed: int, training: Mapping[str, float | str]) -> TrainingPlan:
    return TrainingPlan.checked(
        {"rounds": arguments.rounds, "seed": seed, "training": {"epochs": arguments.epochs, **training}}
    )


def _encoded(way: str, model: Encoder, hospitals: Sequence[SiloImages]) -> Iterator[tuple[str, float]]:
    """Yield the figures of an encoder: embeddings as they are, centred by silo, whitened by silo; findings by silo."""
    parts = [embed(model, one.images.pixels) for one in hospitals]
    yield from _figures(way, hospitals, np.concatenate([vectors for vectors, _ in parts]))
    for name, whiten in (("centred", False), ("whitened", True)):
        plain = [
            look_of(vectors[~one.images.held_out], whiten=whiten).removed(vectors)
            for (vectors, _), one in zip(parts, hospitals, strict=True)
        ]
        yield from _figures(f"{way}+{name}", hospitals, np.concatenate(plain))
    accuracies = [_balanced_accuracy(one, logits) for (_, logits), one in zip(parts, hospitals, strict=True)]
    yield from ((f"{way}: {one.silo} balanced accuracy", value) for one, value in zip(hospitals, accuracies, strict=True))
    yield f"{way}: worst balanced accuracy", min(accuracies)


def _balanced_accuracy(one: SiloImages, logits: Vectors) -> float:
    rows, images = one.images.held_out, one.images
    names = [str(Finding.PNEUMONIA)]
    found = findings_figures(names, logits[rows], images.targets[rows], images.known[rows], images.patients[rows], draws=2)
    return found[names[0]].balanced_accuracy.value


def _figures(way: str, hospitals: Sequence[SiloImages], vectors: Vectors) -> Iterator[tuple[str, float]]:
    """Yield cross-hospital mAP and P@10, and by hospital the share of own neighbours over chance."""
    images = pooled_images([one.images for one in hospitals])
    silos = np.concatenate([np.full(len(one.images), one.silo) for one in hospitals])
    names, classes = classes_of([str(Finding.PNEUMONIA)], images.targets, images.known)
    asked = images.held_out & classes.any(axis=1)
    rest = (names, vectors, classes, images.patients, silos)
    across = neighbourhood(*rest, np.flatnonzero(asked), other_silos_only=True)
    yield f"{way}: map", across.mean_average_precision or 0.0
    yield f"{way}: p10", across.precision or 0.0
    near = [neighbourhood(*rest, np.flatnonzero(asked & (silos == one.silo))) for one in hospitals]
    shares = [(one.own_silo_share or 0.0) / (one.own_silo_chance or 1.0) for one in near]
    yield f"{way}: mean own share", statistics.mean(shares)
    yield f"{way}: worst own share", max(shares)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs=2, required=True, help="two sets; the first is divided in two")
    parser.add_argument("--limit", type=int, default=700, help="images a hospital, at most")
    parser.add_argument("--rounds", type=int, default=TrainingPlan().rounds)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds are averaged")
    parser.add_argument("--first-seed", type=int, default=1, help="choose with some seeds, report others")
    parser.add_argument("--epochs", type=float, default=4.0, help="a round, in every way of training")
    parser.add_argument("--recipe", default="{}", help="the recipe's training settings, JSON, as in a job's plan")
    parser.add_argument("--averaging", default="{}", help="the recipe's averaging, JSON, as in a job's plan")
    parser.add_argument(
        "--looks", choices=("kept", "centred", "whitened"), default="kept", help="what is held to the targets"
    )
    parser.add_argument("--ways", nargs="+", default=["fedavg", "recipe", "pooled"])
    parser.add_argument("--backbone", default="densenet-small")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)


if __name__ == "__main__":
    sys.exit(
        main(
            "unlike",
            measure,
            TARGETS,
            describe="Hospitals that really differ: neighbours across them and accuracy in each, with floors.",
            options=_options,
        )
    )
