"""What a private job costs this silo: worked out before it joins, and paid round by round before training begins."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from silo_app.config import SiloHome
from silo_app.encoder.private import planned_steps
from silo_app.encoder.settings import PrivacyPlan, TrainSettings
from silo_app.privacy.accountant import louder, noise_for
from silo_app.privacy.ledger import PrivacyLedger

__all__ = ["Charging"]


class Charging:
    """The price of one training's rounds in a silo with so many patients.

    A round that is trained again (it was void, or the job was resumed) is paid for again. The rounds after it then have
    more noise, so that the training stays within the epsilon that its plan names, and finds it in a budget of just that.
    """

    def __init__(
        self,
        home: SiloHome,
        privacy: PrivacyPlan,
        settings: TrainSettings,
        *,
        rounds: int,
        patients: int,
        jobs: Collection[str] = (),
    ) -> None:
        """Find the noise with which `rounds` rounds spend what the plan allows. Raises `ConfigInvalid`.

        `jobs` are those of the training: this one, and those that it resumes.
        """
        self._home, self._patients, self._rounds, self._jobs = home, patients, rounds, frozenset(jobs)
        self.privacy = privacy
        planned = planned_steps(settings, patients, privacy.noise or 0.0)
        noise = privacy.noise or noise_for(privacy.epsilon or 0.0, privacy.delta, planned.rate, planned.steps * rounds)
        self.planned = planned_steps(settings, patients, noise)
        self._again = 0
        """How many rounds were trained again, and have been made up for."""

    def require(self, rounds: int) -> None:
        """Raise `PrivacyRefused` unless the silo's budget allows so many rounds more."""
        budget = self._home.config.training.privacy
        with PrivacyLedger(self._home.privacy) as ledger:
            self._make_up(rounds, ledger, self._jobs)
            ledger.require(self.planned, rounds=rounds, allowed=budget.epsilon_total, delta=budget.delta)

    def pay(self, job: str, number: int) -> None:
        """Pay for a round, from 0, whose steps are `planned` then; only then may it be trained. Raises `PrivacyRefused`."""
        budget = self._home.config.training.privacy
        with PrivacyLedger(self._home.privacy) as ledger:
            self._make_up(self._rounds - number, ledger, self._jobs | {job})
            ledger.charge(
                job, number, self.planned, patients=self._patients, allowed=budget.epsilon_total, delta=budget.delta
            )

    def _make_up(self, left: int, ledger: PrivacyLedger, jobs: Collection[str]) -> None:
        """Plan more noise for the rounds that are left if `jobs` have paid for more than those before them."""
        paid = [one.spent for one in ledger.charges() if one.job in jobs]
        again = len(paid) - (self._rounds - left)
        if self.privacy.epsilon is None or left < 1 or again <= self._again:
            return
        rest = replace(self.planned, steps=self.planned.steps * left)
        noise = louder(rest, paid, self.privacy.epsilon, self.privacy.delta).noise
        self.planned, self._again = replace(self.planned, noise=noise), again

    def spent(self, jobs: Sequence[str]) -> dict[str, Any]:
        """Return what some jobs have spent of the silo's privacy, for the encoder's model card."""
        with PrivacyLedger(self._home.privacy) as ledger:
            epsilon = ledger.spent(self.privacy.delta, jobs)
        return {
            "unit": "patient",
            "epsilon": round(epsilon, 4),
            "delta": self.privacy.delta,
            "noise": self.planned.noise,
            "clip_norm": self.privacy.clip_norm,
        }
