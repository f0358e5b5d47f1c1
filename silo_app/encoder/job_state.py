"""What a silo keeps of a training job that may be resumed: one private file, whole or refused, gone when the job is over.

    <silo home>/jobs/<job>/state          safetensors (weights, moments, session), its metadata, then SHA-256 over all of it
    <silo home>/jobs/<job>/state-before   the same from before the last sum of updates, which may be undone

The session's state holds the job's key, so the file is 0600 in a 0700 folder, and is removed at the job's true end, by
`silo job forget`, when a newer training finishes, and after `KEEP_DAYS`.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from silo_app import durable
from silo_app.encoder.averaging import Moments
from silo_app.encoder.own import Own
from silo_app.errors import CheckpointInvalid, JobUnknown, NotReady

__all__ = ["JobState", "before_sum", "forget", "forget_all", "kept", "named", "newest_of"]

KEEP_DAYS = 60
_NAME = "state"
_BEFORE = "state-before"
_DIGEST_BYTES = 32
_ABOUT = ("job", "trained", "plan", "before", "total", "selection", "next_round", "undone")
_SHORTEST = 8
"""Digits of an id that name a job, where only one begins so."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """Where a silo stands in a job, after a sum that it opened or an update that it sent."""

    job: str
    weights: NDArray[np.float32]
    """The global weights, float32 (P,)."""
    session: bytes
    """`SiloSession.export_state`."""
    trained: int
    """How many sums of updates are in the weights."""
    plan: dict[str, Any]
    before: dict[str, Any]
    """How the last accepted weights did on the silo's held-out patients."""
    moments: Moments = field(default_factory=Moments.none)
    """What the plan's averaging remembers; the next step rests on it."""
    own: Own = field(default_factory=Own)
    """What the silo has for itself."""
    total: int = 0
    """How many images all silos train on, as the statistics said."""
    selection: dict[str, Any] = field(default_factory=dict)
    """`Selection.content` of a job that keeps its best weights."""
    best: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    """The weights of its candidates (`Best.flat`); empty while there are none or the current ones are kept anyway."""

    next_round: int = 0
    """The exchange that is closed next."""
    undone: list[int] = field(default_factory=list)
    """The rounds of training whose sums were undone, from 0, as often as they were."""

    def write_before_sum(self, jobs: Path) -> None:
        """Keep the state beside the one that follows from a sum of updates: the sum may be undone."""
        self.write(jobs, _BEFORE)

    def write(self, jobs: Path, name: str = _NAME) -> None:
        """Keep the state durably in the folder of its job."""
        about = {name: getattr(self, name) for name in _ABOUT}
        tensors: dict[str, NDArray[Any]] = {
            "weights": self.weights,
            "first": self.moments.first,
            "second": self.moments.second,
            "best": self.best,
            "session": np.frombuffer(self.session, dtype=np.uint8),
            **self.own.tensors(),
        }
        content = save(tensors, metadata={"about": json.dumps(about)})
        folder = durable.private_folder(jobs / self.job)
        with durable.replacing(folder / name) as file:
            file.write(content)
            file.write(sha256(content).digest())

    @classmethod
    def read(cls, file: Path) -> "JobState":
        """Read a state. Raises `CheckpointInvalid` if anything of it is not as it was written."""
        try:
            octets = file.read_bytes()
            content, digest = octets[:-_DIGEST_BYTES], octets[-_DIGEST_BYTES:]
            if sha256(content).digest() != digest:
                raise _invalid(file)
            length = int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["about"])
            tensors = load(content)
            moments = Moments(tensors["first"], tensors["second"])
            weights, best, session = tensors["weights"], tensors["best"], tensors["session"].tobytes()
            return cls(weights=weights, best=best, session=session, moments=moments, own=Own.of(tensors), **about)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            raise _invalid(file) from None


def kept(jobs: Path) -> list[str]:
    """Return the jobs of which the silo keeps a state, oldest first."""
    files = sorted(jobs.glob(f"*/{_NAME}"), key=lambda file: file.stat().st_mtime)
    return [file.parent.name for file in files]


def named(jobs: Path, text: str) -> str:
    """Return the job in whose folder something is kept, by its id or the first 8 digits of it; else the name as given.

    Raises `JobUnknown` if more than one begins so.
    """
    text = Path(text).name
    found = [folder.name for folder in jobs.glob("*") if folder.name.startswith(text)] if len(text) >= _SHORTEST else []
    if len(found) > 1 and text not in found:
        raise JobUnknown(f"more than one job begins with {text}", where=str(jobs), remedy="Give more digits of its id.")
    return text if text in found or not found else found[0]


def newest_of(jobs: Path, names: Iterable[str]) -> JobState:
    """Return the state of the last of `names` (oldest first) that the silo took part in. Raises `NotReady`."""
    for name in reversed([name for name in names if name in kept(jobs)]):
        return JobState.read(jobs / name / _NAME)
    raise NotReady(
        "this silo keeps nothing of the job that is resumed: it took no part in it, or has forgotten it",
        remedy="It takes part again in the next job that is not a resumed one.",
    )


def before_sum(jobs: Path, names: Iterable[str], number: int) -> JobState:
    """Return the state from before the sum of exchange `number`, the last of updates. Raises `NotReady`.

    `names` are the jobs of the training, oldest first: the sum may have been opened in an earlier one.
    """
    for file in (jobs / name / _BEFORE for name in reversed(list(names))):
        if file.is_file() and (state := JobState.read(file)).next_round == number:
            return state
    raise NotReady(
        f"this silo does not keep what it had before exchange {number}, which is undone",
        remedy="It takes part again in the next job that is not a resumed one.",
    )


def forget(jobs: Path, job: str) -> bool:
    """Remove what is kept of a job; return whether there was anything."""
    if job not in kept(jobs):
        return False
    (jobs / job / _BEFORE).unlink(missing_ok=True)
    (jobs / job / _NAME).unlink()
    durable.sync_folder(jobs / job)
    return True


def forget_all(jobs: Path, *, older_than_days: float = 0.0) -> list[str]:
    """Remove what is kept of all jobs, or of those that did not go on for some days; return which."""
    now = time.time()
    old = [job for job in kept(jobs) if now - (jobs / job / _NAME).stat().st_mtime >= older_than_days * 86_400]
    return [job for job in old if forget(jobs, job)]


def _invalid(file: Path) -> CheckpointInvalid:
    return CheckpointInvalid(
        "what this silo kept of the job is damaged, or of another version of siloscope",
        where=str(file),
        remedy="The silo cannot take part in the resumed job. Remove it: silo job forget.",
    )
