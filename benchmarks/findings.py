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
from collections.abc import Mapping, Sequence

import torch

from benchmarks.default_job import default_plan
from benchmarks.harness import Figure, Target, main
from benchmarks.image_hospitals import spec_of, unlike_hospitals
from benchmarks.learning import alone, federated
from benchmarks.unlike import (
    QUICK_EPOCHS,
    QUICK_IMAGES,
    QUICK_ROUNDS,
    common_options,
    encoder_of,
    held_out_figures,
    with_interval,
)
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import SiloImages
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
    names = [str(finding) for finding in spec.findings]
    return (
        _aucs(shared, names, hospitals[ADULTS], arguments.least),
        _aucs(own, names, hospitals[ADULTS], arguments.least),
    )


def _aucs(model: Encoder, names: Sequence[str], adults: SiloImages, least: int) -> Aucs:
    """Return the AUC of each finding that enough held-out images have, and enough have not."""
    found = held_out_figures(names, adults, embed(model, adults.images.pixels)[1])
    return {name: one.auc.value for name, one in found.items() if min(one.present, one.absent) >= least}


def _options(parser: argparse.ArgumentParser) -> None:
    common_options(parser)
    parser.add_argument("--least", type=int, default=5, help="held-out images with a finding, at least")


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
