"""What a training job asks of every silo: numbers only, validated where they arrive.

The researcher writes the plan in the job's server configuration; the server passes it on; every silo validates it again,
because the server is not trusted with more than relaying.
"""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from silo_app.encoder.checked_plan import checked_plan
from silo_app.encoder.own import WHOLE_NETWORKS, Personal
from silo_app.encoder.sampling import Weighable
from silo_app.encoder.settings import AveragingPlan, PrivacyPlan, TrainSettings
from silo_app.encoder.spec import EncoderSpec

__all__ = ["TrainingPlan"]


_SUREST = 0.01
"""Of a loss, as a share of ln 2: a silo without any error still counts."""
_SILENT = 0.1
"""What a silo of whose images no finding is learned is taken to have, as such a share: about what the others come to have
in a job. Whole, it would outweigh them, and what it teaches by itself moves the threshold that they share."""


class TrainingPlan(BaseModel):
    """The settings of one training job; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=8, ge=1, le=10_000)
    min_silos: int = Field(default=2, ge=2, le=1000)
    round_deadline_s: float = Field(default=3600.0, gt=0, le=7 * 86_400)
    """A round that lasts longer ends with the silos that have answered."""
    max_void_rounds: int = Field(default=3, ge=1, le=100)
    """The job fails after so many rounds in a row without a sum: fewer than `min_silos` answered, or signed who did."""
    resume: str | None = Field(default=None, max_length=64)
    """The job whose last closed round this job goes on from; every other setting is then that job's."""
    admit: tuple[str, ...] = ()
    """With `resume`: silos that were in none of the job's rounds and may enter it now; a member gives them its keys."""
    straggler_wait_s: float = Field(default=1800.0, ge=0, le=86_400)
    """How much longer the others get once `min_silos` have answered: hospitals differ in size and hardware.

    A silo whose site is gone is not waited for.
    """
    sample: float = Field(default=1.0, gt=0, le=1)
    """The share of the silos that is asked for each round, drawn by the seed; never fewer than the round needs."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    encryption: Literal["bfv", "none"] = "bfv"
    field_bits: Literal[10, 12, 16, 25] = 16
    encoder: EncoderSpec = EncoderSpec()
    start: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    """The encoder version to start from, which every silo must hold; null for weights drawn from the seed."""
    training: TrainSettings = TrainSettings()
    personal: Personal = "none"
    """What every silo has for itself: nothing, its findings head, or a whole network beside the shared one, trained with
    it all along ("ditto") or from it in the last rounds ("tuned")."""
    pull: float = Field(default=0.1, ge=0, le=100.0)
    """Ditto's lambda: how strongly a silo's own network is held near the shared one."""
    tuning: float = Field(default=0.25, gt=0, le=1)
    """With `personal` "tuned": the share of the rounds, the last ones, in which a silo also trains its own copy."""
    weigh: Literal["images", "labels"] = "images"
    """What a silo's update weighs: its training images (FedAvg), or as many as tell findings apart (`sampling.Weighable`);
    views that are learned from by themselves count `training.self_supervised` each then. A private job goes by images."""
    fairness: float = Field(default=0.0, ge=0, le=10)
    """q of q-FFL (Li et al., "Fair resource allocation in federated learning", ICLR 2020): silos whose findings are still
    hard to tell count more (`counted`). 0 leaves every silo its weight."""
    scaffold: bool = False
    """Correct the drift of unlike silos (SCAFFOLD: Karimireddy et al., ICML 2020); an update is twice as large."""
    averaging: AveragingPlan = AveragingPlan()
    """What every silo does with the mean update once it is decrypted."""
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those with the smallest pooled held-out loss (`selection`)."""
    patience: int | None = Field(default=None, ge=1, le=10_000)
    """With `select` "best": end when so many rounds in a row were no better."""
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """What of NVFlare's receivers the server gives the pooled losses to, where all silos agree to share them."""
    privacy: PrivacyPlan | None = None
    """Differential privacy for whole patients; none unless the job asks for it."""

    @model_validator(mode="after")
    def _patients_stand_alone(self) -> Self:
        together = [name for name in ("contrast", "prototypes") if self.privacy and getattr(self.training, name)]
        if together:
            raise ValueError(
                f"with privacy, training.{' and training.'.join(together)} must be 0: it compares patients with each other, "
                "and then nobody can say what one of them gave"
            )
        return self

    @model_validator(mode="after")
    def _enters_what_is_there(self) -> Self:
        if self.admit and self.resume is None:
            raise ValueError("admit needs resume: a job that begins takes every silo that is there")
        return self

    @model_validator(mode="after")
    def _losses_are_there(self) -> Self:
        if self.patience is not None and self.select != "best":
            raise ValueError('patience needs select "best"')
        if self.select == "best" and self.privacy is not None:
            raise ValueError('a private job sums no held-out loss: select "last"')
        if self.select == "best" and self.sample < 1:
            raise ValueError('with select "best", sample must be 1: losses of other hospitals each round cannot be compared')
        if self.select == "best" and self.personal == "head":
            raise ValueError('with personal "head", select must be "last": a silo keeps the head of the last weights only')
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.privacy and self.fairness:
            raise ValueError("with privacy, fairness must be 0: how hard a silo's findings are is not paid for")
        if self.privacy and self.training.squares == "kept":
            raise ValueError('with privacy, training.squares must be "fresh": a private round\'s optimizer begins anew')
        if self.privacy and self.training.precision not in ("auto", "float32"):
            raise ValueError('with privacy, training.precision must be "float32" or "auto", which is float32 there')
        if self.privacy and self.scaffold:
            raise ValueError("with privacy, scaffold must be false: the control variates are not accounted for")
        if self.privacy and self.personal in WHOLE_NETWORKS:
            raise ValueError(
                f'with privacy, personal must not be "{self.personal}": the silo\'s own network would be trained without'
            )
        if self.privacy and self.training.round_seconds:
            raise ValueError(
                "with privacy, training.round_seconds must be null: the steps of a round are paid for before it"
            )
        if self.personal == "head" and self.training.prototypes:
            raise ValueError('with personal "head", training.prototypes must be 0: the findings\' rows are not shared')
        if self.personal == "head" and self.encoder.looks == "removed":
            raise ValueError('with personal "head", encoder.looks must be "kept": no shared head tells findings from looks')
        return self

    @property
    def tuned_rounds(self) -> int:
        """In how many of the last rounds a silo also trains a copy of its own; 0 without."""
        return max(1, round(self.tuning * self.rounds)) if self.personal == "tuned" else 0

    def left_to_tune(self, trained: int) -> range:
        """Return which of the copies' rounds, from 0, did not come in a job that ended after `trained` sums."""
        before = self.rounds - self.tuned_rounds
        return range(max(0, trained - before), self.tuned_rounds) if trained < self.rounds else range(0)

    def weight(self, images: int, found: Weighable) -> int:
        """Return what a silo with so many training images weighs; in a private job their number: no label was paid for."""
        if self.weigh == "images" or self.privacy is not None:
            return images
        return found.weight(self.training.self_supervised)

    def counted(self, unsure: float | None) -> float:
        """Return the share of a silo's weight for which its update counts, in (0, 1].

        `unsure` is its round's findings loss (`RoundOutcome.unsure`): as large as that of a coin's toss, ln 2, or larger,
        it counts whole. A silo that learns no finding (None) counts as one that can tell them well.
        """
        share = _SILENT if unsure is None else min(1.0, max(unsure / math.log(2), _SUREST))
        return math.pow(share, self.fairness)

    @classmethod
    def checked(cls, content: Any, *where: str) -> "TrainingPlan":
        """Return the plan in `content`. Raises `ConfigInvalid` as `checked_plan` does."""
        return checked_plan(cls, content, *where)
