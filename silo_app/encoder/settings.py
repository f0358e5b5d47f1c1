"""How a silo trains within one round: the numbers a researcher may choose."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["AveragingPlan", "PrivacyPlan", "TrainSettings"]


class PrivacyPlan(BaseModel):
    """Patient-level differential privacy of one job, in every silo for itself; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: float | None = Field(default=None, gt=0, le=100)
    """What the whole job may spend in each silo; the noise follows from the silo's size."""
    noise: float | None = Field(default=None, ge=0.3, le=1000)
    """Or the noise itself, as a multiple of `clip_norm`; the epsilon follows."""
    delta: float = Field(default=1e-5, gt=0, lt=0.01)
    clip_norm: float = Field(default=1.0, gt=0, le=1000)
    """The largest norm of what one patient gives to a step."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epsilon is None) == (self.noise is None):
            raise ValueError("give either epsilon or noise")
        return self


class AveragingPlan(BaseModel):
    """How every silo steps after it has decrypted the mean update; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["mean", "momentum", "adam"] = "mean"
    """FedAvg, FedAvgM (Hsu, Qi and Brown, 2019) or FedAdam (Reddi et al., ICLR 2021)."""
    rate: float | None = Field(default=None, gt=0, le=10)
    """The length of a step; null for 1 with momentum, 0.01 with adam."""
    keep: float | None = Field(default=None, ge=0, lt=1)
    """How much of earlier updates stays; null for 0.5 with momentum, 0.9 with adam."""
    keep_squares: float = Field(default=0.99, ge=0, lt=1)
    """With adam: how much of earlier updates' squares stays."""
    floor: float = Field(default=1e-3, ge=1e-8, le=1)
    """With adam: Reddi's tau. Weights that move less than this in a round are not lifted to full steps."""

    @model_validator(mode="after")
    def _nothing_unused(self) -> Self:
        used = {"mean": {"method"}, "momentum": {"method", "rate", "keep"}}.get(self.method, set(type(self).model_fields))
        changed = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        if unused := sorted(changed - used):
            raise ValueError(f'method "{self.method}" does not use {", ".join(unused)}')
        return self

    @property
    def rate_used(self) -> float:
        """The rate, given or the method's own."""
        return self.rate if self.rate is not None else {"adam": 0.01}.get(self.method, 1.0)

    @property
    def keep_used(self) -> float:
        """What is kept, given or the method's own."""
        return self.keep if self.keep is not None else {"adam": 0.9, "momentum": 0.5}.get(self.method, 0.0)


class TrainSettings(BaseModel):
    """Optimisation settings of one job; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=1.0, gt=0, le=100)
    """Passes over the silo's training images in one round."""
    steps: int | None = Field(default=None, ge=1, le=100_000)
    """So many steps in one round instead, whatever the silo's size."""
    max_steps: int | None = Field(default=None, ge=1, le=100_000)
    """A bound on the steps of one round, however they are counted."""
    batch_size: int = Field(default=32, ge=2, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1.0)
    """AdamW's at its highest: it rises over the first `warmup` of the job and falls along a cosine to a twentieth."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """The share of the whole job's steps in which the learning rate rises."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1.0)
    squares: Literal["fresh", "kept"] = "fresh"
    """What a round's AdamW knows of the sizes of gradients: nothing, or what the silo's last round came to (`optimizer`)."""
    clip_norm: float = Field(default=1.0, gt=0, le=1000.0)
    smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Label smoothing (Szegedy et al., CVPR 2016): a finding is learned as this share of the way from certain to even."""
    contrast: float = Field(default=0.1, ge=0, le=10.0)
    """Weight of the supervised contrastive loss (Khosla et al., NeurIPS 2020) beside the loss of one finding; of views of
    which F findings are known, sqrt(F) times, as the findings' losses are summed."""
    temperature: float = Field(default=0.1, gt=0, le=10.0)
    self_supervised: float = Field(default=0.1, ge=0, le=10.0)
    """Weight of the contrast of two augmentations of one view (SimCLR: Chen et al., ICML 2020), of views of which no finding
    is known. A job with differential privacy does without: what is compared with others cannot be counted by patient."""
    prototypes: float = Field(default=0.0, ge=0, le=10.0)
    """Weight of the contrast against the findings' prototypes: the findings head's rows as the round began with them."""
    proximal: float = Field(default=0.0, ge=0, le=100.0)
    """FedProx's mu (Li et al., MLSys 2020): what holds a silo near the weights that the round began with."""
    photometry: Literal["mild", "strong"] = "mild"
    """How far augmentation changes grey levels, sharpness and borders; geometry stays the same."""
    movement: float = Field(default=1.0, ge=0, le=2)
    """How far augmentation turns, scales and shifts, as a multiple of 10 degrees, a tenth and a twentieth of the side."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the passes through the network; weights are always float32. "auto" takes what this silo's processor is quick at;
    "float16" is for graphics processors, and "auto" on a CPU."""
    round_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400)
    """After so long a silo stops training a round and gives what it has, with a weight for the share that it trained. A
    silo may set a shorter time itself (`training.round_seconds` in silo.yaml)."""

    def steps_for(self, images: int) -> int:
        """Return the steps of one round in a silo with so many training images; at least 1."""
        wanted = self.steps if self.steps is not None else max(1, round(self.epochs * images / self.batch_size))
        return min(wanted, self.max_steps or wanted)
