"""A silo's answer to `jobs/evaluate`; no torch.

The trainer's child process finds out, the policy is checked again here, and the audit log comes before the answer.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from silo_app import durable
from silo_app.audit.log import AuditLog
from silo_app.config import EvaluationSettings, SiloHome
from silo_app.encoder.checked_plan import checked_plan
from silo_app.encoder.evaluation_answer import SiloAnswer
from silo_app.encoder.trainer import Trainer
from silo_app.errors import ReleaseRefused, SiloscopeError

__all__ = ["EvaluationPlan", "Telling"]


class EvaluationPlan(BaseModel):
    """What a job may choose; everything else of an evaluation is part of the program."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    """A version that the silos hold; null for the one that each uses."""
    floors: bool = True
    """Also an untrained encoder, raw pixels and image statistics."""
    deadline_s: float = Field(default=7200.0, gt=0, le=7 * 86_400)
    min_silos: int = Field(default=1, ge=1, le=1000)
    """The job fails when fewer silos answer."""

    @classmethod
    def checked(cls, content: object) -> "EvaluationPlan":
        """Return the plan in `content`. Raises `ConfigInvalid` naming every wrong setting at once."""
        return checked_plan(cls, content)


class Telling:
    """One silo's part in one evaluation; `folder` is private to the job."""

    def __init__(self, home: SiloHome, *, job: str, folder: Path, trainer: Trainer | None = None) -> None:
        self._home = home
        self._job = job
        threads = home.config.training.threads
        self._trainer = trainer or Trainer.start(home.kit, durable.private_folder(folder), threads=threads)

    def close(self) -> None:
        """End the trainer; an answer that is waited for fails."""
        self._trainer.close()

    def answer(self, plan: EvaluationPlan) -> SiloAnswer:
        """Return what this silo tells, once it is in the audit log.

        Raises `ReleaseRefused` if the silo's policy says no or too few patients are held out, `NotReady` without an encoder.
        """
        audit = AuditLog(self._home.audit)
        try:
            answer = self._allowed(plan)
            groups = [f"{one.by} {one.value}" for one in answer.groups]
            audit.append("evaluation", {"job": self._job, "encoder": answer.encoder, "groups": groups})
        except SiloscopeError as error:
            audit.append("evaluation-refusal", {"job": self._job, "code": error.code})
            raise
        finally:
            audit.close()
            self.close()
        return answer

    def _allowed(self, plan: EvaluationPlan) -> SiloAnswer:
        policy = self._home.config.evaluation
        if not policy.join:
            raise ReleaseRefused(
                "this silo takes part in no evaluation", remedy="Its owner decides: `evaluation.join` in local/silo.yaml."
            )
        found = self._trainer.request("examine", version=plan.encoder, floors=plan.floors)
        return require_allowed(SiloAnswer.checked(found), policy)


def require_allowed(answer: SiloAnswer, policy: EvaluationSettings) -> SiloAnswer:
    """Return the answer. Raises `ReleaseRefused` if it says more than the policy allows: a bug must not become a release."""
    if answer.min_patients < policy.min_patients or {one.by for one in answer.groups} - set(policy.groups):
        raise ReleaseRefused("the answer says more than `evaluation` allows", remedy="This is a bug: report it.")
    return answer
