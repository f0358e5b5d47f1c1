"""Zip files in a folder: listed without unpacking, and each member unpacked by itself within a bound."""

import errno
import hashlib
import secrets
import zipfile
from pathlib import Path

from silo_app.imaging.content import MAX_FILE_BYTES
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.sources.source import SourceFile

__all__ = ["extract", "is_zip", "zip_members"]

_STEP = 1 << 20
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
"""What is wrong with this machine, not with the file."""


def is_zip(path: Path) -> bool:
    """Return whether a file is called .zip; what it holds is seen when it is listed."""
    try:
        return path.suffix.lower() == ".zip" and path.is_file()
    except OSError:  # a link into a closed place
        return False


def zip_members(file: SourceFile) -> list[SourceFile]:
    """Return the members as `<zip>!/<member>`; the zip file itself, marked, if it cannot be listed."""
    try:
        with zipfile.ZipFile(file.path) as opened:
            members = [member for member in opened.infolist() if not member.filename.endswith("/")]
    except Exception:  # noqa: BLE001  (zipfile raises whatever a damaged directory makes of it)
        return [SourceFile(name=file.name, path=file.path, size=file.size, mtime_ns=file.mtime_ns, whole=False)]
    found = {
        member.filename: SourceFile(
            name=f"{file.name}!/{member.filename}",
            path=file.path,
            size=member.file_size,
            mtime_ns=_mark(member),
        )
        for member in members
    }
    return [found[name] for name in sorted(found)]


def extract(path: Path, member: str, spool: Path) -> Path:
    """Unpack one member into `spool`.

    Raises `ImageUnsupported` for one that is damaged, encrypted or too large, and `OSError` if there is no room.
    """
    target = spool / secrets.token_hex(16)
    try:
        _unpack(path, member, target)
    except BaseException:  # the spool has room for a few files, not for all that are damaged
        target.unlink(missing_ok=True)
        raise
    return target


def _unpack(path: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as opened, opened.open(member) as content, target.open("xb") as file:
            size = 0
            while block := content.read(_STEP):
                size += len(block)
                if size > MAX_FILE_BYTES:  # whatever its header says
                    break
                file.write(block)
    except RuntimeError:
        raise refusal(RefusalReason.UNREADABLE, "the member of the zip file is encrypted") from None
    except KeyError:
        raise refusal(RefusalReason.NOT_RETRIEVED, "the zip file changed while it was read") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):
        raise refusal(RefusalReason.TRUNCATED, "the member of the zip file is damaged") from None
    except OSError as error:
        if error.errno in _OURS:  # the member may be sound: it waits for the next ingest
            raise
        raise refusal(RefusalReason.TRUNCATED, f"the zip file cannot be unpacked ({type(error).__name__})") from None
    except Exception as error:  # noqa: BLE001  (decompressors raise their own: zlib.error, LZMAError)
        raise refusal(RefusalReason.TRUNCATED, f"the zip file cannot be unpacked ({type(error).__name__})") from None
    if size > MAX_FILE_BYTES:
        raise refusal(RefusalReason.TOO_LARGE, "a member of a zip file unpacks to more than 256 MiB")


def _mark(member: zipfile.ZipInfo) -> int:
    content = f"{member.CRC} {member.date_time} {member.compress_size}".encode()
    return int(hashlib.sha256(content).hexdigest()[:15], 16)
