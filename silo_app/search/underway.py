"""Requests on their way through an index process, with what becomes of each."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from silo_app.search.counts.messages import CountRequest
from silo_app.search.envelope import AnyQuestion, unbundled
from silo_app.search.messages import Bundle, Refusal, SearchRequest
from silo_app.search.records import Event, Reply, record, who_asks
from silo_app.search.sealed import SealedRequest
from silo_app.search.together import Together
from silo_app.search.watch import CANARY

__all__ = ["Case", "Opened", "in_turns", "take_out"]


@dataclass(eq=False)
class Case:
    """One request on its way through."""

    budget_s: float = 0.0
    """What the relay says is left; 0 where it says nothing."""
    request: AnyQuestion | None = None
    reply: Reply | None = None
    unread: SealedRequest | None = None
    """What can be read of a request, where that is all."""
    found: Together | None = None
    """What was found for all that came together."""
    kept_back: int = 0
    canaries: tuple[str, ...] = ()
    has_cost: bool = False
    """Whether it was counted towards its asker's budget."""

    @property
    def is_free(self) -> bool:
        """Whether it was refused at no cost to whoever asked, and nothing was found: there may be any number of these."""
        return isinstance(self.reply, Refusal) and not (self.has_cost or self.kept_back or self.canaries)

    @property
    def is_narrowed(self) -> bool:
        """Whether it asks for some cases only."""
        return isinstance(self.request, SearchRequest | CountRequest) and bool(self.request.filters)

    def left_s(self, start: float) -> float:
        """Return what is left of its budget."""
        given_s = self.request.budget_ms / 1000 if self.request else 0.0
        return min(given_s, self.budget_s or given_s) - (time.perf_counter() - start)

    def events(self, reply: Reply, took_us: int) -> list[Event]:
        """Return what the audit log says of the request and its reply; an alert comes with it, without a time of its own."""
        event, said = record(self.request, reply, took_us)
        if self.unread is not None:  # not "query": a question that was not read is not a question that was asked before
            said |= {"asker": self.unread.asker, "unread": self.unread.query_id}
        if self.kept_back:
            said["kept_back"] = self.kept_back
        if not self.canaries or self.request is None:
            return [(event, said)]
        return [(event, said), (CANARY, {**who_asks(self.request), "cases": list(self.canaries)})]


@dataclass(frozen=True)
class Opened:
    """A frame, and the requests in it: one, or those of a bundle."""

    frame: bytes
    cases: list[Case]
    bundled: bool = False


def take_out(bundle: Bundle, content: bytes, case: Case) -> None:
    """Read a request of a verified bundle into its case. Raises `MessageInvalid`, `SignatureInvalid`."""
    case.request = unbundled(bundle, content)


def in_turns(cases: Sequence[Case]) -> list[Case]:
    """Return them with one of each asker in turn: where there is time for some only, no asker has all of it."""
    of_askers: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        of_askers[case.request.asker if case.request else ""].append(case)
    return [case for case in chain.from_iterable(zip_longest(*of_askers.values())) if case is not None]
