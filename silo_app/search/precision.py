"""Precision of the search that hospitals really get: held-out views are asked through the running federation.

Unlike `encoder.evaluate`, nothing is computed on pooled embeddings here: every query goes through gateway, broker, the
silos' index processes and their release policies, and hits are judged by the findings on their released cards.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from silo_app.cases import EncoderVersion, Finding, Split
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.encoder import checkpoint
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.embed import embed
from silo_app.encoder.retrieval import balanced_precision, classes_of
from silo_app.errors import BrokerUnreachable, NotReady
from silo_app.search.ask import Asker, search_embedding
from silo_app.search.messages import ResultHit, SearchResult
from silo_app.search.own_encoder import asking_version, own_encoder

__all__ = ["FederatedPrecision", "federated_precision"]

Progress = Callable[[int, int], None]
_PURPOSE = "research"
_USER = "silo evaluate"


@dataclass(frozen=True)
class FederatedPrecision:
    """Balanced precision among the first `k` hits of all hospitals, and how the asking went."""

    queries: int
    k: int
    precision: float | None
    precision_by_class: Mapping[str, float]
    own_silo_share: float | None
    """The share of hits that come from the asking hospital."""
    states: Mapping[str, Mapping[str, int]]
    """By silo: how often it answered, was late, denied, and so on."""
    broker_ms_p50: float | None
    broker_ms_p95: float | None


def federated_precision(
    homes: Sequence[SiloHome],
    version: EncoderVersion | None = None,
    *,
    k: int = 10,
    queries_per_silo: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> FederatedPrecision:
    """Ask the federation with held-out views of each silo in `homes`, leaving out the query's own patient.

    Raises `NotReady` (no encoder, no held-out view, no gateway) and `BrokerUnreachable`.
    """
    chosen = [(home, _chosen(home, version, queries_per_silo, seed)) for home in homes]
    total = sum(len(images) for _, images in chosen)
    if not total:
        raise NotReady("no labelled view of these silos is held out", remedy="Set held_out_share and ingest again.")
    asked: list[tuple[str, frozenset[str], SearchResult]] = []
    for home, images in chosen:
        for outcome in _ask(home, version, images, k):
            asked.append(outcome)
            if progress is not None:
                progress(len(asked), total)
    return _figures(asked, k)


def _chosen(home: SiloHome, version: EncoderVersion | None, limit: int, seed: int) -> Images:
    spec = checkpoint.load(home.models, version or asking_version(home)).spec
    images = load(home, spec, split=Split.HELD_OUT)
    rows = np.flatnonzero(images.known.any(axis=1))
    if len(rows) > limit:
        rows = np.random.default_rng(seed).choice(rows, limit, replace=False)
    keep = np.zeros(len(images), np.bool_)
    keep[rows] = True
    return images.where(keep)


def _ask(
    home: SiloHome, version: EncoderVersion | None, images: Images, k: int
) -> list[tuple[str, frozenset[str], SearchResult]]:
    if not len(images):
        return []
    encoder = own_encoder(home, version)
    vectors, _ = embed(encoder.model, images.pixels)
    if encoder.look is not None:
        vectors = encoder.look.removed(vectors)
    names, classes = classes_of([str(f) for f in encoder.spec.findings], images.targets, images.known)
    asker = Asker.of(home)
    outcomes = []
    with Catalogue.open(home.catalogue) as catalogue:
        for view, vector, has in zip(images.views, vectors, classes, strict=True):
            result = search_embedding(
                asker,
                vector,
                encoder_version=encoder.version,
                k=k,
                purpose=_PURPOSE,
                user=_USER,
                exclude=catalogue.patient_cases(view.patient),
            )
            if result.unheard:
                raise BrokerUnreachable(
                    result.unheard, remedy="A figure of this hospital alone would mislead: measure again."
                )
            outcomes.append((home.config.name, frozenset(np.array(names)[has].tolist()), result))
    return outcomes


def _figures(asked: Sequence[tuple[str, frozenset[str], SearchResult]], k: int) -> FederatedPrecision:
    precision, by_class = balanced_precision(
        [has for _, has, _ in asked], [[_classes(hit) for hit in result.hits] for _, _, result in asked], k
    )
    states: dict[str, Counter[str]] = {}
    for _, _, result in asked:
        for report in result.silos:
            states.setdefault(report.silo, Counter())[report.state.value] += 1
    own = [hit.silo == silo for silo, _, result in asked for hit in result.hits]
    times = np.array([result.took_us for _, _, result in asked]) / 1000
    return FederatedPrecision(
        queries=len(asked),
        k=k,
        precision=precision,
        precision_by_class=by_class,
        own_silo_share=float(np.mean(own)) if own else None,
        states={silo: dict(counts) for silo, counts in sorted(states.items())},
        broker_ms_p50=round(float(np.quantile(times, 0.5)), 2) if len(times) else None,
        broker_ms_p95=round(float(np.quantile(times, 0.95)), 2) if len(times) else None,
    )


def _classes(hit: ResultHit) -> frozenset[str]:
    """Return what the released card says: its findings, "No Finding" if all that is known is absent, nothing if unknown."""
    findings = hit.card.findings
    present = frozenset(str(f) for f, is_present in findings.items() if is_present and f is not Finding.NO_FINDING)
    return present or (frozenset({str(Finding.NO_FINDING)}) if findings else frozenset())
