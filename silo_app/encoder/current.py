"""Which of a silo's encoders is in use: `models/current`. Apart from `checkpoint`, for processes that load none."""

from pathlib import Path

from silo_app import durable
from silo_app.cases import EncoderVersion
from silo_app.errors import NotReady

__all__ = ["current_version", "set_current"]

_CURRENT = "current"


def set_current(models: Path, version: EncoderVersion) -> None:
    """Make `version` the encoder that indexing and queries use."""
    durable.write_text(models / _CURRENT, version + "\n")


def current_version(models: Path) -> EncoderVersion:
    """Return the version in use. Raises `NotReady` if the silo has no encoder yet, or chose none."""
    try:
        return EncoderVersion((models / _CURRENT).read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        if any(models.glob("*/card.json")):
            raise NotReady(
                "none of this silo's encoders is in use",
                where=str(models),
                remedy="Choose one: `silo model list` has them, `silo model use VERSION` takes it into use.",
            ) from None
        raise NotReady(
            "this silo has no encoder yet",
            where=str(models),
            remedy="Take part in a training job (`silo job submit jobs/train`), or train one with `silo model train-local`.",
        ) from None
