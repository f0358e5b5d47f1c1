"""Ingest: every file of the silo's sources becomes a view in catalogue and cache, or a refusal with its reason.

Idempotent: what has not changed (path, size, time) is not read again; what was read again and has the same content is
the same view. Resumable: files are taken in a fixed order and written down in transactions, so that a run that was
killed is finished by the next one with the same outcome. What has left a source leaves catalogue and cache; a source that
does not answer loses nothing.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from silo_app.cases import Finding
from silo_app.catalogue import Catalogue, CatalogueCounts, FileRecord, Refusal, SiloKey, Vault
from silo_app.catalogue.writing import CatalogueWriter
from silo_app.config import FolderSource, NoLabels, PresetLabels, SiloHome, TagLabels
from silo_app.durable import PRIVATE, private_folder, try_lock
from silo_app.errors import NotReady, SiloscopeError, SourceEmpty, SourceUnreachable
from silo_app.imaging.apply import Applier
from silo_app.imaging.arriving import arriving
from silo_app.imaging.brightness import measure_missing
from silo_app.imaging.burned_in import check_reader
from silo_app.imaging.cache import PREPROCESSING, RadiographCache
from silo_app.imaging.labelling import label_all
from silo_app.imaging.labels import LabelTable, Vocabulary, as_reported, read_labels
from silo_app.imaging.left import left_behind
from silo_app.imaging.pool import LOST, decode_all
from silo_app.imaging.refusal import RefusalReason
from silo_app.imaging.sources import Source, SourceFile, open_source
from silo_app.imaging.worker import Request

__all__ = ["SECONDS_PER_FILE", "IngestReport", "ingest", "only_one"]

SECONDS_PER_FILE = 60
"""Ten times what the slowest decoder takes for the largest radiograph on a slow core."""

_KEPT = "sealed study, burned-in, keyed contents"
"""What the catalogue keeps of a file since a version; a file of an earlier one is read again."""

_PASSING = (RefusalReason.UNREADABLE, RefusalReason.NOT_RETRIEVED)
"""Refusals that may be over by the next ingest, although the file has not changed."""

_FIRST_BATCH = 8
_BATCH = 256
_BATCH_SECONDS = 2.0

Progress = Callable[[int, int], None]
_Listing = tuple[Source, list[SourceFile], dict[str, FileRecord]]
"""A source, what it holds, and what the catalogue knows of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an ingest did and found."""

    files: int
    """Files in the sources."""
    added: int
    """New views."""
    unchanged: int
    """Files whose view was there before, or that hold the same bytes as another file."""
    removed: int
    """Views whose last file has left its source, or was replaced."""
    refused: tuple[Refusal, ...] = ()
    """Every file of these sources that is no view, whether refused now or earlier."""
    views: int
    """Usable images in the catalogue."""
    unreachable: Mapping[str, str] = field(default_factory=dict)
    """Sources that could not be opened or read, or not to their end, and why; nothing of them was removed."""
    unlabelled: int
    """Views of which no finding is known."""
    one_sided: bool = False
    """Findings are present in some views, but none is known to be absent in any: from such labels nothing is learned."""
    unmapped: Mapping[str, int] = field(default_factory=dict)
    """Local words that the configuration does not map to the shared vocabulary."""
    unmatched: int = 0
    """Keys of the label file that name no view."""
    burned_in: int = 0
    """Pictures read now that seem to name their patient, where `imaging.burned_in` lets them in."""
    seconds: float = 0.0
    """Wall clock."""


def ingest(home: SiloHome, *, workers: int | None = None, progress: Progress | None = None) -> IngestReport:
    """Bring catalogue and cache up to date with the silo's sources; `progress(done, total)` counts files.

    Raises `LabelsInvalid`, `CatalogueDamaged`, or `NotReady` if another ingest runs or the cache cannot be written; and
    what the first source raises if none can be read (`SourceEmpty`, `SourceUnreachable`, ...): else it costs only what
    that source has. What a file holds never raises.
    """
    start = time.monotonic()
    check_reader(home.config.imaging)
    sources, unopened = _sources(home)
    table = _label_table(home)
    private_folder(home.root)
    with (
        only_one(home),
        Catalogue.open(home.catalogue, create=True, vault=Vault(key := SiloKey.load_or_create(home.key))) as catalogue,
    ):
        cache = RadiographCache(home.cache)
        private_folder(cache.root)
        cache.sweep()
        with catalogue.writing() as writer:
            writer.bind_key(key.check)
        catalogue.seal_names()
        run = _Run(home=home, catalogue=catalogue, cache=cache, applier=_applier(home, key), progress=progress)
        listings, unreachable = _listed(sources, unopened)
        run.unreachable |= unreachable
        names = {source.name for source in sources} | set(unopened)
        with catalogue.writing() as writer:
            run.applier.left = left = tuple(left_behind(home, writer.sources(), names))
        run.take(listings, workers)
        with catalogue.writing() as writer:
            writer.forget_copies(left)
        unmatched = label_all(catalogue, table, key) if table else 0
        _discard_orphans(catalogue, cache)
        measure_missing(catalogue, cache)
        counts = catalogue.counts()
        return IngestReport(
            files=run.total,
            added=run.applier.added,
            unchanged=run.unchanged + run.applier.same,
            removed=run.removed + run.applier.replaced,
            refused=tuple(refusal for refusal in catalogue.refusals() if refusal.source in names),
            views=counts.views,
            unreachable={name: error.problem for name, error in run.unreachable.items()},
            unlabelled=counts.unlabelled,
            one_sided=_one_sided(counts),
            unmapped=as_reported(table.unmapped if table else run.applier.unmapped),
            unmatched=unmatched,
            burned_in=run.applier.burned_in,
            seconds=time.monotonic() - start,
        )


def _one_sided(counts: CatalogueCounts) -> bool:
    findings = [count for finding, count in counts.findings.items() if finding is not Finding.NO_FINDING]
    return any(count.present for count in findings) and not any(count.absent for count in findings)


@dataclass(slots=True, kw_only=True)
class _Run:
    home: SiloHome
    catalogue: Catalogue
    cache: RadiographCache
    applier: Applier
    progress: Progress | None
    total: int = 0
    unchanged: int = 0
    removed: int = 0
    done: int = 0
    unreachable: dict[str, SiloscopeError] = field(default_factory=dict)

    def take(self, listings: list[tuple[Source, list[SourceFile]]], workers: int | None) -> None:
        """Forget what has gone, then read what is new or changed."""
        self.total = sum(len(files) for _, files in listings)
        todo = self._pending([(source, files, self._known(source, files)) for source, files in listings])
        self.unchanged = self.total - len(todo)
        self._tell(self.unchanged)
        with arriving(
            [(source, file) for source, file, _ in todo],
            lambda index, path: self._request(path, todo[index][2]),
            self.home.spool,
        ) as requests:
            for batch in _batches(enumerate(decode_all(requests, workers=workers))):
                with self.catalogue.writing() as writer:
                    for index, reply in batch:
                        source, file, known = todo[index]
                        self._apply(writer, source, file, known, requests.settled(index, reply))
                self._tell(len(batch))
            self.unreachable |= requests.unreachable

    def _apply(
        self,
        writer: CatalogueWriter,
        source: Source,
        file: SourceFile,
        known: FileRecord | None,
        reply: dict[str, Any] | None,
    ) -> None:
        """Write down what a file is; one that could not be had stays what it was."""
        kept = known is not None and known.digest is not None
        if reply is None or (kept and reply.get("reason") == RefusalReason.NOT_RETRIEVED):
            self.unchanged += kept
        else:
            self.applier.apply(writer, source.name, file, known, reply)

    def _known(self, source: Source, files: list[SourceFile]) -> dict[str, FileRecord]:
        """Forget files that are gone; return what is known about the others."""
        with self.catalogue.writing() as writer:
            known = writer.files(source.name)
        gone = set(self._gone(source, files, set(known)))
        with self.catalogue.writing() as writer:
            writer.forget_files(source.name, gone)
            self.removed += len(writer.drop_orphans())
        return {name: record for name, record in known.items() if name not in gone}

    def _pending(self, listings: list[_Listing]) -> list[tuple[Source, SourceFile, FileRecord | None]]:
        """Return the files to be read: changed ones first, which may give up images that others are duplicates of."""
        changed, others = [], []
        for source, files, known in listings:
            for file in files:
                record = known.get(file.name)
                if record is None or record.reason == RefusalReason.DUPLICATE_INSTANCE:
                    others.append((source, file, record))
                elif not self._is_current(file, record):
                    changed.append((source, file, record))
        unsure = {record.digest for _, _, record in changed}
        with self.catalogue.writing() as writer:
            for name in self.applier.left:
                unsure |= {record.digest for record in writer.files(name).values()}
            return changed + [
                (source, file, record)
                for source, file, record in others
                if record is None
                or not self._is_current(file, record)
                or (holder := writer.holder(record.instance)) is None
                or holder in unsure
            ]

    def _gone(self, source: Source, files: list[SourceFile], known: set[str]) -> list[str]:
        """Return what the source does not hold any more: not listed, not below what could not be listed, and confirmed."""
        unlisted = tuple(file.name for file in files if not file.whole)
        missing = sorted(known - {file.name for file in files})
        below = tuple(end for name in unlisted for end in (f"{name}/", f"{name}!/"))
        missing = [name for name in missing if "." not in unlisted and not name.startswith(below)]
        try:
            return source.confirm_gone(missing) if missing else []
        except SourceUnreachable as error:
            self.unreachable[source.name] = error
            return []

    def _is_current(self, file: SourceFile, known: FileRecord) -> bool:
        time_ns = self.catalogue.stamp(file.mtime_ns)
        same = (known.size, known.mtime_ns, known.recipe) == (file.size, time_ns, self.applier.recipe)
        if known.digest is None:  # a crash or a lack of permission may be over
            return same and known.detail != LOST["detail"] and known.reason not in _PASSING
        return same and known.digest in self.cache

    def _request(self, path: Path, known: FileRecord | None) -> Request:
        labels = self.home.config.labels
        tag = labels if isinstance(labels, TagLabels) else None
        return Request(
            path=str(path),
            cache=str(self.cache.root),
            content_key=self.applier.key.contents.hex,
            seconds=SECONDS_PER_FILE,
            known=known.digest or "" if known and known.recipe == self.applier.recipe else "",
            label_keyword=tag.keyword if tag else "",
            separator=tag.separator if tag else "|",
            burned_in=self.home.config.imaging.burned_in,
            ocr=self.home.config.imaging.ocr,
        )

    def _tell(self, more: int) -> None:
        self.done += more
        if self.progress:
            self.progress(self.done, self.total)


def _sources(home: SiloHome) -> tuple[list[Source], dict[str, SiloscopeError]]:
    """Return the sources that can be opened, and why others cannot. Raises the first reason if none can."""
    if not home.config.sources:
        raise SourceEmpty(
            "the silo has no source",
            where=str(home.kit / "local" / "silo.yaml"),
            remedy="Name the folder of your DICOM files with --source, or under `sources` in local/silo.yaml.",
        )
    opened: list[Source] = []
    unopened: dict[str, SiloscopeError] = {}
    for settings in home.config.sources:
        try:
            opened.append(open_source(home, settings))
        except SiloscopeError as error:
            name = str(home.resolve(settings.path).resolve()) if isinstance(settings, FolderSource) else settings.name
            unopened[name] = error
    if not opened:
        raise next(iter(unopened.values()))
    return opened, unopened


def _listed(
    sources: list[Source], unopened: Mapping[str, SiloscopeError]
) -> tuple[list[tuple[Source, list[SourceFile]]], dict[str, SiloscopeError]]:
    """Return what each source holds, and the sources that do not tell. Raises the first reason if none does."""
    listings: list[tuple[Source, list[SourceFile]]] = []
    unreachable: dict[str, SiloscopeError] = dict(unopened)
    for source in sources:
        try:
            listings.append((source, list(source.files())))
        except SiloscopeError as error:
            unreachable[source.name] = error
    if unreachable and not listings:
        raise next(iter(unreachable.values()))
    return listings, unreachable


def _label_table(home: SiloHome) -> LabelTable | None:
    labels = home.config.labels
    if isinstance(labels, TagLabels | NoLabels):
        return None
    images = home.resolve(labels.images) if isinstance(labels, PresetLabels) and labels.images else None
    return read_labels(labels, home.resolve(labels.path), images=images)


def _applier(home: SiloHome, key: SiloKey) -> Applier:
    labels = home.config.labels
    tag = labels if isinstance(labels, TagLabels) else None
    # Whatever changes the outcome of reading a file belongs to the recipe.
    imaging = home.config.imaging.model_dump_json()
    recipe = hashlib.sha256(
        f"{_KEPT}\n{imaging}\n{PREPROCESSING}\n{tag.model_dump_json() if tag else ''}".encode()
    ).hexdigest()[:16]
    return Applier(
        key=key,
        held_out_share=home.config.held_out_share,
        recipe=recipe,
        vocabulary=Vocabulary(tag, datetime.now(UTC).isoformat(timespec="seconds")) if tag else None,
    )


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Group items into batches, one transaction each: of 8, 16, ... at most 256, or of two seconds.

    The first ones are small, so that a run that is killed early has not been for nothing.
    """
    batch: list[Any] = []
    since, size = time.monotonic(), _FIRST_BATCH
    for item in items:
        batch.append(item)
        if len(batch) >= size or time.monotonic() - since > _BATCH_SECONDS:
            yield batch
            batch, since, size = [], time.monotonic(), min(2 * size, _BATCH)
    if batch:
        yield batch


def _discard_orphans(catalogue: Catalogue, cache: RadiographCache) -> None:
    """Remove radiographs that no view has: their images were recalled, or a killed run had no time to add them."""
    held = {view.digest for view in catalogue.views()}
    for digest in list(cache.digests()):
        if digest not in held:
            cache.discard(digest)


@contextmanager
def only_one(home: SiloHome) -> Iterator[None]:
    """Hold the silo's ingest lock; the kernel gives it back however we end."""
    descriptor = os.open(home.root / "ingest.lock", os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        if not try_lock(descriptor):
            raise NotReady("another ingest of this silo is running", where=str(home.root), remedy="Wait until it has ended.")
        yield
    finally:
        os.close(descriptor)
