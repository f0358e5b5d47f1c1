"""Make the next generation: embed what is new, take over what is unchanged, publish."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, EncoderVersion, Split, View
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.encoder.looks import FindingsHead, Look
from silo_app.errors import EncoderMismatch, NotReady
from silo_app.imaging.cache import RadiographCache
from silo_app.index.forgetting import forget_cases, forget_in_milvus
from silo_app.index.generations import Generation, building, open_current, publish
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
    lacking: tuple[View, ...] = ()
    """Views that are not in it: the cache lacks their radiographs, and they could not be decoded again."""


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

    What leaves the catalogue meanwhile is left out, and so is a view whose radiograph is lost. Cases that were taken out of
    the silo leave the older generations too.

    With the encoder's `head`, the silo's look is taken out of them. It is learned from the training views once for an
    encoder, and again when these have become twice as many; then every view is embedded anew.

    With `only_new`, nothing is published if the generation in use is sound and has every view that can be had.

    Raises `NotReady` if there is nothing to index, if another build runs and does so for `wait_s`, if Milvus holds what was
    embedded before and does not answer, or, with `only_new`, if no generation in use is of this encoder; `EncoderMismatch`
    if `embed` gives what no index can hold.
    """
    start, storage = time.monotonic(), Storage.of(home)
    with building(home.index, wait_s=wait_s):
        views, taken_out = _views(home)
        if not views:
            forget_cases(home.index, taken_out)
            raise _nothing_to_index(home)
        old = generation_of(home, version, must_answer=True)
        if only_new and old is None:
            raise NotReady(
                f"no index in use is of encoder {version[:12]}", where=str(home.index), remedy="Run `silo index build`."
            )
        if only_new and old and _needs_no_other(old, views):
            return BuildReport(old.info, 0, old.info.views, time.monotonic() - start)
        kept = _kept_look(home, old, views) if old and head else None
        known = vectors_of(old) if old and (kept or not head) else {}
        fresh = _embedded(home, [view.digest for view in views if view.digest not in known], embed, progress)
        views, taken_out = _still_held(home, views)
        if not views:
            raise _nothing_to_index(home)
        views, lacking = _divided(views, known.keys() | fresh.keys())
        if not views:
            raise _nothing_decoded(home, len(lacking))
        if only_new and old and lacking and _needs_no_other(old, views):
            return BuildReport(old.info, 0, old.info.views, time.monotonic() - start, lacking)
        look = kept.without_the_gone(view.digest for view in views) if kept else None
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
            storage=storage,
            likeness=estimate(vectors, cases, [view.patient for view in views]),
            look=look,
        )
        forget_cases(home.index, taken_out, kept=info.generation)
    embedded = sum(view.digest in fresh for view in views)
    return BuildReport(info, embedded, len(views) - embedded, time.monotonic() - start, lacking)


def move_generation(home: SiloHome, *, wait_s: float = 0.0) -> GenerationInfo:
    """Publish the generation in use once more, held as `silo.yaml` says now; nothing is embedded.

    Cases that were taken out of the silo are left behind: they go to no other server. Raises `NotReady` if there is none,
    or nobody else in it, if another build runs and does so for `wait_s`, or if Milvus does not answer; the old generation
    then stays in use.
    """
    storage = Storage.of(home)
    with building(home.index, wait_s=wait_s):
        old = open_current(home.index, storage)
        folder = home.index / old.info.generation
        named = [CaseId(case.tobytes().hex()) for case in np.load(folder / CASES_FILE, allow_pickle=False)]
        rows = np.flatnonzero(~np.isin(named, _taken_out(home))).astype(np.int64)
        if old.info.views and not len(rows):
            raise _nothing_to_index(home)
        digests = [digest.tobytes().hex() for digest in old.digests[rows]]
        look = read_look(folder, old.info)
        return publish(
            home.index,
            vectors=old.gallery.vectors(rows),
            cases=[named[row] for row in rows],
            digests=digests,
            encoder_version=EncoderVersion(old.info.encoder_version),
            storage=storage,
            likeness=old.info.likeness,
            look=look.without_the_gone(digests) if look and len(rows) < old.info.views else look,
        )


def leave_milvus(home: SiloHome, *, wait_s: float = 0.0) -> None:
    """Drop what Milvus holds of this silo and no generation needs, now that everybody has opened the one in use.

    Nothing where silo.yaml names no server. Raises `NotReady` if another build runs and does so for `wait_s`, or if Milvus
    does not answer.
    """
    with building(home.index, wait_s=wait_s):
        forget_in_milvus(home.index, Storage.of(home))


def _views(home: SiloHome) -> tuple[list[View], list[CaseId]]:
    """Return the views that the catalogue holds, and the cases that were taken out of it."""
    with Catalogue.open(home.catalogue) as catalogue:
        return catalogue.views(), catalogue.taken_out()


def _taken_out(home: SiloHome) -> list[CaseId]:
    if not home.catalogue.is_file():
        return []
    with Catalogue.open(home.catalogue) as catalogue:
        return catalogue.taken_out()


def _still_held(home: SiloHome, views: Sequence[View]) -> tuple[list[View], list[CaseId]]:
    """Return those of the views that the catalogue holds still: embedding takes hours where there are many."""
    with Catalogue.open(home.catalogue) as catalogue:
        held = {content for block in catalogue.contents() for content in block}
        return [view for view in views if view.digest + view.case in held], catalogue.taken_out()


def _nothing_to_index(home: SiloHome) -> NotReady:
    return NotReady("the catalogue has no images to index", where=str(home.catalogue), remedy="Run `silo ingest` first.")


def _nothing_decoded(home: SiloHome, count: int) -> NotReady:
    return NotReady(
        f"none of the {count} images is in the cache, nor could one be decoded again from its source",
        where=str(home.cache),
        remedy="Run `silo ingest`: it decodes them again, or says what keeps it from that.",
    )


def _needs_no_other(generation: Generation, views: Sequence[View]) -> bool:
    """Return whether a generation has all views, and does not stand in for one that is damaged."""
    return not generation.skipped and not missing_from(
        contents_of(generation), [[view.digest + view.case for view in views]]
    )


def _divided(views: Sequence[View], embedded: Collection[str]) -> tuple[list[View], tuple[View, ...]]:
    """Return the views that have embeddings, and those that have none."""
    return [view for view in views if view.digest in embedded], tuple(view for view in views if view.digest not in embedded)


def _kept_look(home: SiloHome, old: Generation, views: Sequence[View]) -> KeptLook | None:
    """Return the look that the generation in use lacks, if it still fits."""
    kept = read_look(home.index / old.info.generation, old.info)
    return kept if kept and kept.still_fits(_train_views(views)) else None


def _learned(head: FindingsHead, views: Sequence[View], vectors: dict[str, NDArray[np.float32]]) -> KeptLook:
    look = head.look(views, np.stack([vectors[view.digest] for view in views]))
    return KeptLook(Look.read(look.content()), _train_views(views))  # as it will be read again


def _train_views(views: Sequence[View]) -> int:
    return sum(view.split is Split.TRAIN for view in views)


def _embedded(
    home: SiloHome, digests: Sequence[str], embed: Embed, progress: Progress | None
) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings of all radiographs but those that leave the silo meanwhile, or that nobody can read any more.

    Those that the cache lacks come last: they are decoded again first.
    """
    made, lacking = _embedded_from_cache(home, digests, embed, progress)
    if lacking:
        from silo_app.imaging.again import decode_again  # it loads what reads DICOM, which hardly any build needs

        gone = set(decode_again(home, lacking))
        there = [digest for digest in lacking if digest not in gone]
        made |= _embedded_from_cache(home, there, embed, progress)[0]
    return made


def _embedded_from_cache(
    home: SiloHome, digests: Sequence[str], embed: Embed, progress: Progress | None
) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Return the embeddings of the radiographs that the cache has, and the digests of the others that the silo holds."""
    made: dict[str, NDArray[np.float32]] = {}
    cache = RadiographCache(home.cache)
    left, lacking = list(digests), list[str]()
    while left:
        batch = left[:_BATCH]
        try:
            rows = _normalized(embed(batch), len(batch))
        except NotReady:
            with Catalogue.open(home.catalogue) as catalogue:
                held = [digest for digest in batch if catalogue.case_of_digest(digest)]
            there = [digest for digest in held if cache.is_sound(digest)]
            if there == batch:
                raise
            lacking += [digest for digest in held if digest not in there]
            left[:_BATCH] = there
            continue
        made.update(zip(batch, rows, strict=True))
        left = left[_BATCH:]
        if progress:
            progress(len(made), len(made) + len(left))
    return made, lacking


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
