"""What all settings have in common: unknown keys are refused, and nothing changes after it was read."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Settings"]


class Settings(BaseModel):
    """A part of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)
