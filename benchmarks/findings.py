"""What the federation gives hospitals with other labels: findings that one knows alone, beside what all know.

The hospitals of `benchmarks.unlike`: two with children and one with adults, who alone have labels for more than pneumonia,
and few images with each. One encoder for all findings is trained by `jobs/train` as it stands ("shared", and each hospital's
own copy of it, "tuned") and, as often over each image, one on every hospital's images alone ("own"), with that job's
settings too. AUC is of held-out patients, and of children whom no hospital has beside; findings of fewer than --least
images there are left out, since nothing can be said of them. The adults' are told one by one; a hospital's gain is a mean
over the findings that it knows. A figure is a mean over the seeds, each with other held-out patients; "+-" is half of its
95 % interval over them (Student's t).

    python -m benchmarks.findings --data pediatric-chest-xray.zip nih-chest-xray-700.zip
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

from benchmarks.default_job import asked_plan
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import spec_of, unlike_hospitals
from benchmarks.learning import alone, federated_and_own
from benchmarks.unlike import (
    QUICK,
    QUICK_IMAGES,
    common_options,
    held_out_figures,
    in_processes,
    judged_by,
    others_option,
    seeds_of,
    with_interval,
)
from silo_app.encoder.devices import device_for
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import SiloImages
from silo_app.encoder.model import Encoder, build, encoder_of

TARGETS = (Target("mean_gain", 0.0, at_least=True), Target("least_gain_of_shared", 0.0, at_least=True))
ADULTS = 2
WAYS = ("shared", "tuned", "own")
Aucs = Mapping[str, float]
Judged = Sequence[Mapping[str, Aucs]]
"""Of each hospital, and of each way there: the AUC by finding."""


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return the adults' AUC by finding of each way and its gain, the mean gains, and those of each hospital."""
    runs = in_processes(_one, arguments, [(seed,) for seed in seeds_of(arguments)])
    everywhere = [sorted(set.intersection(*(set(run[place]["own"]) for run in runs))) for place in range(ADULTS + 1)]
    figures: list[Figure] = []
    adults = [run[ADULTS] for run in runs]
    for name in everywhere[ADULTS]:
        for way in WAYS:
            figures += with_interval(f"{name}: {way} AUC", [run[way][name] for run in adults])
        figures += with_interval(f"{name}: gain", [run["tuned"][name] - run["own"][name] for run in adults])
    figures.append(Figure("findings", len(everywhere[ADULTS]), ""))
    for figure, way in (("mean_gain", "tuned"), ("mean_gain_of_shared", "shared")):
        figures += with_interval(figure, _gains(adults, way, everywhere[ADULTS]), "AUC")
    for place, names in enumerate(everywhere):
        for way in WAYS:
            means = [statistics.mean(run[place][way][name] for name in names) for run in runs]
            figures += with_interval(f"hospital-{place}: {way} AUC", means)
    for figure, way in (("least_gain_of_shared", "shared"), ("least_gain_of_tuned", "tuned")):
        gains = [_gains([run[place] for run in runs], way, names) for place, names in enumerate(everywhere)]
        figures.append(Figure(figure, min(map(statistics.mean, gains)), "AUC"))
    return figures


def _gains(runs: Sequence[Mapping[str, Aucs]], way: str, names: Sequence[str]) -> list[float]:
    """Return what a way gains over the hospital's own encoder with each seed, as a mean over the findings."""
    return [statistics.mean(run[way][name] - run["own"][name] for name in names) for run in runs]


def _one(arguments: argparse.Namespace, seed: int) -> Judged:
    """Return each hospital's AUC by finding under the shared encoder, the hospital's copy of it, and its own."""
    plan = asked_plan(arguments, seed=seed, quick=QUICK)
    read = {"input_size": arguments.input_size, "channels": plan.encoder.channels}
    spec = spec_of(arguments.data, backbone=arguments.backbone, embedding_dim=128, **read)
    limit = QUICK_IMAGES if arguments.quick else arguments.limit
    hospitals = unlike_hospitals(arguments.data, spec, seed=seed, limit=limit, all_findings=True)
    tested = judged_by(arguments, spec, hospitals, seed, all_findings=True)
    silos = [one.images.where(~one.images.held_out) for one in hospitals]
    device = device_for(arguments.device)
    names = [str(finding) for finding in spec.findings]
    shared, tuned = federated_and_own(build(spec, seed).to(device), silos, plan)
    return [
        {
            way: _aucs(encoder_of(spec, weights, device), names, one, arguments.least)
            for way, weights in zip(WAYS, (shared, copy, alone(build(spec, seed).to(device), images, plan)), strict=True)
        }
        for one, images, copy in zip(tested, silos, tuned, strict=True)
    ]


def _aucs(model: Encoder, names: Sequence[str], one: SiloImages, least: int) -> Aucs:
    """Return the AUC of each finding that enough held-out images have, and enough have not."""
    found = held_out_figures(names, one, embed(model, one.images.pixels)[1])
    return {name: one.auc.value for name, one in found.items() if min(one.present, one.absent) >= least}


def _options(parser: argparse.ArgumentParser) -> None:
    common_options(parser)
    parser.add_argument("--least", type=int, default=5, help="held-out images with a finding, at least")
    others_option(parser)


if __name__ == "__main__":
    sys.exit(
        main(
            "findings",
            measure,
            TARGETS,
            describe="Hospitals with other labels: the shared encoder, and its copies, against each hospital's own.",
            options=_options,
        )
    )
