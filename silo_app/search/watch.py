"""What a silo keeps an eye on while it answers: who asks how often, who asks about one patient, and who finds a canary."""

import hashlib
from contextlib import AbstractContextManager

from silo_app.config import SiloHome
from silo_app.policy.budget import DailyBudget, Share
from silo_app.policy.canaries import Canaries
from silo_app.policy.noise import load_secret
from silo_app.policy.refusal import RefusalCode
from silo_app.search.answer import Found
from silo_app.search.counts.messages import CountRequest
from silo_app.search.counts.service import cost_of
from silo_app.search.messages import SearchRequest
from silo_app.search.private.messages import CardsRequest, PrivateRequest

__all__ = ["CANARY", "Watch"]

CANARY = "canary"
"""The audit event of a planted case that somebody has found."""

Request = SearchRequest | PrivateRequest | CardsRequest | CountRequest


class Watch:
    """Budgets and canaries of one silo; called from many threads."""

    def __init__(self, home: SiloHome) -> None:
        self._silo = home.config.name
        self._settings = home.config.release
        self._budget = DailyBudget(home.budgets, outlives_power=False)
        self._canaries = Canaries(home.canaries)
        self.secret = load_secret(home.release_key)

    def asked(self, request: Request, now: float) -> RefusalCode | None:
        """Count a query towards its silo's and its user's budget; the second half of a private one is no query.

        A count has budgets of its own, in numbers.
        """
        if isinstance(request, CardsRequest):
            return None
        user = self._keyed(request.asker, request.user)
        if isinstance(request, CountRequest):
            settings, cost = self._settings.count, cost_of(self._settings, request)
            shares = [
                Share("numbers-silo", request.asker, settings.numbers_per_day, cost),
                Share("numbers-user", user, settings.user_numbers_per_day, cost),
            ]
        else:
            shares = [
                Share("silo", request.asker, self._settings.queries_per_day),
                Share("user", user, self._settings.user_queries_per_day),
            ]
        return RefusalCode.BUDGET if self._budget.spend_all(shares, now=now) else None

    def found(self, request: Request, found: Found, now: float) -> RefusalCode | None:
        """Count a query towards what one silo may ask around one case, the nearest that is not kept back.

        Not around its patient: a refusal would say which cases are of one patient. Not around who is kept back: it would say
        that somebody is, and of whom a filter holds.
        """
        if found.about is None or request.asker == self._silo:
            return None
        around = self._keyed(request.asker, found.about)
        share = Share("similar", around, self._settings.similar_queries_per_day)
        return RefusalCode.REPEATED if self._budget.spend_all([share], now=now) else None

    def planted(self, found: Found) -> tuple[str, ...]:
        """Return the canaries among what was found, whether they are shown or kept back."""
        return tuple(self._canaries.among(found.cases))

    def together(self) -> AbstractContextManager[None]:
        """Return a block in which all that this thread counts is counted at the end (`DailyBudget.together`)."""
        return self._budget.together()

    def close(self) -> None:
        """Close every file."""
        self._budget.close()

    def _keyed(self, *parts: str) -> str:
        """Return a name for the budget's file that says nothing without the silo's secret."""
        return hashlib.blake2b("\0".join(("budget", *parts)).encode(), key=self.secret, digest_size=16).hexdigest()
