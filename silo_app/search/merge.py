"""From the silos' answers to one ranking: exact, because each silo's top k is and scores mean the same everywhere."""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple, TypeVar

from silo_app.policy.levels import Level, share_beyond
from silo_app.search.messages import ReleasedHit, ResultHit, SiloAnswer

__all__ = ["Ranking", "first", "merge", "ranking"]

_T = TypeVar("_T")


class Ranking(NamedTuple):
    """What an asker sees."""

    hits: tuple[ResultHit, ...]
    """The best of all silos."""
    elsewhere: tuple[ResultHit, ...]
    """What comes behind these, best first, of other silos than the asker's: so many that of those there are as many."""


def merge(answers: Iterable[SiloAnswer], k: int) -> tuple[ResultHit, ...]:
    """Return the best `k` hits of all answers: by score downwards, then by silo and case id, so that ties are settled.

    The answers must share one encoder version; one that comes twice counts once.
    """
    return ranking(answers, k).hits


def ranking(answers: Iterable[SiloAnswer], k: int, own: str = "") -> Ranking:
    """Return the best `k` hits of all answers, as `merge` does, and behind them the best of other silos than `own`.

    Other silos keep back what may be of the query's own patient and `own`, which is the asker, does not, so that its own
    cases come first, and may be all.
    """
    best: dict[tuple[str, str], ReleasedHit] = {}
    levels: dict[str, tuple[Level, ...]] = {}
    versions = set()
    for answer in answers:
        versions.add(answer.encoder_version)
        levels.setdefault(answer.silo, answer.levels)
        for hit in answer.hits:
            known = best.setdefault((answer.silo, hit.case), hit)
            if hit.score > known.score:
                best[answer.silo, hit.case] = hit
    if len(versions) > 1:
        raise ValueError(f"answers of {len(versions)} encoder versions cannot be merged: their scores differ in meaning")
    ranked = sorted((-hit.score, *name) for name, hit in best.items())

    def results(found: Sequence[tuple[float, str, str]]) -> tuple[ResultHit, ...]:
        return tuple(_result(silo, best[silo, case], levels[silo]) for _, silo, case in found)

    return Ranking(*map(results, _divided(ranked, k, own, itemgetter(1))))


def first(ranked: Sequence[ResultHit], k: int, own: str) -> Ranking:
    """Return of hits that are ranked what `ranking` does of answers."""
    hits, elsewhere = _divided(ranked, k, own, attrgetter("silo"))
    return Ranking(tuple(hits), tuple(elsewhere))


def _divided(ranked: Sequence[_T], k: int, own: str, silo_of: Callable[[_T], str]) -> tuple[Sequence[_T], Sequence[_T]]:
    hits, behind = ranked[:k], ranked[k:]
    missing = sum(silo_of(hit) == own for hit in hits)
    return hits, [hit for hit in behind if silo_of(hit) != own][:missing]


def _result(silo: str, hit: ReleasedHit, levels: tuple[Level, ...]) -> ResultHit:
    beyond = share_beyond(levels, hit.score)
    return ResultHit(silo=silo, case=hit.case, score=hit.score, card=hit.card, beyond=beyond, thumbnail=hit.thumbnail)
