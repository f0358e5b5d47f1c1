"""What a private job costs this silo: worked out before it joins, and paid round by round before training begins."""

from collections.abc import Sequence
from typing import Any

from silo_app.config import SiloHome
from silo_app.encoder.private import planned_steps
from silo_app.encoder.settings import PrivacyPlan, TrainSettings
from silo_app.privacy.accountant import noise_for
from silo_app.privacy.ledger import PrivacyLedger

__all__ = ["Charging"]


class Charging:
    """The price of one job's rounds in a silo with so many patients."""

    def __init__(self, home: SiloHome, privacy: PrivacyPlan, settings: TrainSettings, *, rounds: int, patients: int) -> None:
        """Find the noise with which `rounds` rounds spend what the plan allows. Raises `ConfigInvalid`."""
        self._home, self._patients = home, patients
        self.privacy = privacy
        planned = planned_steps(settings, patients, privacy.noise or 0.0)
        noise = privacy.noise or noise_for(privacy.epsilon or 0.0, privacy.delta, planned.rate, planned.steps * rounds)
        self.planned = planned_steps(settings, patients, noise)

    def require(self, rounds: int) -> None:
        """Raise `PrivacyRefused` unless the silo's budget allows so many rounds more."""
        budget = self._home.config.training.privacy
        with PrivacyLedger(self._home.privacy) as ledger:
            ledger.require(self.planned, rounds=rounds, allowed=budget.epsilon_total, delta=budget.delta)

    def pay(self, job: str, number: int) -> None:
        """Pay for a round; only then may it be trained. Raises `PrivacyRefused`."""
        budget = self._home.config.training.privacy
        with PrivacyLedger(self._home.privacy) as ledger:
            ledger.charge(
                job, number, self.planned, patients=self._patients, allowed=budget.epsilon_total, delta=budget.delta
            )

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
