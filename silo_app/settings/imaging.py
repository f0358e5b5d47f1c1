"""`imaging` in `silo.yaml`: which pictures are taken."""

from typing import Any, Literal

from pydantic import field_validator

from silo_app.settings.base import Settings

__all__ = ["ImagingSettings"]


class ImagingSettings(Settings):
    """Which pictures are taken; docs/explanation-deidentification.md says what the gate sees and what it does not."""

    burned_in: Literal["refuse", "warn", "off"] = "refuse"
    """What becomes of a picture that seems to name its patient: refused, taken and counted, or not looked for."""
    ocr: bool = False
    """Whether every picture is read for text (Tesseract, about 1 s a file and core); otherwise its tags are asked only."""

    @field_validator("burned_in", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """Take `off`, which YAML reads as a truth value, for what was written."""
        return "off" if value is False else value
