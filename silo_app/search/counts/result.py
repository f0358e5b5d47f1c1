"""What a count over all silos says: the sum of what was told, and what it may be beside that."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from silo_app.cases import Finding
from silo_app.policy.counts import noise_within
from silo_app.search.counts.messages import CountAnswer
from silo_app.search.messages import SiloReport

__all__ = ["CountResult", "SiloCount", "Summed", "summed"]


class SiloCount(BaseModel):
    """One silo: how it was found, and what it told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    report: SiloReport
    told: CountAnswer | None = None


class Summed(BaseModel):
    """A number over the silos that tell it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: int
    """With none in every silo that told fewer than its minimum."""
    most: int
    """With as many there as they leave open."""
    noise: int
    """The noise of the numbers that were told is within this in 95 of 100 counts."""
    silos: int
    """How many silos tell it, with a number or as fewer than one."""
    few: tuple[str, ...] = ()
    """Silos that told fewer than their minimum."""


class CountResult(BaseModel):
    """What was asked, and what every silo said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_id: str
    encoder_version: str
    alike: float
    similarity: float
    silos: tuple[SiloCount, ...]
    took_us: int = 0

    @property
    def answers(self) -> list[CountAnswer]:
        """Those of the silos that answered."""
        return [silo.told for silo in self.silos if silo.told is not None]

    @property
    def patients(self) -> Summed:
        """All who are counted. A patient who was seen in two silos counts twice."""
        return summed((answer, answer.patients) for answer in self.answers)

    @property
    def findings(self) -> dict[Finding, Summed]:
        """Those with each finding, most first, as far as somebody tells it."""
        by_finding = {
            finding: summed((answer, answer.findings[finding]) for answer in self.answers if finding in answer.findings)
            for finding in Finding
        }
        known = [(finding, total) for finding, total in by_finding.items() if total.silos]
        return dict(sorted(known, key=lambda one: (-one[1].least, -one[1].most)))


def summed(told: Iterable[tuple[CountAnswer, int | None]]) -> Summed:
    """Add up what silos told of one number."""
    all_told: Sequence[tuple[CountAnswer, int | None]] = list(told)
    least = sum(number for _, number in all_told if number is not None)
    few = [answer for answer, number in all_told if number is None]
    return Summed(
        least=least,
        most=least + sum(answer.min_count - 1 for answer in few),
        noise=noise_within(answer.epsilon for answer, number in all_told if number is not None),
        silos=len(all_told),
        few=tuple(answer.silo for answer in few),
    )
