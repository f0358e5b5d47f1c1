"""The server's encrypted checkpoint: every closed round of a training on disk, so that who missed one can catch up.

A closed round is ciphertext, names and what the silos revealed to open it; the server can read none of it. The folder
outlives the server's process and the job: a resumed job goes on where its ledger ends.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from silo_app import durable
from silo_app.errors import ConfigInvalid, MessageInvalid, NotReady, RoundRefused

__all__ = ["ClosedRound", "Ledger"]

_DIGEST_BYTES = 16
_VOID = ".void"
_UNDO = ".undo"
_PLAN = "plan.json"
_JOBS = "jobs.json"
_JOB = re.compile(r"[0-9a-zA-Z-]{1,64}")
_KEYS = {"number", "job", "content", "contributors", "reveals", "bundles", "void", "undoes", "message"}
STATISTICS, UPDATE, NUMBERS = _CONTENTS = ("statistics", "update", "numbers")
KEEP_DAYS = 60
"""So long an unfinished training can be resumed."""


@dataclass(frozen=True, kw_only=True)
class ClosedRound:
    """Round `number` as every silo must close it: a sum to open, or nothing (`message` is None: the round was void)."""

    number: int
    job: str
    """The job under whose key the sum is; a resumed training has rounds of several."""
    content: str = UPDATE
    """What the sum is of: "update", "statistics" or "numbers"."""
    message: NDArray[np.uint8] | None = None
    """The encrypted sum, uint8 (bytes,)."""
    contributors: tuple[str, ...] = ()
    reveals: Mapping[str, bytes] = field(default_factory=dict)
    """What each silo that revealed has revealed, to take the masks off the sum."""
    bundles: Mapping[str, bytes] = field(default_factory=dict)
    """The participants' mask bundles, for a silo that was not among them."""
    undoes: int | None = None
    """With a void round: the last round with an update, whose sum is as if it had never been (too many silos reject it)."""

    @property
    def void(self) -> bool:
        """Whether the round ended without a sum."""
        return self.message is None

    def packed(self) -> NDArray[np.uint8]:
        """Return the round as one array, uint8 (n,), ended by its digest; for files and for the wire."""
        content = {
            "number": self.number,
            "job": self.job,
            "content": self.content,
            "contributors": list(self.contributors),
            "reveals": dict(self.reveals),
            "bundles": dict(self.bundles),
            "void": self.void,
            "undoes": self.undoes,
            "message": b"" if self.message is None else self.message.tobytes(),
        }
        body = msgpack.packb(content)
        return np.frombuffer(body + blake2b(body, digest_size=_DIGEST_BYTES).digest(), dtype=np.uint8)

    @classmethod
    def unpacked(cls, packed: NDArray[np.uint8] | bytes) -> "ClosedRound":
        """Undo `packed`. Raises `MessageInvalid` for anything else."""
        octets = bytes(packed)
        body, digest = octets[:-_DIGEST_BYTES], octets[-_DIGEST_BYTES:]
        try:
            whole = blake2b(body, digest_size=_DIGEST_BYTES).digest() == digest
            content = msgpack.unpackb(body, max_bin_len=len(body)) if whole else None
            if not isinstance(content, dict) or content.keys() != _KEYS:
                raise _damaged("")
            return cls(
                number=int(content["number"]),
                job=str(content["job"]),
                content=content["content"] if content["content"] in _CONTENTS else STATISTICS,
                message=None if content["void"] else np.frombuffer(content["message"], dtype=np.uint8),
                contributors=tuple(map(str, content["contributors"])),
                reveals={str(silo): bytes(reveal) for silo, reveal in content["reveals"].items()},
                bundles={str(silo): bytes(bundle) for silo, bundle in content["bundles"].items()},
                undoes=None if content["undoes"] is None else int(content["undoes"]),
            )
        except (ValueError, TypeError, AttributeError, RecursionError, msgpack.UnpackException):
            raise _damaged("") from None


class Ledger:
    """The closed rounds of one training, in `root`/<first job>; a resumed job writes on in the folder of the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def begin(cls, root: Path, job: str, plan: Mapping[str, Any]) -> "Ledger":
        """Begin the ledger of a new training, and drop those that nobody resumed for too long."""
        _require_id(job)
        _drop_old(durable.private_folder(root), keep_days=KEEP_DAYS)
        folder = durable.private_folder(root / job)
        durable.write_text(folder / _PLAN, json.dumps(dict(plan), indent=2))
        durable.write_text(folder / _JOBS, json.dumps([job]))
        return cls(folder)

    @classmethod
    def resume(cls, root: Path, old: str, job: str) -> "Ledger":
        """Open the ledger that the job `old` wrote, for the new `job`. Raises `NotReady` if there is none."""
        _require_id(old)
        for file in root.glob(f"*/{_JOBS}"):
            jobs = json.loads(file.read_text(encoding="utf-8"))
            if old in jobs:
                if job not in jobs:
                    durable.write_text(file, json.dumps([*jobs, job]))
                return cls(file.parent)
        raise NotReady(
            f"the server has no closed rounds of job {old}: it finished, was given up, or ran at another server",
            where="resume",
            remedy="See `silo job list`; without --resume the job starts anew.",
        )

    @property
    def plan(self) -> dict[str, Any]:
        """The plan with which the training began."""
        return dict(json.loads((self._folder / _PLAN).read_text(encoding="utf-8")))

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that worked on this training, oldest first."""
        return tuple(json.loads((self._folder / _JOBS).read_text(encoding="utf-8")))

    @property
    def next_round(self) -> int:
        """The first round that is not closed."""
        numbers = self._numbers()
        return numbers[-1] + 1 if numbers else 0

    def sums(self, content: str = UPDATE) -> int:
        """Return how many of the closed rounds have a sum of `content` that was not undone."""
        return len(self._with(content))

    def last(self, content: str) -> ClosedRound | None:
        """Return the last closed round that has a sum of `content`. Raises `MessageInvalid` if its file is damaged."""
        files = self._with(content)
        return ClosedRound.unpacked(files[-1].read_bytes()) if files else None

    @property
    def can_be_undone(self) -> int | None:
        """The last round with an update, unless it is undone: silos keep what they had before one sum, and no more."""
        updates, undoing = self._with(UPDATE), list(self._folder.glob(f"round-*{_UNDO}*"))
        last = max(map(_number, updates), default=-1)
        return last if last > max(map(_number, undoing), default=-1) else None

    def close(self, closed: ClosedRound) -> None:
        """Write down the next closed round, durably, before any silo hears of it. Raises `RoundRefused` out of order."""
        if closed.number != self.next_round:
            raise RoundRefused(
                f"round {closed.number} was closed, the ledger is at round {self.next_round}",
                remedy="This is a bug; report it. Nothing was written.",
            )
        durable.write_bytes(self._file(closed), closed.packed().tobytes())

    def void(self, number: int) -> None:
        """Take back the sum of a closed round, which no silo could open."""
        closed = self.read(number)
        without = ClosedRound(number=number, job=closed.job, content=closed.content)
        if not closed.void:
            durable.write_bytes(self._file(without), without.packed().tobytes())
            self._file(closed).unlink()

    def read(self, number: int) -> ClosedRound:
        """Return a closed round. Raises `MessageInvalid` if its file is missing or damaged."""
        for file in sorted(self._folder.glob(f"round-{number:06d}.*"), key=lambda file: file.suffix != _VOID):
            closed = ClosedRound.unpacked(file.read_bytes())
            if closed.number == number:
                return closed
        raise _damaged(f"round {number}")

    def since(self, number: int) -> Iterator[ClosedRound]:
        """Yield the closed rounds from `number` on, in order."""
        return (self.read(each) for each in range(max(number, 0), self.next_round))

    def remove(self) -> None:
        """Forget the training: it is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, closed: ClosedRound) -> Path:
        without = _VOID if closed.undoes is None else f"{_UNDO}{closed.undoes}"
        return self._folder / f"round-{closed.number:06d}{without if closed.void else f'.{closed.content}'}"

    def _with(self, content: str) -> list[Path]:
        """Return the files of the rounds with a sum of `content` that was not undone, in order."""
        undone = {int(file.suffix.removeprefix(_UNDO)) for file in self._folder.glob(f"round-*{_UNDO}*")}
        return [file for file in sorted(self._folder.glob(f"round-*.{content}")) if _number(file) not in undone]

    def _numbers(self) -> list[int]:
        return sorted(set(map(_number, self._folder.glob("round-*"))))


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("round-"))


def _require_id(job: str) -> None:
    if not _JOB.fullmatch(job):
        raise ConfigInvalid(f"{job[:80]!r} is no job's id", where="resume", remedy="See `silo job list`.")


def _drop_old(root: Path, *, keep_days: float) -> None:
    for folder in root.iterdir():
        newest = max((file.stat().st_mtime for file in folder.iterdir()), default=0.0) if folder.is_dir() else None
        if newest is not None and time.time() - newest > keep_days * 86_400:
            shutil.rmtree(folder, ignore_errors=True)


def _damaged(where: str) -> MessageInvalid:
    return MessageInvalid(
        "a closed round cannot be read", where=where, remedy="Nothing was used; train again without --resume."
    )
