"""Files of radiographs -> a folder of their de-identified copies, named by their new UIDs."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from silo_app.audit.log import AuditLog
from silo_app.catalogue import Catalogue, SiloKey, ViewKeys
from silo_app.config import SiloHome
from silo_app.durable import private_folder, write_bytes
from silo_app.errors import ImageUnsupported, SourceEmpty
from silo_app.imaging.apply import RECALLED, keys_of
from silo_app.imaging.attributes import text
from silo_app.imaging.burned_in import check_burned_in, check_reader
from silo_app.imaging.content import read_bytes
from silo_app.imaging.deidentify.export import deidentified, encoded
from silo_app.imaging.deidentify.names import Names
from silo_app.imaging.header import header_of
from silo_app.imaging.parse import dataset_of
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.sources.folder import open_folder

__all__ = ["Released", "files_in", "release"]


@dataclass(slots=True)
class Released:
    """What was written, and what was not."""

    written: list[str] = field(default_factory=list)
    """Names of the new files."""
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """File, reason, detail; for the hospital's own eyes."""
    burned_in: int = 0
    """Written pictures that seem to name their patient, where `imaging.burned_in` is warn."""


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files, and those in folders. Raises `SourceEmpty` for a path that is neither."""
    for path in paths:
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from (file.path for file in open_folder(path).files())
        else:
            raise SourceEmpty("there is no such file or folder", where=str(path), remedy="Name DICOM files or folders.")


def release(home: SiloHome, files: Iterable[Path], out: Path) -> Released:
    """Write a copy without the patient of every file that the silo would take; the silo's gate and key decide.

    What the hospital took out of the silo is not copied either. The audit log has how many, however this ends. Files that
    exist are replaced, since names follow from the content; but of two files of one image here the second is refused.
    """
    check_reader(home.config.imaging)
    key = SiloKey.load_or_create(home.key)
    private_folder(out)
    done = Released()
    made: dict[str, str] = {}
    try:
        with _recalls(home) as is_recalled:
            for file in files:
                try:
                    content = read_bytes(file)
                    named = _checked(home, key, content, is_recalled)
                    name, copy = _copied(key, content)
                    if made.setdefault(name, digest := hashlib.sha256(copy).hexdigest()) != digest:
                        raise refusal(RefusalReason.DUPLICATE_INSTANCE, "another file holds this image with other content")
                except ImageUnsupported as error:
                    done.refused.append((str(file), error.reason, error.problem))
                    continue
                write_bytes(out / name, copy)
                done.burned_in += bool(named)
                done.written.append(name)
    finally:  # a full disk, or a person who stops it: what was written until then is out all the same
        audit = AuditLog(home.audit)
        audit.append("deid-export", {"files": len(done.written), "refused": len(done.refused)})
        audit.close()
    return done


def _checked(home: SiloHome, key: SiloKey, content: bytes, is_recalled: Callable[[ViewKeys], bool]) -> str:
    """Return why a picture seems to name its patient, "" if nothing says so. Raises `ImageUnsupported`."""
    settings = home.config.imaging
    ds = dataset_of(content)
    named = "" if settings.burned_in == "off" else check_burned_in(ds, ocr=settings.ocr)
    if named and settings.burned_in == "refuse":
        raise refusal(RefusalReason.BURNED_IN, named)
    if is_recalled(keys_of(key, header_of(ds, content))):
        raise refusal(RefusalReason.RECALLED, RECALLED)
    return named


def _copied(key: SiloKey, content: bytes) -> tuple[str, bytes]:
    """Return a file's copy, and the name of it: its new UID, without which none is written."""
    ds = deidentified(content, Names(key))
    copy = encoded(ds)
    return f"{text(ds, 'SOPInstanceUID')}.dcm", copy


@contextmanager
def _recalls(home: SiloHome) -> Iterator[Callable[[ViewKeys], bool]]:
    """Give what tells whether an image was taken out of the silo; nothing was of one without a catalogue."""
    if not home.catalogue.is_file():
        yield lambda _: False
        return
    with Catalogue.open(home.catalogue) as catalogue:
        yield catalogue.is_recalled
