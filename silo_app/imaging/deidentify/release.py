"""Files of radiographs -> a folder of their de-identified copies, named by their new UIDs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from silo_app.audit.log import AuditLog
from silo_app.catalogue import SiloKey
from silo_app.config import SiloHome
from silo_app.durable import private_folder, write_bytes
from silo_app.errors import ImageUnsupported, SourceEmpty
from silo_app.imaging.attributes import text
from silo_app.imaging.burned_in import check_burned_in, check_reader
from silo_app.imaging.content import read_bytes
from silo_app.imaging.deidentify.export import deidentified, encoded
from silo_app.imaging.deidentify.names import Names
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

    The audit log has how many, before this returns. Files that exist are replaced: names follow from the content.
    """
    settings = home.config.imaging
    check_reader(settings)
    names = Names(SiloKey.load_or_create(home.key))
    private_folder(out)
    done = Released()
    for file in files:
        try:
            content = read_bytes(file)
            named = "" if settings.burned_in == "off" else check_burned_in(dataset_of(content), ocr=settings.ocr)
            if named and settings.burned_in == "refuse":
                raise refusal(RefusalReason.BURNED_IN, named)
            ds = deidentified(content, names)
            name = f"{text(ds, 'SOPInstanceUID') or names.uid(file.name)}.dcm"
            write_bytes(out / name, encoded(ds))
        except ImageUnsupported as error:
            done.refused.append((str(file), error.reason, error.problem))
            continue
        done.burned_in += bool(named)
        done.written.append(name)
    audit = AuditLog(home.audit)
    audit.append("deid-export", {"files": len(done.written), "refused": len(done.refused)})
    audit.close()
    return done
