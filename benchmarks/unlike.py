"""Really unlike hospitals: whether look or finding chooses the neighbors, and how good the encoder is in each.

Hospitals 1 and 2 share the first set's patients, hospital 3 has the second set. One hospital takes no more than --limit
images, so that none outnumbers the others. Hospitals 1 and 2 look alike: the worst hospital's figure says more than
the mean. Findings are judged on a hospital's held-out patients, and on up to --others images of patients of its set whom
no hospital has: a hospital's own few say little of encoders that are nearly alike. Every way of training passes each
image equally often. "recipe" is `jobs/train` as it stands, with looks removed; "recipe tuned" are the copies that its
silos tune for their own findings, and the shared encoder of it is the recipe's. Every way trains the recipe's network;
pooled training and plain FedAvg have the settings that a plan has without any. A figure is a mean over the seeds; "+-" is
half of its 95 % interval over them (Student's t), and seeds share images.

    python -m benchmarks.unlike --data pediatric-chest-xray.zip nih-chest-xray-700.zip
"""

import argparse
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.default_job import add_settings, asked_plan
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import others_beside, unlike_hospitals
from benchmarks.learning import alone, federated_and_own, pooled_images
from silo_app.cases import Finding
from silo_app.encoder import floors
from silo_app.encoder.dataset import Images
from silo_app.encoder.devices import device_for
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import SiloImages
from silo_app.encoder.looks import Look, without_look
from silo_app.encoder.metrics import FindingFigures, findings_figures
from silo_app.encoder.model import Encoder, build, encoder_of
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.retrieval import classes_of, neighbourhood
from silo_app.encoder.spec import EncoderSpec

QUICK_IMAGES, QUICK = 150, (4.0, 8)
"""Of a hospital or a set; passes over them in all, and rounds."""
NAME = str(Finding.PNEUMONIA)
TARGETS = (
    Target("recipe_map_over_pooled", 1.0, at_least=True),
    Target("recipe_worst_balanced_accuracy", 0.75, at_least=True),
    Target("recipe_worst_own_share_over_chance", 1.3),
    Target("recipe_least_gain_over_own_encoder", 0.0, at_least=True),
)
_FLOORS, _WAYS = "floors", ("fedavg", "recipe", "pooled", "own")
Run = TypeVar("Run")
Vectors = NDArray[np.float32]
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for 95 %, by the number of seeds."""


def with_interval(name: str, values: Sequence[float], unit: str = "") -> Iterator[Figure]:
    """Yield a mean over the seeds, and half of its 95 % interval if there are several."""
    yield Figure(name, statistics.mean(values), unit)
    if len(values) > 1:
        spread = statistics.stdev(values)
        yield Figure(f"{name} +-", _T95.get(len(values), 2.5) * spread / math.sqrt(len(values)), unit)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return means over the seeds with their intervals, of every way to train, with looks kept and removed."""
    seeds, ways = seeds_of(arguments), [_FLOORS, *arguments.ways]
    found = in_processes(_run, arguments, [(seed, way) for seed in seeds for way in ways])
    of_seeds = [found[start : start + len(ways)] for start in range(0, len(found), len(ways))]
    runs = [{name: value for part in parts for name, value in part.items()} for parts in of_seeds]
    means = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    figures = [Figure(name, value, "s") for name, value in means.items() if "seconds" in name]
    for name in means:
        if "seconds" not in name:
            figures += with_interval(name, [run[name] for run in runs])
    return [*figures, *_held_to(means)]


def in_processes(one: Callable[..., Run], arguments: argparse.Namespace, tasks: Sequence[tuple[object, ...]]) -> list[Run]:
    """Return what `one`, a function of a module, gives for the arguments and each task: `--at-once` processes at once."""
    with ProcessPoolExecutor(arguments.at_once, multiprocessing.get_context("spawn")) as processes:
        return list(processes.map(partial(_with_threads, one, arguments), tasks))


def seeds_of(arguments: argparse.Namespace) -> range:
    """Return the seeds to average over."""
    return range(arguments.first_seed, arguments.first_seed + (1 if arguments.quick else arguments.seeds))


def _with_threads(one: Callable[..., Run], arguments: argparse.Namespace, task: tuple[object, ...]) -> Run:
    torch.set_num_threads(arguments.threads)
    return one(arguments, *task)


def _run(arguments: argparse.Namespace, seed: int, way: str) -> dict[str, float]:
    return dict(_one(arguments, seed, way))


def _held_to(means: Mapping[str, float]) -> Iterator[Figure]:
    if "recipe+removed: map" not in means:
        return
    if "pooled: map" in means:
        yield Figure("recipe_map_over_pooled", means["recipe+removed: map"] / means["pooled: map"], "x")
        yield Figure(
            "recipe_map_over_pooled_without_looks", means["recipe+removed: map"] / means["pooled+removed: map"], "x"
        )
    for figure, way in (("recipe_worst_balanced_accuracy", "recipe tuned"), ("shared_worst_balanced_accuracy", "recipe")):
        accuracies = [value for name, value in means.items() if name.startswith(f"{way}: hospital") and "accuracy" in name]
        yield Figure(figure, min(accuracies), "")
    yield Figure("recipe_worst_own_share_over_chance", means["recipe+removed: worst own share"], "x")
    own = {name.removeprefix("own: "): value for name, value in means.items() if name.startswith("own: ") and "AUC" in name}
    if own:
        for figure, way in (("recipe_least_gain", "recipe"), ("tuned_least_gain", "recipe tuned")):
            gains = [means[f"{way}: {name}"] - value for name, value in own.items()]
            yield Figure(f"{figure}_over_own_encoder", min(gains), "AUC")


def _one(arguments: argparse.Namespace, seed: int, way: str) -> Iterator[tuple[str, float]]:
    limit = QUICK_IMAGES if arguments.quick else arguments.limit
    recipe = asked_plan(arguments, seed=seed, quick=QUICK)
    spec = EncoderSpec(
        findings=(Finding.PNEUMONIA,),
        backbone=arguments.backbone,
        input_size=arguments.input_size,
        channels=recipe.encoder.channels,
        embedding_dim=128,
    )
    hospitals = unlike_hospitals(arguments.data, spec, seed=seed, limit=limit)
    silos = [one.images.where(~one.images.held_out) for one in hospitals]
    tested = judged_by(arguments, spec, hospitals, seed)
    rounds, epochs = TrainingPlan().rounds, recipe.rounds * recipe.training.epochs
    plain = TrainingPlan.checked({"rounds": rounds, "seed": seed, "training": {"epochs": epochs / rounds}})
    device = device_for(arguments.device)
    if way == _FLOORS:
        yield from _floors(hospitals)
        yield from _encoded("random", build(spec, seed).to(device), hospitals, tested)
    elif way == "own":
        for one, images in zip(tested, silos, strict=True):
            yield from _judged(way, one, encoder_of(spec, alone(build(spec, seed).to(device), images, plain), device))
    else:
        start = time.process_time()
        weights, tuned = _trained(way, build(spec, seed).to(device), silos, recipe if way == "recipe" else plain)
        yield f"{way}: CPU seconds", time.process_time() - start
        yield from _encoded(way, encoder_of(spec, weights, device), hospitals, tested)
        for one, copy in zip(tested, tuned, strict=bool(tuned)):
            yield from _judged(f"{way} tuned", one, encoder_of(spec, copy, device))


def _trained(way: str, model: Encoder, silos: Sequence[Images], plan: TrainingPlan) -> tuple[Vectors, Sequence[Vectors]]:
    """Return the weights that all share, and the silos' own copies where the plan has them."""
    if way == "pooled":
        return alone(model, pooled_images(silos), plan), ()
    return federated_and_own(model, silos, plan)


def judged_by(
    arguments: argparse.Namespace,
    spec: EncoderSpec,
    hospitals: Sequence[SiloImages],
    seed: int,
    *,
    all_findings: bool = False,
) -> list[SiloImages]:
    """Return each hospital's held-out images, and others of its kind where the sets have more than the hospitals do."""
    own = [SiloImages(one.silo, one.images.where(one.images.held_out)) for one in hospitals]
    most = QUICK_IMAGES if arguments.quick else arguments.others
    others = others_beside(arguments.data, spec, hospitals, seed=seed, most=most, all_findings=all_findings)
    more = {one.silo: one.images for one in others}
    return [SiloImages(one.silo, pooled_images([one.images, more[one.silo]])) if one.silo in more else one for one in own]


def _floors(hospitals: Sequence[SiloImages]) -> Iterator[tuple[str, float]]:
    """Yield the figures of what needs no encoder."""
    yield from _figures(
        "raw pixels", hospitals, floors.raw_pixel_vectors(pooled_images([one.images for one in hospitals]).pixels)
    )
    for one in hospitals:
        images = one.images
        found = floors.statistics_auc([NAME], images.pixels, images.targets, images.known, images.held_out)
        yield f"image statistics: {one.silo} AUC", found[NAME]


def _encoded(
    way: str, model: Encoder, hospitals: Sequence[SiloImages], tested: Sequence[SiloImages]
) -> Iterator[tuple[str, float]]:
    """Yield the figures of an encoder: neighbors by embeddings with looks kept and removed, and findings by hospital."""
    parts = [embed(model, one.images.pixels)[0] for one in hospitals]
    yield from _figures(way, hospitals, np.concatenate(parts))
    head = model.head()
    by_head = [Look.by_head(head).removed(vectors) for vectors in parts]
    yield from _figures(f"{way}+removed by head", hospitals, np.concatenate(by_head))
    plain = [
        without_look(vectors, ~one.images.held_out, one.images.targets, one.images.known, head)
        for vectors, one in zip(parts, hospitals, strict=True)
    ]
    yield from _figures(f"{way}+removed", hospitals, np.concatenate(plain))
    for one in tested:
        yield from _judged(way, one, model)


def _judged(way: str, one: SiloImages, model: Encoder) -> Iterator[tuple[str, float]]:
    found = held_out_figures([NAME], one, embed(model, one.images.pixels)[1])[NAME]
    yield f"{way}: {one.silo} AUC", found.auc.value
    yield f"{way}: {one.silo} balanced accuracy", found.balanced_accuracy.value


def held_out_figures(names: Sequence[str], one: SiloImages, logits: Vectors) -> Mapping[str, FindingFigures]:
    """Return the figures of each finding on a hospital's held-out patients; `logits` (N, F) are of all its images."""
    rows, images = one.images.held_out, one.images
    return findings_figures(names, logits[rows], images.targets[rows], images.known[rows], images.patients[rows])


def _figures(way: str, hospitals: Sequence[SiloImages], vectors: Vectors) -> Iterator[tuple[str, float]]:
    """Yield cross-hospital mAP and P@10, and by hospital the share of own neighbors over chance."""
    images = pooled_images([one.images for one in hospitals])
    silos = np.concatenate([np.full(len(one.images), one.silo) for one in hospitals])
    names, classes = classes_of([NAME], images.targets, images.known)
    asked = images.held_out & classes.any(axis=1)
    rest = (names, vectors, classes, images.patients, silos)
    across = neighbourhood(*rest, np.flatnonzero(asked), other_silos_only=True)
    yield f"{way}: map", across.mean_average_precision or 0.0
    yield f"{way}: p10", across.precision or 0.0
    near = [neighbourhood(*rest, np.flatnonzero(asked & (silos == one.silo))) for one in hospitals]
    shares = [(one.own_silo_share or 0.0) / (one.own_silo_chance or 1.0) for one in near]
    yield f"{way}: mean own share", statistics.mean(shares)
    yield f"{way}: worst own share", max(shares)


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add what every benchmark of these hospitals asks for."""
    parser.add_argument("--data", type=Path, nargs=2, required=True, help="two sets; the first is divided in two")
    parser.add_argument("--limit", type=int, default=700, help="images a hospital, at most")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds are averaged")
    parser.add_argument("--first-seed", type=int, default=1, help="choose with some seeds, report others")
    parser.add_argument("--at-once", type=int, default=1, help="trainings that are run at once, with --threads each")
    parser.add_argument("--epochs", type=float, default=32.0, help="passes over the images in all, in every way of training")
    parser.add_argument("--backbone", default="densenet-small")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="as training.device in silo.yaml")
    add_settings(parser)


def others_option(parser: argparse.ArgumentParser) -> None:
    """Add how many images beside a hospital's own it is judged by."""
    parser.add_argument(
        "--others", type=int, default=1000, help="images a hospital of patients that none has, to judge by beside its own"
    )


def _options(parser: argparse.ArgumentParser) -> None:
    common_options(parser)
    others_option(parser)
    parser.add_argument("--ways", nargs="+", choices=_WAYS, default=_WAYS)


if __name__ == "__main__":
    sys.exit(
        main(
            "unlike",
            measure,
            TARGETS,
            describe="Hospitals that really differ: neighbors across them and accuracy in each, with floors.",
            options=_options,
        )
    )
