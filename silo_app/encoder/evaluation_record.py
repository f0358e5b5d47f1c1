"""The record of an evaluation: written by the server, read with care; no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silo_app.encoder.evaluation_answer import NEIGHBOURS, SiloAnswer
from silo_app.encoder.evaluation_pool import pooled
from silo_app.encoder.metrics import SPECIFICITY
from silo_app.errors import MessageInvalid, NotReady, SiloscopeError

__all__ = ["RECORD_NAME", "EvaluationRecord", "read_record"]

RECORD_NAME = "evaluation.json"
SCHEMA_VERSION = 1
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """What the silos told, and which did not."""

    silos: Mapping[str, SiloAnswer]
    refused: Mapping[str, str]
    """Public sentences by silo."""
    missing: Mapping[str, str]
    """"late" or "gone" by silo."""

    def content(self) -> dict[str, Any]:
        """Return the record as it is written, with what the answers say together."""
        return {
            "schema_version": SCHEMA_VERSION,
            "k": NEIGHBOURS,
            "specificity": SPECIFICITY,
            "pooled": pooled(self.silos),
            "silos": {name: one.model_dump(mode="json") for name, one in sorted(self.silos.items())},
            "refused": dict(self.refused),
            "missing": dict(self.missing),
        }


def read_record(path: Path) -> EvaluationRecord:
    """Read a record, or find the one in a downloaded job's folder.

    Raises `NotReady` if there is none, `MessageInvalid` if it is not one of this version.
    """
    file = next(iter(sorted(path.rglob(RECORD_NAME))), path / RECORD_NAME) if path.is_dir() else path
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise _invalid(file, "it is too large")
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise NotReady(
            "there is no record of an evaluation",
            where=str(path),
            remedy="Name the folder that `silo job download JOB` printed.",
        ) from None
    except (ValueError, RecursionError):
        raise _invalid(file, "it is no JSON") from None
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise _invalid(file, "it is of another version")
        return EvaluationRecord(
            silos={str(name): SiloAnswer.checked(one) for name, one in content["silos"].items()},
            refused=_words(content["refused"]),
            missing=_words(content["missing"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _invalid(file, f"{type(error).__name__}: {error}") from None
    except SiloscopeError as error:
        raise _invalid(file, error.problem) from None


def _words(content: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(why) for name, why in content.items()}


def _invalid(file: Path, why: str) -> MessageInvalid:
    return MessageInvalid(
        f"this is no record of an evaluation: {why}",
        where=str(file),
        remedy="Download the job again, with the same version.",
    )
