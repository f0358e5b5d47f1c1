"""What all settings share: immutable, and an unknown key is an error."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Settings"]


class Settings(BaseModel):
    """A part of `silo.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
