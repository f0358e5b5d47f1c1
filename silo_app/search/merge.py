"""From the silos' answers to one ranking: exact, because each silo's top k is and scores mean the same everywhere."""

from collections.abc import Iterable

from silo_app.search.messages import ResultHit, SiloAnswer

__all__ = ["merge"]


def merge(answers: Iterable[SiloAnswer], k: int) -> tuple[ResultHit, ...]:
    """Return the best `k` hits of all answers: by score downwards, then by silo and case id, so that ties are settled.

    The answers must share one encoder version; one that comes twice counts once.
    """
    best: dict[tuple[str, str], ResultHit] = {}
    versions = set()
    for answer in answers:
        versions.add(answer.encoder_version)
        for hit in answer.hits:
            found = ResultHit(silo=answer.silo, case=hit.case, score=hit.score, card=hit.card)
            known = best.get((found.silo, found.case))
            if known is None or _order(found) < _order(known):
                best[found.silo, found.case] = found
    if len(versions) > 1:
        raise ValueError(f"answers of {len(versions)} encoder versions cannot be merged: their scores differ in meaning")
    return tuple(sorted(best.values(), key=_order)[:k])


def _order(hit: ResultHit) -> tuple[float, str, str]:
    return (-hit.score, hit.silo, hit.case)
