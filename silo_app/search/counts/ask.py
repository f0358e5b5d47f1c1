"""Ask every silo how many patients have cases like this one, each by itself, and verify what it says."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from silo_app.cases import Embedding, EncoderVersion
from silo_app.config import SiloHome
from silo_app.errors import MessageInvalid
from silo_app.policy.filters import Filters
from silo_app.search.ask import Asker
from silo_app.search.counts.messages import CountAnswer, CountRequest, told_words
from silo_app.search.counts.result import CountResult, SiloCount
from silo_app.search.messages import unit_embedding
from silo_app.search.own_encoder import own_encoder
from silo_app.search.own_records import asks_with, begun
from silo_app.search.relayed import ask_silo, known_silos

__all__ = ["DEFAULT_ALIKE", "DEFAULT_COUNT_BUDGET_MS", "count_embedding", "count_file"]

DEFAULT_COUNT_BUDGET_MS = 5000
"""A silo compares all of its views, and reads the cards of those that are alike."""
DEFAULT_ALIKE = 95.0
_ALL = Filters()


def count_embedding(
    asker: Asker,
    vector: Embedding,
    *,
    encoder_version: EncoderVersion,
    alike: float = DEFAULT_ALIKE,
    similarity: float = -1.0,
    filters: Filters = _ALL,
    by_finding: bool = False,
    purpose: str = "care",
    user: str = "",
    budget_ms: int = DEFAULT_COUNT_BUDGET_MS,
) -> CountResult:
    """Count in all silos the patients with cases that are alike to an embedding, float32 (D,).

    They are more alike than `alike` percent of the silo's random pairs of different patients, and at least so similar.
    Raises `NotReady`, `BrokerUnreachable`, `MessageInvalid`; a silo that refuses, fails or talks nonsense is named.
    """
    start = time.monotonic()
    request = CountRequest(
        issued_at_ms=int(time.time() * 1000),
        budget_ms=budget_ms,
        encoder_version=encoder_version,
        vector=unit_embedding(vector),
        alike=alike,
        similarity=similarity,
        filters=filters,
        by_finding=by_finding,
        purpose=purpose,
        asker=asker.identity.name,
        user=user,
    )
    asking = asks_with(request, mode="count") | {
        "alike": request.alike,
        "similarity": request.similarity,
        "filters": sorted(request.filters.fields),
    }
    with begun(asker.audit, [asking]):
        parts = _parts(asker, request)
    result = CountResult(
        query_id=request.query_id,
        encoder_version=encoder_version,
        alike=request.alike,
        similarity=request.similarity,
        silos=parts,
        took_us=int((time.monotonic() - start) * 1e6),
    )
    told = [f"{answer.silo}:{word}" for answer in result.answers for word in told_words(answer)]
    states = [f"{silo.report.silo}:{silo.report.state.value}" for silo in parts]
    asker.audit.append("asked", {**asking, "silos": states, "told": told})
    return result


def count_file(home: SiloHome, path: Path, *, budget_ms: int | None = None, **asked: object) -> CountResult:
    """Embed a DICOM file with the encoder of the silo's index and count; `asked` as in `count_embedding`.

    Raises `ImageUnsupported`, and as `count_embedding` does.
    """
    encoder = own_encoder(home)
    return count_embedding(
        Asker.of(home),
        encoder.file(path),
        encoder_version=encoder.version,
        budget_ms=budget_ms or DEFAULT_COUNT_BUDGET_MS,
        **asked,  # type: ignore[arg-type]  # checked by the message
    )


def _parts(asker: Asker, request: CountRequest) -> tuple[SiloCount, ...]:
    """Ask every silo."""
    silos = known_silos(asker, request.budget_ms)
    with ThreadPoolExecutor(max(1, len(silos)), thread_name_prefix="count") as pool:
        return tuple(pool.map(lambda silo: _part(asker, silo, request), silos))


def _part(asker: Asker, silo: str, request: CountRequest) -> SiloCount:
    """Ask one silo."""
    report, answer = ask_silo(asker, silo, request, CountAnswer, partial(_require_fits, silo, request))
    if answer is None:
        return SiloCount(report=report)
    told = {"indexed": answer.indexed, "generation": answer.generation, "encoder_version": answer.encoder_version}
    return SiloCount(report=report.model_copy(update=told), told=answer)


def _require_fits(silo: str, request: CountRequest, answer: CountAnswer) -> None:
    """Raise `MessageInvalid` for an answer in another's name, to another question, or of what was not asked."""
    asked = (silo, request.query_id, request.encoder_version)
    if (answer.silo, answer.query_id, answer.encoder_version) != asked or (answer.findings and not request.by_finding):
        raise MessageInvalid("it answers another question", where=silo, remedy="Nothing of it was used.")
