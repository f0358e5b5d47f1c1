"""What the server writes down about a training job: who took part in which round, who did not and why, bytes and seconds.

The record has no sample count, no step count and no metric: the server never learns them.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from silo_app import durable
from silo_app.errors import SiloscopeError

__all__ = ["RECORD_MARK", "REJECTED", "UNOPENED", "JobRecord", "Quarantined", "RoundRecord", "void_in"]

RECORD_MARK = "record of a round: "
"""What a log line with an entry begins with."""
UNOPENED = "its sum is taken back, no silo can open it"
REJECTED = "its sum is taken back, too many silos reject it"
"""Why a round whose sum was closed is void after all; a log has the number of its exchange before it."""
_ABSENCES = {
    "late": "It did not answer before the deadline.",
    "gone": "Its job process was not there.",
    "silent": "It is connected, and its site or its job process said nothing for two minutes.",
    "behind": "It was catching up with rounds that it missed.",
}


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Why a silo's contribution is not in a round: a code and a public sentence, and in which step it happened."""

    code: str
    public: str
    step: str

    @classmethod
    def absence(cls, why: str, step: str) -> "Quarantined":
        """Return the entry of a silo that was "late", "gone", "silent" or "behind"."""
        return cls(code=why, public=_ABSENCES.get(why, "It did not answer."), step=step)

    @classmethod
    def of(cls, error: SiloscopeError, step: str) -> "Quarantined":
        """Return the entry of a silo of which the server itself found this out."""
        return cls(code=error.code, public=error.public, step=step)

    @classmethod
    def other_encoder(cls) -> "Quarantined":
        """Return the entry of a silo that ended with another encoder than the others."""
        return cls(code="other-encoder", public="It ended with another encoder than most silos.", step="finish")


@dataclass(kw_only=True)
class RoundRecord:
    """One round: which silos were asked, whose updates are in its sum, and what became of the others."""

    number: int
    """Of the masked rounds of the job, the statistics' included."""
    content: str
    """"statistics" or "update"."""
    round: int | None = None
    """Of the training, from 0; none for the statistics."""
    participants: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    quarantined: dict[str, Quarantined] = field(default_factory=dict)
    upload_bytes: dict[str, int] = field(default_factory=dict)
    download_bytes: int = 0
    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    """Seconds of each step: update, sign, reveal."""
    enough: set[str] = field(default_factory=set)
    """The silos that said, with their updates, that the losses no longer fall (the plan's `patience`)."""
    void: str = ""
    """Why the round ended without a sum; empty if it has one."""
    takes_back: int | None = None
    """The exchange before, if this round showed that no silo can open its sum."""
    undoes: int | None = None
    """The exchange with the last update, if too many silos rejected its sum in this round."""

    def quarantine(self, silos: Mapping[str, Quarantined]) -> None:
        """Name silos; what is known first about a silo stays."""
        self.quarantined = dict(silos) | self.quarantined

    def content_of(self) -> dict[str, Any]:
        """Return the entry as it is written."""
        return {
            "round": self.round,
            "exchange": self.number,
            "content": self.content,
            "outcome": "void" if self.void else "sum",
            "why": self.void,
            "enough": sorted(self.enough),
            "seconds": round(self.seconds, 3),
            "steps": {name: round(seconds, 3) for name, seconds in self.steps.items()},
            "participants": list(self.participants),
            "accepted": list(self.contributors),
            "quarantined": {silo: vars(why) for silo, why in sorted(self.quarantined.items())},
            "upload_bytes": self.upload_bytes,
            "download_bytes": self.download_bytes,
        }

    def as_line(self) -> str:
        """Return the entry as a log has it, for who follows the job before its record can be fetched."""
        return RECORD_MARK + json.dumps(self.content_of())

    def sentence(self) -> str:
        """Return what a log says about the round."""
        name = f"the {self.content}" if self.round is None else f"round {self.round + 1}"
        outcome = f"void: {self.void}" if self.void else f"sum of {', '.join(self.contributors)}"
        others = "; ".join(f"{silo}: {why.code} ({why.step})" for silo, why in sorted(self.quarantined.items()))
        return f"{name}: {outcome}" + (f"; without {others}" if others else "")


class JobRecord:
    """`rounds.json`, written anew whenever something happened."""

    def __init__(self, file: Path, job: str, plan: Mapping[str, Any], earlier: Iterable[str] = ()) -> None:
        self._file = file
        self.content: dict[str, Any] = {
            "job": job,
            "resumes": list(earlier),
            "plan": dict(plan),
            "state": "running",
            "rounds": [],
            "statistics": [],
        }

    def step(self, name: str, accepted: Collection[str], quarantined: Mapping[str, Quarantined], **more: Any) -> None:
        """Write down a step of the whole job: join, agree, finish."""
        why = {silo: vars(one) for silo, one in sorted(quarantined.items())}
        self.content[name] = {"accepted": sorted(accepted), "quarantined": why, **more}
        self.write()

    def add(self, record: RoundRecord) -> None:
        """Write down a round, and of which other it showed that it has no sum."""
        self.content["statistics" if record.round is None else "rounds"].append(record.content_of())
        if record.takes_back is not None:
            self._void(record.takes_back, UNOPENED)
        if record.undoes is not None:
            self._void(record.undoes, REJECTED)
        self.write()

    def take_back(self, exchange: int, why: str = UNOPENED) -> None:
        """Write down that no silo can open the sum of an exchange, or that too many reject it."""
        self._void(exchange, why)
        self.write()

    def end(self, state: str, *, code: str = "", problem: str = "") -> None:
        """Write down how the job ended: "finished", "failed" or "aborted"."""
        self.content["state"] = state
        if code:
            self.content["failed"] = {"code": code, "problem": problem}
        self.write()

    def _void(self, exchange: int, why: str) -> None:
        for kind in ("rounds", "statistics"):
            void_in(self.content[kind], exchange, why)

    def write(self) -> None:
        """Write the record durably."""
        durable.write_text(self._file, json.dumps(self.content, indent=2))


def void_in(entries: Iterable[dict[str, Any]], exchange: int, why: str) -> None:
    """Note in the entry of an exchange that it is void after all; "accepted" still says whose updates are in its sum."""
    for one in entries:
        if one["exchange"] == exchange:
            one |= {"outcome": "void", "why": why}
