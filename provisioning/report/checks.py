"""What the demo puts to the test: each claim with its outcome; a claim that was not tested says so."""

from collections.abc import Mapping
from typing import Any

from provisioning.report.facts import Check, CheckOutcome, Learning, Missing, Retrieval
from provisioning.report.headlines import mean_alone
from provisioning.report.words import amount, fraction, size

__all__ = ["checks_of"]

Raw = Mapping[str, Any]


def checks_of(raw: Raw, learning: Learning | Missing, retrieval: Retrieval | Missing) -> tuple[Check, ...]:
    """Return the checks; `raw` is what the demo's steps returned, by step."""
    return (
        _nothing_at_the_server(raw.get("server")),
        _one_encoder(raw.get("training")),
        _everybody_answered(raw.get("search")),
        _learned_more(learning),
        _found_better(retrieval),
    )


def _nothing_at_the_server(server: Raw | None) -> Check:
    claim = "The server's files hold no plain weights, no silo's key, no embedding and no identifier"
    if server is None:
        return _check(claim)
    detail = f"{amount(server['files'])} files ({size(server['bytes'])}) searched for {amount(server['needles'])} secrets"
    leaks = "; ".join(server["leaks"][:5])
    return _check(claim, held=not leaks, detail=f"{detail}: {leaks}" if leaks else detail)


def _one_encoder(training: Raw | None) -> Check:
    claim = "All hospitals ended with the same encoder"
    if training is None:
        return _check(claim)
    versions = training["record"]["finish"]["encoder_versions"]
    return _check(claim, held=len(set(versions.values())) == 1, detail=f"{len(versions)} hospitals")


def _everybody_answered(search: Raw | None) -> Check:
    claim = "Every hospital answered the query"
    if search is None:
        return _check(claim)
    states = {silo["silo"]: silo["state"] for silo in search["result"]["silos"]}
    detail = ", ".join(f"{silo} {state}" for silo, state in states.items())
    return _check(claim, held=set(states.values()) == {"answered"}, detail=detail)


def _learned_more(learning: Learning | Missing) -> Check:
    claim = "The federated encoder is better than the mean of the hospitals alone"
    if isinstance(learning, Missing) or not learning.federated:
        return _check(claim)
    return _greater(claim, "AUC", learning.federated[-1].auc, mean_alone(learning))


def _found_better(retrieval: Retrieval | Missing) -> Check:
    claim = "The search finds better neighbours than every floor"
    if isinstance(retrieval, Missing):
        return _check(claim)
    floors = [bar.value for bar in retrieval.precision if bar.is_floor and bar.value is not None]
    return _greater(claim, "precision", retrieval.precision[0].value, max(floors, default=None))


def _greater(claim: str, what: str, ours: float | None, other: float | None) -> Check:
    held = None if ours is None or other is None else ours > other
    return _check(claim, held=held, detail=f"{what} {fraction(ours)} against {fraction(other)}")


def _check(claim: str, *, held: bool | None = None, detail: str = "the demo ended before this step") -> Check:
    if held is None:
        return Check(claim, CheckOutcome.NOT_RUN, detail)
    return Check(claim, CheckOutcome.PASSED if held else CheckOutcome.FAILED, detail)
