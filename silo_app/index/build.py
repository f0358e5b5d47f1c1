"""Make the next generation: embed what is new, take over what is unchanged, publish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, EncoderVersion, View
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.errors import EncoderMismatch, NotReady
from silo_app.index.generations import building, open_current, publish
from silo_app.index.known import known_vectors
from silo_app.index.likeness import estimate
from silo_app.index.manifest import CASES_FILE, GenerationInfo
from silo_app.index.storage import Storage

__all__ = ["BuildReport", "Embed", "build_generation", "move_generation"]

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""The embeddings, float32 (n, D), of cached radiographs that are named by their digests."""
Progress = Callable[[int, int], None]

_BATCH = 64
"""Views embedded at once: as radiographs of 512 x 512 float32 they take 67 MB."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build made, and from what."""

    info: GenerationInfo
    embedded: int
    """Views that were embedded now."""
    reused: int
    """Views whose embeddings were taken over from the generation before."""
    seconds: float
    """Wall clock."""


def build_generation(home: SiloHome, version: EncoderVersion, embed: Embed, progress: Progress | None = None) -> BuildReport:
    """Index every view of the catalogue with the encoder `version`, whose embeddings `embed` makes.

    Raises `NotReady` if there is nothing to index or another build runs, `EncoderMismatch` if `embed` gives what no
    index can hold.
    """
    start = time.monotonic()
    with building(home.index):
        with Catalogue.open(home.catalogue) as catalogue:
            views = catalogue.views()
        if not views:
            raise NotReady(
                "the catalogue has no images to index", where=str(home.catalogue), remedy="Run `silo ingest` first."
            )
        known = known_vectors(home, version)
        missing = [view.digest for view in views if view.digest not in known]
        fresh = _embedded(missing, embed, progress)
        vectors, cases = _stacked(views, known, fresh), [view.case for view in views]
        info = publish(
            home.index,
            vectors=vectors,
            cases=cases,
            digests=[view.digest for view in views],
            encoder_version=version,
            storage=Storage.of(home),
            likeness=estimate(vectors, cases, [view.patient for view in views]),
        )
    return BuildReport(info, len(missing), len(views) - len(missing), time.monotonic() - start)


def move_generation(home: SiloHome) -> GenerationInfo:
    """Publish the generation in use once more, held as `silo.yaml` says now; nothing is embedded.

    Raises `NotReady` if there is none, or Milvus does not answer; the old generation then stays in use.
    """
    storage = Storage.of(home)
    with building(home.index):
        old = open_current(home.index, storage)
        cases = np.load(home.index / old.info.generation / CASES_FILE, allow_pickle=False)
        return publish(
            home.index,
            vectors=old.gallery.vectors(np.arange(old.info.views)),
            cases=[CaseId(case.tobytes().hex()) for case in cases],
            digests=[digest.tobytes().hex() for digest in old.digests],
            encoder_version=EncoderVersion(old.info.encoder_version),
            storage=storage,
            likeness=old.info.likeness,
        )


def _embedded(digests: list[str], embed: Embed, progress: Progress | None) -> dict[str, NDArray[np.float32]]:
    made: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(digests), _BATCH):
        batch = digests[start : start + _BATCH]
        made.update(zip(batch, _normalized(embed(batch), len(batch)), strict=True))
        if progress:
            progress(len(made), len(digests))
    return made


def _normalized(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return unit vectors (n, D). Raises `EncoderMismatch` for what is none, so that no index holds nonsense."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(norms).all() or not (norms > 0).all():
        raise EncoderMismatch(
            f"the encoder made embeddings of shape {vectors.shape} for {count} views, or values that are not finite",
            remedy="Train again, or name another version with `silo model use`.",
        )
    return np.asarray(vectors / norms, np.float32)


def _stacked(
    views: Sequence[View], known: dict[str, NDArray[np.float32]], fresh: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    return np.stack([fresh[view.digest] if view.digest in fresh else known[view.digest] for view in views])
