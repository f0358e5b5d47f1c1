"""Make the next generation: embed what is new, take over what is unchanged, publish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, EncoderVersion, Split, View
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.encoder.looks import FindingsHead, Look
from silo_app.errors import EncoderMismatch, NotReady
from silo_app.index.generations import Generation, building, forget_in_milvus, open_current, publish
from silo_app.index.known import contents_of, generation_of, missing_from, vectors_of
from silo_app.index.likeness import estimate
from silo_app.index.looks import KeptLook, read_look
from silo_app.index.manifest import CASES_FILE, GenerationInfo
from silo_app.index.storage import Storage

__all__ = ["BuildReport", "Embed", "build_generation", "leave_milvus", "move_generation"]

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


def build_generation(
    home: SiloHome,
    version: EncoderVersion,
    embed: Embed,
    progress: Progress | None = None,
    *,
    head: FindingsHead | None = None,
    only_new: bool = False,
    wait_s: float = 0.0,
) -> BuildReport:
    """Index every view of the catalogue with the encoder `version`, whose embeddings `embed` makes.

    With the encoder's `head`, the silo's look is taken out of them. It is learned from the training views once for an
    encoder, and again when these have become twice as many; then every view is embedded anew.

    With `only_new`, nothing is published if the generation in use has every view. Raises `NotReady` if there is nothing to
    index, if another build runs and does so for `wait_s`, if Milvus holds what was embedded before and does not answer, or,
    with `only_new`, if no generation in use is of this encoder; `EncoderMismatch` if `embed` gives what no index can hold.
    """
    start = time.monotonic()
    with building(home.index, wait_s=wait_s):
        with Catalogue.open(home.catalogue) as catalogue:
            views = catalogue.views()
        if not views:
            raise NotReady(
                "the catalogue has no images to index", where=str(home.catalogue), remedy="Run `silo ingest` first."
            )
        old = generation_of(home, version, must_answer=True)
        if only_new and old is None:
            raise NotReady(
                f"no index in use is of encoder {version[:12]}", where=str(home.index), remedy="Run `silo index build`."
            )
        if only_new and old and not missing_from(contents_of(old), [[view.digest + view.case for view in views]]):
            return BuildReport(old.info, 0, old.info.views, time.monotonic() - start)
        look = _kept_look(home, old, views) if old and head else None
        known = vectors_of(old) if old and (look or not head) else {}
        missing = [view.digest for view in views if view.digest not in known]
        fresh = _embedded(missing, embed, progress)
        if head:
            look = look or _learned(head, views, fresh)
            fresh = {digest: look.look.removed(vector[None])[0] for digest, vector in fresh.items()}
        vectors, cases = _stacked(views, known, fresh), [view.case for view in views]
        info = publish(
            home.index,
            vectors=vectors,
            cases=cases,
            digests=[view.digest for view in views],
            encoder_version=version,
            storage=Storage.of(home),
            likeness=estimate(vectors, cases, [view.patient for view in views]),
            look=look,
        )
    return BuildReport(info, len(missing), len(views) - len(missing), time.monotonic() - start)


def move_generation(home: SiloHome, *, wait_s: float = 0.0) -> GenerationInfo:
    """Publish the generation in use once more, held as `silo.yaml` says now; nothing is embedded.

    Raises `NotReady` if there is none, if another build runs and does so for `wait_s`, or if Milvus does not answer; the
    old generation then stays in use.
    """
    storage = Storage.of(home)
    with building(home.index, wait_s=wait_s):
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
            look=read_look(home.index / old.info.generation, old.info),
        )


def leave_milvus(home: SiloHome, *, wait_s: float = 0.0) -> None:
    """Drop whatever Milvus holds of this silo, now that the index in use is held in files and everybody has opened it.

    Nothing where silo.yaml names no server. Raises `NotReady` if another build runs and does so for `wait_s`, or if Milvus
    does not answer.
    """
    with building(home.index, wait_s=wait_s):
        forget_in_milvus(home.index, Storage.of(home))


def _kept_look(home: SiloHome, old: Generation, views: Sequence[View]) -> KeptLook | None:
    """Return the look that the generation in use lacks, if it still fits, without views that have left the silo."""
    kept = read_look(home.index / old.info.generation, old.info)
    if not kept or not kept.still_fits(_train_views(views)):
        return None
    return KeptLook(kept.look.only_near({view.digest for view in views}), kept.views)


def _learned(head: FindingsHead, views: Sequence[View], vectors: dict[str, NDArray[np.float32]]) -> KeptLook:
    look = head.look(views, np.stack([vectors[view.digest] for view in views]))
    return KeptLook(Look.read(look.content()), _train_views(views))  # as it will be read again


def _train_views(views: Sequence[View]) -> int:
    return sum(view.split is Split.TRAIN for view in views)


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
