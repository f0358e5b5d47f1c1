"""From the silos' answers to one ranking: exact, because each silo's top k is and scores mean the same everywhere."""

import heapq
from collections.abc import Iterable

from silo_app.policy.levels import Level, share_beyond
from silo_app.search.messages import ReleasedHit, ResultHit, SiloAnswer

__all__ = ["merge"]


def merge(answers: Iterable[SiloAnswer], k: int) -> tuple[ResultHit, ...]:
    """Return the best `k` hits of all answers: by score downwards, then by silo and case id, so that ties are settled.

    The answers must share one encoder version; one that comes twice counts once.
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
    ranked = heapq.nsmallest(k, ((-hit.score, *name) for name, hit in best.items()))
    return tuple(_result(silo, best[silo, case], levels[silo]) for _, silo, case in ranked)


def _result(silo: str, hit: ReleasedHit, levels: tuple[Level, ...]) -> ResultHit:
    beyond = share_beyond(levels, hit.score)
    return ResultHit(silo=silo, case=hit.case, score=hit.score, card=hit.card, beyond=beyond, thumbnail=hit.thumbnail)
