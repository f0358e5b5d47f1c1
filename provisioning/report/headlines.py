"""The few figures at the top of the report, each with what it is compared to; what is missing is left out, not guessed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from provisioning.report.facts import CurvePoint, DemoFacts, Learning, Missing, Retrieval, Search, Traffic
from provisioning.report.words import amount, duration, size

__all__ = ["Headline", "headlines", "mean_alone"]


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure, what it is, and what it stands against."""

    figure: str
    label: str
    against: str


def headlines(facts: DemoFacts) -> tuple[Headline, ...]:
    """Return the figures that the facts hold."""
    return tuple(_all(facts))


def mean_alone(learning: Learning) -> float | None:
    """Return the mean over silos of the AUC that each reaches alone at the end, or None if any is not known."""
    ends = [_end(points) if not isinstance(points, Missing) else None for points in learning.alone.values()]
    known = [end for end in ends if end is not None]
    return sum(known) / len(known) if known and len(known) == len(ends) else None


def _all(facts: DemoFacts) -> Iterator[Headline]:
    patients, views = sum(silo.patients for silo in facts.silos), sum(silo.views for silo in facts.silos)
    yield Headline(str(len(facts.silos)), "hospitals", f"{amount(patients)} patients, {amount(views)} X-rays")
    if not isinstance(facts.learning, Missing):
        yield from _of_learning(facts.learning)
    if not isinstance(facts.traffic, Missing):
        yield from _of_traffic(facts.traffic)
    if not isinstance(facts.retrieval, Missing):
        yield from _of_retrieval(facts.retrieval)
    if not isinstance(facts.searches, Missing):
        yield from _of_searches(facts.searches)
    if facts.run.seconds:
        cores = facts.run.machine.cores
        where = f"{cores} core{'s' if cores != 1 else ''}"
        yield Headline(_total(sum(facts.run.seconds.values())), "for the whole demo", f"on {where}")


def _total(seconds: float) -> str:
    return duration(seconds) if seconds < 60 else f"{seconds / 60:.1f} min"


def _of_learning(learning: Learning) -> Iterator[Headline]:
    end, alone = _end(learning.federated), mean_alone(learning)
    if end is not None:
        against = f"{alone:.3f} is the mean of the hospitals alone" if alone is not None else ""
        yield Headline(f"{end:.3f}", f"AUC together ({learning.measure})", against)


def _of_traffic(traffic: Traffic) -> Iterator[Headline]:
    sizes = [s.upload_bytes for each in traffic.rounds[-1:] for s in each.silos.values() if s.upload_bytes]
    if sizes:
        against = f"{size(traffic.plain_bytes)} as plain float32" if traffic.plain_bytes else ""
        kind = "encrypted" if traffic.encryption != "none" else "UNENCRYPTED"
        yield Headline(size(max(sizes)), f"{kind} update of a hospital, last round", against)


def _of_retrieval(retrieval: Retrieval) -> Iterator[Headline]:
    ours = [bar.value for bar in retrieval.precision if not bar.is_floor and bar.value is not None]
    floors = [bar for bar in retrieval.precision if bar.is_floor and bar.value is not None]
    if ours:
        best = max(floors, key=lambda bar: bar.value or 0.0, default=None)
        against = f"{best.value:.2f} by {best.name}, the best floor" if best else ""
        yield Headline(f"{ours[0]:.2f}", f"precision of the first {retrieval.k} hits", against)


def _of_searches(searches: Sequence[Search]) -> Iterator[Headline]:
    times = [search.milliseconds for search in searches if search.milliseconds is not None]
    if times:
        answered = sum(state.state == "answered" for state in searches[0].silos)
        yield Headline(f"{times[0]:.0f} ms", "for a search", f"{answered} of {len(searches[0].silos)} hospitals answered")


def _end(points: Iterable[CurvePoint]) -> float | None:
    last = max(points, key=lambda point: point.round, default=None)
    return None if last is None else last.auc
