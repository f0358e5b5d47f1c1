"""A region query: embed the crop as an image, or pool the feature map over the region? Which finds what the region shows.

Phantoms with two findings or more, whose places are known (the image is computed with and without each). The query is the
box around one finding; a hit is right if it has that finding. The whole image's query, and hits drawn at random, stand
beside both ways. The encoder is trained on other phantoms of the same hospitals.

    python -m benchmarks.region --seed 2
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Figure, main
from benchmarks.learning import alone
from silo_app.cases import CaseId, EncoderVersion, Finding, PatientKey, Split, View, ViewPosition
from silo_app.encoder.dataset import Images
from silo_app.encoder.embed import LoadedEncoder
from silo_app.encoder.labels import labels_of
from silo_app.encoder.metrics import findings_figures
from silo_app.encoder.model import build, load_vector
from silo_app.encoder.places import region_embedding
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.region import SMALLEST, Region
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.transforms import squared
from silo_app.imaging.samples.acquisition import draw_breath, draw_geometry, expose
from silo_app.imaging.samples.attenuation import attenuation
from silo_app.imaging.samples.findings import SCOPE, Abnormality
from silo_app.imaging.samples.hospitals import Hospital, hospital
from silo_app.imaging.samples.patients import draw_patient
from silo_app.imaging.samples.pool import spread
from silo_app.imaging.samples.projection import line_integrals
from silo_app.imaging.samples.thorax import Thorax
from silo_app.search.rocchio import Weights, refined

QUICK_PHANTOMS = 300
HOSPITALS = 3
K = 10
HELD_OUT = 3
"""Every third phantom is in the gallery; those of them with two findings or more are asked for."""
SEEN = 0.3
"""A pixel belongs to a finding if it weakens the beam there by this share of the most that it does anywhere."""
LESS_OF_THE_IMAGE = 0.5
"""How much of the whole image is taken out of its region's embedding, in one of the ways."""
MARGIN = 0.02
"""What is left around a box, of the image's side."""


@dataclass(frozen=True)
class Phantom:
    """One computed radiograph, float32 (H, W) in [0, 1], and the boxes of its findings if it is to be asked for."""

    patient: int
    picture: NDArray[np.float32]
    boxes: dict[Finding, Region]
    findings: frozenset[Finding]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return the precision among the first 10 for every way to ask, by finding and as their mean."""
    torch.set_num_threads(arguments.threads)
    count = QUICK_PHANTOMS if arguments.quick else arguments.phantoms
    phantoms = list(spread(phantom, [(arguments.seed, number) for number in range(count)], arguments.threads))
    spec = EncoderSpec(backbone=arguments.backbone, input_size=arguments.input_size, findings=SCOPE)
    images = _images(phantoms, spec)
    training, held_out = images.where(~images.held_out), np.flatnonzero(images.held_out)
    plan = TrainingPlan.checked({"rounds": arguments.rounds, "seed": arguments.seed})
    start = time.process_time()
    model = build(spec, arguments.seed)
    load_vector(model, alone(model, training, plan))
    spent = time.process_time() - start
    encoder = LoadedEncoder(spec, model.eval(), EncoderVersion("benchmark"))
    gallery = [phantoms[row] for row in held_out]
    return [
        Figure("training", spent, "CPU s"),
        Figure("auc", _auc(encoder, images, held_out), ""),
        *_asked(encoder, gallery),
    ]


def phantom(order: tuple[int, int]) -> Phantom:
    """Compute one phantom; the same order gives the same one."""
    seed, number = order
    where, random = hospital(number % HOSPITALS), np.random.default_rng((seed, number))
    patient = draw_patient(where, 1, random)
    abnormal = patient.visits[0].abnormal
    before = copy.deepcopy(random)
    picture = expose(patient.anatomy, abnormal, where.room, random).picture
    findings = frozenset(one.finding for one in abnormal)
    asked = findings if len(findings) > 1 and not number % HELD_OUT else frozenset[Finding]()
    boxes = {
        finding: box
        for finding in asked
        if (box := _box(patient.anatomy, abnormal, finding, where, copy.deepcopy(before))) is not None
    }
    return Phantom(number, picture, boxes, findings)


def _box(
    anatomy: "object", abnormal: Sequence[Abnormality], finding: Finding, where: Hospital, random: np.random.Generator
) -> Region | None:
    """Return where a finding changes the image: `expose`, in the same pose, with it and without."""
    position = ViewPosition.AP if random.random() < where.room.anterior else ViewPosition.PA
    thorax = Thorax(anatomy, draw_breath(position, random))  # type: ignore[arg-type]
    rays = draw_geometry(where.room, position, random).rays()
    beam = attenuation(round(where.room.kvp * random.uniform(0.94, 1.06)))
    without = [one for one in abnormal if one.finding is not finding]
    images = [line_integrals(thorax, rays, those, beam, copy.deepcopy(random)) for those in (abnormal, without)]
    change = np.abs(images[0] - images[1])
    if not change.max() > 0:
        return None
    rows, columns = np.nonzero(change > SEEN * change.max())
    height, width = change.shape
    top, bottom = _widened(rows.min() / height, (rows.max() + 1) / height)
    left, right = _widened(columns.min() / width, (columns.max() + 1) / width)
    return Region(left, top, right, bottom)


def _widened(low: float, high: float) -> tuple[float, float]:
    more = max(MARGIN, (SMALLEST - (high - low)) / 2)
    return float(max(0.0, low - more)), float(min(1.0, high + more))


def _images(phantoms: Sequence[Phantom], spec: EncoderSpec) -> Images:
    views = [
        View(
            digest="",
            case=CaseId(""),
            patient=PatientKey(str(one.patient)),
            split=Split.TRAIN if number % HELD_OUT else Split.HELD_OUT,
            findings={finding: finding in one.findings for finding in spec.findings},
        )
        for number, one in enumerate(phantoms)
    ]
    return Images(views, np.stack([squared(one.picture, spec.input_size) for one in phantoms]), *labels_of(views, spec))


def _auc(encoder: LoadedEncoder, images: Images, rows: NDArray[np.int64]) -> float:
    from silo_app.encoder.embed import embed

    logits = embed(encoder.model, images.pixels[rows])[1]
    names = [str(finding) for finding in encoder.spec.findings]
    found = findings_figures(names, logits, images.targets[rows], images.known[rows], images.patients[rows], draws=2)
    return statistics.mean(one.auc.value for one in found.values())


def _asked(encoder: LoadedEncoder, gallery: Sequence[Phantom]) -> Iterator[Figure]:
    vectors = encoder.radiographs([one.picture for one in gallery])
    right: dict[str, dict[Finding, list[float]]] = {}
    times: dict[str, list[float]] = {}
    for row, one in enumerate(gallery):
        for finding, box in one.boxes.items():
            has = np.array([finding in other.findings for other in gallery], np.float64)
            others = np.arange(len(gallery)) != row
            for way, vector in _ways(encoder, one.picture, box, vectors[row], times):
                order = np.argsort(-np.where(others, vectors @ vector, -2.0), kind="stable")[:K]
                right.setdefault(way, {}).setdefault(finding, []).append(float(has[order].mean()))
            right.setdefault("chance", {}).setdefault(finding, []).append(float(has[others].mean()))
    for way, by_finding in right.items():
        means = {finding: statistics.mean(values) for finding, values in by_finding.items()}
        yield Figure(f"{way}: precision@{K}", statistics.mean(means.values()), "")
        yield from (Figure(f"{way}: {finding}", means[finding], "") for finding in sorted(means))
    yield Figure("queries", sum(map(len, right["chance"].values())), "")
    yield from (Figure(f"{way}: time", statistics.median(values) * 1000, "ms") for way, values in times.items())


def _ways(
    encoder: LoadedEncoder,
    picture: NDArray[np.float32],
    box: Region,
    own: NDArray[np.float32],
    times: dict[str, list[float]],
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield "whole image", own
    height, width = picture.shape
    rows = slice(round(box.top * height), max(round(box.bottom * height), round(box.top * height) + 1))
    columns = slice(round(box.left * width), max(round(box.right * width), round(box.left * width) + 1))
    blank = np.full_like(picture, picture.mean())
    blank[rows, columns] = picture[rows, columns]
    ways: dict[str, Callable[[], NDArray[np.float32]]] = {
        "crop": lambda: encoder.radiographs([picture[rows, columns]])[0],
        "rest blanked": lambda: encoder.radiographs([blank])[0],
        "pooled": lambda: region_embedding(encoder, picture, box),
        "pooled, less the image": lambda: refined(
            region_embedding(encoder, picture, box), [], [own], Weights(less=LESS_OF_THE_IMAGE)
        ),
    }
    for way, embedding in ways.items():
        start = time.process_time()
        vector = embedding()
        times.setdefault(way, []).append(time.process_time() - start)
        yield way, vector


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--phantoms", type=int, default=1500, help="a third of them is the gallery, the rest trains")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backbone", default="densenet-small")
    parser.add_argument("--input-size", type=int, default=EncoderSpec().input_size)
    parser.add_argument("--threads", type=int, default=1)


if __name__ == "__main__":
    sys.exit(
        main(
            "region",
            measure,
            describe="What a region query finds: the crop embedded, or the feature map pooled over the region.",
            options=_options,
        )
    )
