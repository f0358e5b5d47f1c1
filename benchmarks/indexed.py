"""What silos would index of one set of real images, whose studies are divided over them whoever the patient is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.default_job import default_plan
from benchmarks.image_hospitals import hospitals_of, spec_of
from benchmarks.learning import IID, federated
from silo_app.cases import View
from silo_app.encoder.embed import embed
from silo_app.encoder.looks import without_look
from silo_app.encoder.model import build, encoder_of

__all__ = ["Indexed", "division", "trained", "unit", "untrained"]

_BACKBONE = "densenet-small"
_HOSPITALS = 3


@dataclass(frozen=True)
class Indexed:
    """Views, and what a silo would hold of each: unit vectors, float32 (n, D)."""

    views: Sequence[View]
    vectors: NDArray[np.float32]


def division(count: int, silos: int) -> NDArray[np.int64]:
    """Return the silo of each of so many studies, drawn at random whoever the patient is, int64 (n,)."""
    return np.random.default_rng(0).integers(0, silos, count)


def untrained(data: Path, *, limit: int | None) -> Indexed:
    """Return embeddings by DenseNet121 with start weights of seed 0: what it sees of patients, every encoder sees."""
    spec = spec_of([data])
    (one,) = hospitals_of([data], spec, hospitals=1, alpha=IID, seed=0, limit=limit)
    return Indexed(one.images.views, unit(embed(build(spec, 0), one.images.pixels)[0]))


def trained(data: Path, silos: int, *, limit: int | None, passes: float) -> Indexed:
    """Return embeddings by a small network that three hospitals trained by `jobs/train`, a fifth of patients held out.

    Each silo's look is taken out of those of its `division`, as its index would have it.
    """
    plan = default_plan(seed=0, epochs=passes)
    spec = spec_of([data], backbone=_BACKBONE, channels=plan.encoder.channels, looks=plan.encoder.looks)
    hospitals = hospitals_of([data], spec, hospitals=_HOSPITALS, alpha=IID, seed=0, limit=limit)
    weights = federated(build(spec, 0), [one.images.where(~one.images.held_out) for one in hospitals], plan)
    encoder = encoder_of(spec, weights, torch.device("cpu"))
    (one,) = hospitals_of([data], spec, hospitals=1, alpha=IID, seed=0, limit=limit)
    images, head = one.images, encoder.head()
    vectors = embed(encoder, images.pixels)[0]
    places = division(len(vectors), silos)
    for place in range(silos):
        mine = places == place
        everything = np.ones(int(mine.sum()), np.bool_)
        vectors[mine] = without_look(vectors[mine], everything, images.targets[mine], images.known[mine], head)
    return Indexed(images.views, unit(vectors))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (n, D) of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
