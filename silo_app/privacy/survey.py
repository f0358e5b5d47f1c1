"""What a silo tells a survey: counts with noise, small ones left out, repeated until the silo's policy draws anew.

A release is drawn once and repeated: asking a thousand times gives the same numbers, so noise cannot be averaged away.
When it is renewed depends on the calendar and on the silo's owner, never on the data. What a renewal adds to the privacy
loss is on disk before anything leaves.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from silo_app.audit.log import AuditLog
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome, SurveySettings
from silo_app.durable import PRIVATE, private_folder, write_text
from silo_app.errors import NotReady, ReleaseRefused
from silo_app.privacy.noise import discrete_laplace
from silo_app.privacy.questions import TABLES, exact_counts

__all__ = ["Drawn", "Released", "drawn_before", "release", "renew"]

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Counts as they were drawn, before small ones are left out; they stay in the silo."""

    at: datetime
    epsilon: float | None
    spent: float
    """Privacy loss of this and all earlier releases."""
    counts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What leaves the silo."""

    counts: Mapping[str, Sequence[int]]
    """By table, in units of `Table.parts`; 0 where there are fewer than `min_count`."""
    min_count: int
    epsilon: float | None
    spent: float
    day: str
    """When it was drawn."""


def release(home: SiloHome, *, job: str) -> Released:
    """Return what this silo tells a survey now, once it is in the audit log.

    Raises `ReleaseRefused` if the silo's policy says no or there are too few patients, `NotReady` without a catalogue.
    """
    settings = home.config.survey
    if not settings.join:
        raise ReleaseRefused("this silo answers no survey", remedy="Its owner decides: `survey.join` in local/silo.yaml.")
    with _only_one(home):
        drawn = _current(home, drawn_before(home), settings)
    released = _without_small(drawn, settings)
    audit = AuditLog(home.audit)
    try:
        if not released.counts["patients"][0]:
            audit.append("survey-refusal", {"job": job, "code": ReleaseRefused.code})
            raise ReleaseRefused(
                f"this silo has fewer than {settings.min_count} patients, or so few that noise may have made them that few",
                remedy="Ingest more, or decide on another `survey.min_count` in local/silo.yaml.",
            )
        audit.append("survey", {"job": job, "epsilon": drawn.epsilon, "spent": drawn.spent, "drawn": released.day})
    finally:
        audit.close()
    return released


def _current(home: SiloHome, before: Drawn | None, settings: SurveySettings) -> Drawn:
    """Return the release that is repeated, or a new one where there is none, it is old, or it tells more than allowed."""
    if before is None:
        return _draw(home, None)
    too_open = settings.epsilon is not None and (before.epsilon is None or before.epsilon > settings.epsilon)
    if not _affordable(before, settings):
        if too_open:
            raise ReleaseRefused(
                "what was told before says more than the policy allows now, and no budget is left for a new release",
                remedy="Raise `survey.epsilon_total` in local/silo.yaml if the silo's owner accepts the greater loss.",
            )
        return before
    return _draw(home, before) if too_open or _is_old(before, settings) else before


def renew(home: SiloHome) -> Drawn:
    """Draw a new release now, because the silo's owner says so. Raises `ReleaseRefused` if the budget does not allow it."""
    with _only_one(home):
        before = drawn_before(home)
        if before is not None and not _affordable(before, home.config.survey):
            raise ReleaseRefused(
                f"a new release would spend more than the {home.config.survey.epsilon_total:g} that are allowed "
                f"({before.spent:g} are spent)",
                remedy="Raise `survey.epsilon_total` in local/silo.yaml if the silo's owner accepts the greater loss.",
            )
        return _draw(home, before)


def drawn_before(home: SiloHome) -> Drawn | None:
    """Return the release that is repeated now, or None. Raises `NotReady` if its file is damaged."""
    try:
        content: Any = json.loads(home.survey.read_text(encoding="utf-8"))
        counts = {table.name: [int(count) for count in content["counts"][table.name]] for table in TABLES}
        if any(len(counts[table.name]) != len(table.labels) for table in TABLES):
            raise ValueError("a table has another length")  # noqa: TRY301  (as any other damage)
        epsilon = None if content["epsilon"] is None else float(content["epsilon"])
        at = datetime.fromisoformat(content["at"]).astimezone(UTC)
        return Drawn(at=at, epsilon=epsilon, spent=float(content["spent"]), counts=counts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise NotReady(
            "the record of what was told to surveys is damaged, so that what has been spent is not known",
            where=str(home.survey),
            remedy="Restore it from a backup; to begin anew, move it away: earlier releases then count for nothing.",
        ) from None


def _draw(home: SiloHome, before: Drawn | None) -> Drawn:
    """Count, add noise, and write down what that spends, before anybody is told."""
    settings = home.config.survey
    with Catalogue.open(home.catalogue) as catalogue:
        exact = exact_counts(catalogue)
    spent = (before.spent if before else 0.0) + (settings.epsilon or 0.0)
    counts = exact if settings.epsilon is None else noisy(exact, settings.epsilon)
    drawn = Drawn(at=datetime.now(UTC), epsilon=settings.epsilon, spent=spent, counts=counts)
    record = {"schema": _SCHEMA, "at": drawn.at.isoformat(), "epsilon": drawn.epsilon, "spent": spent, "counts": counts}
    write_text(home.survey, json.dumps(record))
    return drawn


def noisy(exact: Mapping[str, Sequence[int]], epsilon: float) -> dict[str, list[int]]:
    """Return counts with noise; epsilon is divided evenly among the tables. Nothing is below zero."""
    share = Fraction(epsilon).limit_denominator(10**6) / len(TABLES)
    return {
        table.name: [max(0, count + discrete_laplace(table.parts / share)) for count in exact[table.name]]
        for table in TABLES
    }


def _without_small(drawn: Drawn, settings: SurveySettings) -> Released:
    least = settings.min_count
    enough = drawn.counts["patients"][0] >= least
    exact = drawn.epsilon is None
    counts = {
        table.name: _cells(drawn.counts[table.name], least, exact=exact)
        if table.parts == 1
        else _divided(drawn.counts[table.name], drawn.counts["patients"][0], table.parts, least, exact=exact)
        for table in TABLES
    }
    if not enough:
        counts = {name: [0] * len(cells) for name, cells in counts.items()}
    day = drawn.at.date().isoformat()
    return Released(counts=counts, min_count=least, epsilon=drawn.epsilon, spent=drawn.spent, day=day)


def _cells(counts: Sequence[int], least: int, *, exact: bool) -> list[int]:
    """Return a table without its small counts.

    Exact counts add up to the number of patients, so a single small one could be computed from the others: more cells are
    left out, the smallest first, until those left out are together none or not small. Counts with noise do not add up.
    """
    left_out = {place for place, count in enumerate(counts) if count < least}
    if exact:
        for place in sorted(set(range(len(counts))) - left_out, key=lambda each: counts[each]):
            hidden = sum(counts[each] for each in left_out)
            if hidden == 0 or hidden >= least:
                break
            left_out.add(place)
    return [0 if place in left_out else count for place, count in enumerate(counts)]


def _divided(counts: Sequence[int], patients: int, parts: int, least: int, *, exact: bool) -> list[int]:
    """Return a table in which every patient is divided over the cells; nothing where few patients are in it, or few not.

    No cell is of few patients, but exact counts add up to the parts of those in it, and so tell how many are not.
    """
    measured = sum(counts) // parts
    few = exact and (measured < least or 0 < patients - measured < least)
    return [0] * len(counts) if few else list(counts)


def _is_old(drawn: Drawn, settings: SurveySettings) -> bool:
    return datetime.now(UTC) - drawn.at >= timedelta(days=settings.renew_days)


def _affordable(drawn: Drawn, settings: SurveySettings) -> bool:
    return settings.epsilon is None or drawn.spent + settings.epsilon <= settings.epsilon_total


@contextmanager
def _only_one(home: SiloHome) -> Iterator[None]:
    """Hold the lock of the record: two surveys at once draw one release."""
    private_folder(home.root)
    descriptor = os.open(home.root / "survey.lock", os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
