"""Damage DICOM files at random and give them to the decoding worker: none may end it, hang it or get an unknown reason.

    python -m benchmarks.fuzz --seconds 600 --keep /tmp/found

Real worker processes take the files, as an ingest does, so that a crash of a decoder written in C is found like any
other. A file that ends its worker is kept, to be looked at; `--seed` gives the same damages again.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Target, main
from benchmarks.ingest import SYNTAXES, dicom, picture
from silo_app.catalogue import ContentKey
from silo_app.imaging.pool import LOST, decode_all
from silo_app.imaging.refusal import RefusalReason
from silo_app.imaging.worker import UNEXPECTED, Request

TARGETS = [Target("crashes and hangs", 0), Target("unforeseen errors", 0), Target("unknown reasons", 0)]
FAULTS = ("crash", "unforeseen")
BATCH = 512
SECONDS_PER_FILE = 20

EXTREMES = (b"\0", b"\xff", b"\x80", b"\x7f", b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80")
PIECES = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\x28\x00\x10\x00US\x02\x00\xff\xff",
    b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff",
    b"\x08\x00\x05\x00CS\x0e\x00ISO 2022 IR 87",
    b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff",
    b"SQ", b"UN", b"OB", b"DS", b"AT", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\x93",
)  # fmt: skip


def _flip(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] = chance.randrange(256)


def _flip_header(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(min(128, len(content) - 1), min(900, len(content)))] = chance.randrange(256)


def _overwrite(content: bytearray, chance: random.Random) -> None:
    piece = chance.choice(EXTREMES + PIECES)
    at = chance.randrange(len(content))
    content[at : at + len(piece)] = piece


def _insert(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at:at] = chance.choice(PIECES) * chance.choice((1, 1, 1, 50))


def _remove(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    del content[at : at + chance.choice((1, 2, 4, 8, 100))]


def _repeat(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at:at] = content[at : at + chance.choice((8, 64, 500))]


def _cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _flip_header, _flip_header, _overwrite, _overwrite, _insert, _remove, _repeat, _cut,
)  # fmt: skip


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """Return a sound file with one to eight damages."""
    content = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        if len(content) > 200:
            chance.choice(DAMAGES)(content, chance)
    return bytes(content)


def _outcome(reply: dict[str, Any]) -> str:
    if reply == LOST:
        return "crash"
    return "unforeseen" if reply.get("detail", "").startswith(UNEXPECTED) else str(reply.get("reason", "read"))


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Fuzz for the time that was asked for."""
    chance = random.Random(arguments.seed)
    seeds = [dicom(picture((40, 34), number), syntax, number) for number, syntax in enumerate(SYNTAXES.values())]
    outcomes: Counter[str] = Counter()
    executions, key = 0, ContentKey.fresh().hex
    end = time.monotonic() + (10 if arguments.quick else arguments.seconds)
    with tempfile.TemporaryDirectory(prefix="siloscope-fuzz-") as name:
        folder = Path(name)
        while time.monotonic() < end:
            files = [damaged(chance.choice(seeds), chance) for _ in range(BATCH)]
            paths = [folder / f"{number}.dcm" for number in range(BATCH)]
            for path, content in zip(paths, files, strict=True):
                path.write_bytes(content)
            cache = str(folder / "cache")
            requests = [Request(path=str(path), cache=cache, content_key=key, seconds=SECONDS_PER_FILE) for path in paths]
            for content, reply in zip(files, decode_all(requests, workers=1), strict=True):
                outcome = _outcome(reply)
                outcomes[outcome] += 1
                if outcome in FAULTS and arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{outcome}-{outcomes[outcome]}.dcm").write_bytes(content)
            executions += len(files)
    known = {*FAULTS, "read", *RefusalReason}
    return [
        Figure("executions", executions, "files"),
        Figure("crashes and hangs", outcomes["crash"], "files"),
        Figure("unforeseen errors", outcomes["unforeseen"], "files"),
        Figure("unknown reasons", sum(count for reason, count in outcomes.items() if reason not in known), "files"),
        *(Figure(f"outcome: {reason}", count, "files") for reason, count in outcomes.most_common()),
    ]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60; --quick: 10)")
    parser.add_argument("--seed", type=int, default=1, help="which damages (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where files go that ended their worker")


if __name__ == "__main__":
    sys.exit(main("fuzz", measure, TARGETS, describe=__doc__ or "", options=_options))
