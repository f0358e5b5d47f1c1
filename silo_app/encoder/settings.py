"""How a silo trains within one round: the numbers a researcher may choose."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TrainSettings"]


class TrainSettings(BaseModel):
    """Optimisation settings of one job; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=1.0, gt=0, le=100)
    """Passes over the silo's training images in one round."""
    max_steps: int | None = Field(default=None, ge=1, le=100_000)
    """A bound on the steps of one round, whatever the silo's size."""
    batch_size: int = Field(default=32, ge=2, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1.0)
    """AdamW's, at the first round; it falls along a cosine to a twentieth in the last."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1.0)
    clip_norm: float = Field(default=1.0, gt=0, le=1000.0)
    contrast: float = Field(default=0.1, ge=0, le=10.0)
    """Weight of the supervised contrastive loss (Khosla et al., NeurIPS 2020) beside the findings loss."""
    temperature: float = Field(default=0.1, gt=0, le=10.0)
