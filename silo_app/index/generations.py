"""Generations of a silo's index on disk: each immutable, published by one rename, checked before it is used.

    <home>/index/000007/    gallery.faiss, cases.npy, digests.npy, manifest.json
    <home>/index/current    the name of the generation in use

A generation is written into a hidden folder, synced, opened as its readers will open it, renamed, and then named in
`current`. Whoever is killed in between leaves the old generation in use and a hidden folder that the next build removes.
Readers hold their files open, so that an old generation may be removed while it is searched.
"""

import contextlib
import datetime as dt
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app import durable
from silo_app.cases import CASE_BYTES, CaseId, EncoderVersion
from silo_app.encoder.looks import Look
from silo_app.errors import IndexDamaged, NotReady, SiloscopeError
from silo_app.hex_rows import hex_rows
from silo_app.index.gallery import GalleryIndex
from silo_app.index.looks import KeptLook, read_look
from silo_app.index.manifest import (
    CASES_FILE,
    DIGESTS_FILE,
    LOOK_FILE,
    MANIFEST_FILE,
    GenerationInfo,
    damaged,
    digest_of,
    read_manifest,
    read_rows,
    require_sound,
    write_rows,
)
from silo_app.index.storage import Storage
from silo_app.policy.likeness import Likeness

__all__ = [
    "Generation",
    "building",
    "collections_named",
    "encoder_in_use",
    "generation_names",
    "has_generations",
    "in_use",
    "is_building",
    "left_in_milvus",
    "look_in_use",
    "named_current",
    "open_current",
    "pointer",
    "publish",
    "remove",
]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"\d{6,}")
_CURRENT = "current"
_LOCK = ".build.lock"
_OFTEN_S = 0.1


@dataclass(frozen=True, slots=True)
class Generation:
    """An open generation."""

    info: GenerationInfo
    gallery: GalleryIndex
    digests: NDArray[np.uint8]
    """uint8 (n, 32): the content of each row's view."""
    skipped: tuple[str, ...] = ()
    """Newer generations that were damaged, and are not used."""


def publish(
    root: Path,
    *,
    vectors: NDArray[np.float32],
    cases: Sequence[CaseId],
    digests: Sequence[str],
    encoder_version: EncoderVersion,
    storage: Storage | None = None,
    likeness: Likeness | None = None,
    look: KeptLook | None = None,
) -> GenerationInfo:
    """Write the next generation, unit vectors (n, D) with their cases and contents, and make it the one in use.

    Call it within `building`. Raises `NotReady` if the vectors belong into Milvus and it does not answer, or if the disk
    does not take the files: the old generation then stays in use, and nothing is left of the new one.
    """
    storage = storage or Storage()
    name = _next_name(root)
    hidden = root / f".{name}.part"
    try:
        durable.private_folder(hidden)
        written = storage.write(hidden, vectors)
        write_rows(hidden / CASES_FILE, hex_rows(cases, CASE_BYTES))
        write_rows(hidden / DIGESTS_FILE, hex_rows(digests, 32))
        files = [*written.files, CASES_FILE, DIGESTS_FILE]
        if look is not None:
            (hidden / LOOK_FILE).write_bytes(look.look.content())
            files.append(LOOK_FILE)
        info = GenerationInfo(
            generation=name,
            encoder_version=encoder_version,
            dimension=vectors.shape[1],
            views=len(vectors),
            cases=len(set(cases)),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            kind=written.kind,
            collection=written.collection,
            likeness=likeness,
            look_views=look.views if look is not None else None,
            files={file: digest_of(hidden / file) for file in files},
        )
        (hidden / MANIFEST_FILE).write_text(json.dumps(info.model_dump(), indent=2), encoding="utf-8")
        for file in sorted(hidden.iterdir()):
            _seal(file)
        durable.sync_folder(hidden)
        _opened(hidden, info, storage)  # libraries may write less than they were given, and not say so
        hidden.rename(root / name)
        durable.sync_folder(root)
        durable.write_text(root / _CURRENT, name + "\n")
    except Exception as error:
        remove(hidden)
        if named_current(root) != name:
            remove(root / name)
        if storage.settings.held_in == "milvus":  # each try would leave a whole gallery there
            _tidy(root, storage)
        if isinstance(error, OSError | IndexDamaged):
            raise _not_written(root, error) from error
        raise
    _remove_old(root, name, storage)
    _tidy(root, storage)
    return info


@contextmanager
def building(root: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the right to publish, and clear what a killed build left.

    Raises `NotReady` if another build runs, and still does so many seconds later.
    """
    durable.private_folder(root)
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE)
    try:
        until = time.monotonic() + wait_s
        while not durable.try_lock(descriptor):
            if time.monotonic() >= until:
                raise NotReady("another process builds this silo's index", where=str(root), remedy="Wait until it is done.")
            time.sleep(_OFTEN_S)
        for left in root.glob(".*.part"):
            remove(left)
        yield
    finally:
        os.close(descriptor)


def is_building(root: Path) -> bool:
    """Return whether a process holds the right to publish."""
    try:
        descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not durable.try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def in_use(root: Path, storage: Storage | None = None) -> str | None:
    """Return the generation that `open_current` opens, or None if there is none; Milvus is not asked without a `storage`.

    Every file is read. Raises `IndexDamaged` if no generation is sound.
    """
    named = pointer(root)
    names = _preferred(root)
    for name in names:
        try:
            info = read_manifest(root / name)
            if info.kind == "milvus":
                require_sound(root / name, info)
                if storage and storage.has_lost(info):
                    continue
            else:
                _opened(root / name, info, Storage())
        except IndexDamaged:
            if pointer(root) != named:
                return in_use(root, storage)
        else:
            return name
    if names:
        raise _none_is_sound(root, names)
    return None


def open_current(root: Path, storage: Storage | None = None) -> Generation:
    """Open the generation in use, or the newest sound one if that is damaged.

    Raises `NotReady` if nothing was indexed yet or Milvus does not answer, `IndexDamaged` if no generation is sound.
    """
    storage = storage or Storage()
    named = pointer(root)
    if not generation_names(root):
        raise NotReady("this silo has no index yet", where=str(root), remedy="Run `silo index build`.")
    skipped: list[str] = []
    for name in _preferred(root):
        try:
            return _open(root / name, storage, tuple(skipped))
        except IndexDamaged:
            if pointer(root) != named:  # not damaged: removed, since another was published
                return open_current(root, storage)
            skipped.append(name)
    raise _none_is_sound(root, skipped)


def encoder_in_use(root: Path) -> EncoderVersion | None:
    """Return the encoder of the generation in use, or of the newest whose manifest can be read; no gallery is opened.

    None if nothing was indexed yet.
    """
    for name in _preferred(root):
        with contextlib.suppress(IndexDamaged):
            return EncoderVersion(read_manifest(root / name).encoder_version)
    return None


def has_generations(root: Path) -> bool:
    """Return whether anything was indexed yet, be it sound or damaged."""
    return bool(generation_names(root))


def look_in_use(root: Path, version: EncoderVersion) -> Look:
    """Return the look that the generation in use lacks, or the newest sound one of this encoder; no gallery is opened.

    Raises `NotReady` if no generation was made with this encoder.
    """
    for name in _preferred(root):
        with contextlib.suppress(IndexDamaged):
            info = read_manifest(root / name)
            kept = read_look(root / name, info) if info.encoder_version == version else None
            if kept is not None:
                return kept.look
    raise NotReady(
        f"how this silo's images look to encoder {version[:12]} is not known yet",
        where=str(root),
        remedy="Run `silo index build` once: it learns the look, which then is taken out of queries too.",
    )


def left_in_milvus(root: Path, storage: Storage, used: GenerationInfo) -> list[str]:
    """Return the collections in Milvus that nothing needs: of no generation, or, where new ones go to files, not in use.

    Where silo.yaml names no server, those that generations on disk name. Raises `NotReady` if Milvus does not answer.
    """
    named = collections_named(root)
    needed = {used.collection} | (named if storage.settings.held_in == "milvus" else set())
    return sorted((storage.collections() | named) - needed)


def pointer(root: Path) -> tuple[int, int]:
    """Return what changes when a generation is published (inode and time of `current`); zeros if there is none."""
    try:
        status = (root / _CURRENT).stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def _open(folder: Path, storage: Storage, skipped: tuple[str, ...] = ()) -> Generation:
    return _opened(folder, read_manifest(folder), storage, skipped)


def _opened(folder: Path, info: GenerationInfo, storage: Storage, skipped: tuple[str, ...] = ()) -> Generation:
    require_sound(folder, info)
    cases = read_rows(folder / CASES_FILE, (info.views, CASE_BYTES))
    gallery = storage.open(folder, info, cases)
    if gallery.dimension != info.dimension:
        raise damaged(folder, "its vectors have another dimension than its manifest says")
    return Generation(info, gallery, read_rows(folder / DIGESTS_FILE, (info.views, 32)), skipped)


def _none_is_sound(root: Path, names: Sequence[str]) -> IndexDamaged:
    return IndexDamaged(
        f"none of the generations {', '.join(sorted(names))} is as it was written",
        where=str(root),
        remedy="Run `silo index build` to make a new generation.",
    )


def _not_written(root: Path, error: OSError | IndexDamaged) -> NotReady:
    why = error.strerror or str(error) if isinstance(error, OSError) else error.problem
    return NotReady(
        f"the new generation could not be written: {why}",
        where=str(root),
        remedy="Look whether the disk has room (`silo doctor`), and try again. What was in use before still is.",
    )


def _seal(file: Path) -> None:
    """Make a file durable, private and read-only: a generation never changes."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o400)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def generation_names(root: Path) -> list[str]:
    """Return the generations on disk, ascending, be they sound or damaged."""
    if not root.is_dir():
        return []
    return sorted((entry.name for entry in root.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir()), key=int)


def _next_name(root: Path) -> str:
    """Return a name that was not used before: the generation in use may have been removed with a case that left."""
    used = [name for name in (*generation_names(root), named_current(root)) if _NAME.fullmatch(name)]
    return f"{max(map(int, used), default=0) + 1:06d}"


def _preferred(root: Path) -> list[str]:
    """Return the generations, the one in use first and then from the newest on."""
    named = named_current(root)
    return sorted(generation_names(root), key=lambda name: (name != named, -int(name)))


def named_current(root: Path) -> str:
    """Return the name in `current`, be its generation sound or damaged; "" if there is none."""
    try:
        return (root / _CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _remove_old(root: Path, published: str, storage: Storage) -> None:
    """Keep the one just published, and the newest sound one before it to fall back on.

    Those in Milvus stay too while nobody can tell whether they are sound, or drop what they hold there.
    """
    fallback = False
    for name in reversed(generation_names(root)):
        if name == published:
            continue
        try:
            if not fallback:
                _open(root / name, storage)
                fallback = True
                continue
            if storage.settings.milvus is None and read_manifest(root / name).kind == "milvus":
                continue
        except NotReady:
            continue
        except IndexDamaged:
            pass
        remove(root / name)


def _tidy(root: Path, storage: Storage) -> None:
    """Drop what Milvus holds of no generation; if it does not answer, the next build does."""
    try:
        storage.tidy(collections_named(root))
    except SiloscopeError as error:
        _log.warning("what Milvus holds of no generation stays there for now: %s", error)


def collections_named(root: Path) -> set[str]:
    """Return the collections in Milvus that generations on disk name."""
    named = set()
    for name in generation_names(root):
        with contextlib.suppress(IndexDamaged):
            named.add(read_manifest(root / name).collection)
    return named - {""}


def remove(left: Path) -> None:
    """Remove a generation, or what a killed build left."""
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)  # a temporary file of `durable`
