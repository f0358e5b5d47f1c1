"""The process that decodes: one file in, one line out, so that a decoder that hangs or crashes costs one file.

It reads requests and writes replies as JSON lines, no pickle, on its own copy of stdout: decoders written in C print.
"""

import json
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from silo_app.errors import ImageUnsupported
from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["READY", "UNEXPECTED", "Request", "decode", "main"]

READY = "ready"
"""The first line of a worker that has started."""

UNEXPECTED = "reading it failed in a way that was not foreseen"
"""The detail of an error that nothing in this package raises on purpose; the fuzzer looks for it."""

START_SECONDS = 300
MEMORY_BYTES = 4 << 30
"""Address space of a worker: ten times what the largest accepted radiograph takes, and no more than a bomb may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One file to decode."""

    path: str
    cache: str
    """The cache's folder."""
    content_key: str = field(repr=False)
    """What names the file's bytes (`ContentKey.hex`)."""
    seconds: int
    """How long it may take; then the process ends."""
    known: str = ""
    """The digest that the file had; if it still has it, it is not decoded again."""
    label_keyword: str = ""
    separator: str = "|"
    burned_in: str = "off"
    """What becomes of a picture that seems to name its patient (`config.ImagingSettings`)."""
    ocr: bool = False


def decode(request: Request) -> dict[str, Any]:
    """Read one file, put its radiograph into the cache, and return what the catalogue needs, as plain values."""
    from pathlib import Path

    from silo_app.catalogue import ContentKey
    from silo_app.imaging.brightness import brightness_of
    from silo_app.imaging.burned_in import check_burned_in
    from silo_app.imaging.cache import RadiographCache
    from silo_app.imaging.content import read_bytes
    from silo_app.imaging.header import header_of
    from silo_app.imaging.parse import dataset_of
    from silo_app.imaging.radiograph import radiograph_of

    cache = RadiographCache(Path(request.cache))
    try:
        content = read_bytes(Path(request.path))
        digest = ContentKey.of_hex(request.content_key).name(content)
        if digest == request.known and digest in cache:
            return {"digest": digest}
        ds = dataset_of(content, also=(request.label_keyword,) if request.label_keyword else ())
        radiograph = radiograph_of(ds)
        named = check_burned_in(ds, ocr=request.ocr) if request.burned_in != "off" else ""
        _require_unnamed(named if request.burned_in == "refuse" else "")
        header = header_of(ds, content, label_keyword=request.label_keyword, separator=request.separator)
    except ImageUnsupported as error:
        return {"reason": error.reason, "detail": error.problem}
    except MemoryError:
        return {
            "reason": RefusalReason.TOO_LARGE.value,
            "detail": "decoding needs more memory than there is",
        }
    except Exception as error:  # noqa: BLE001  (one file more in the list of the refused, and not a run that ends)
        return {"reason": RefusalReason.DECODE_FAILED.value, "detail": f"{UNEXPECTED} ({type(error).__name__})"}
    try:
        stored = cache.write(digest, radiograph)
    except OSError as error:  # a full disk is no fault of the file
        return {"failed": error.strerror or type(error).__name__}
    height, width = radiograph.pixels.shape
    size = {"height": height, "width": width, "spacing_mm": radiograph.spacing_mm}
    size |= {"source_rows": int(ds.Rows), "source_columns": int(ds.Columns)}  # an image that was decoded has both
    size |= {"brightness": brightness_of(stored).hex()}
    return {
        "digest": digest,
        "header": asdict(header),
        "size": size,
        "burned_in": None if request.burned_in == "off" else bool(named),
    }


def _require_unnamed(named: str) -> None:
    if named:
        raise refusal(RefusalReason.BURNED_IN, named)


def main() -> None:
    """Serve requests from stdin until it closes; end by the kernel's hand when one takes too long."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a handler of Python's would wait for the C code that hangs
    signal.alarm(START_SECONDS)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels and identifiers
    sys.modules["requests"] = None  # type: ignore[assignment]  # pydicom would import it, to fetch files that we never ask for
    import silo_app.imaging.radiograph  # noqa: F401  (its import must not count as the first file's time)

    signal.alarm(0)  # one that is kept may wait longer for its first file
    print(READY, file=replies, flush=True)
    for line in sys.stdin:
        request = Request(**json.loads(line))
        signal.alarm(request.seconds)
        reply = decode(request)
        signal.alarm(0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
