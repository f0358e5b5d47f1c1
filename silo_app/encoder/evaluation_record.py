"""The record of an evaluation: written by the server, read with care; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silo_app.downloaded import read_downloaded
from silo_app.encoder.evaluation_answer import NEIGHBOURS, SiloAnswer
from silo_app.encoder.evaluation_pool import pooled
from silo_app.encoder.metrics import SPECIFICITY

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
    """"late", "gone" or "silent" by silo."""

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
    """Read a record, or find the one in a downloaded job's folder. Raises as `read_downloaded` does."""
    return read_downloaded(path, RECORD_NAME, what="an evaluation", largest=_MAX_BYTES, read=_record)


def _record(content: Any) -> EvaluationRecord:
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError("it is of another version")
    return EvaluationRecord(
        silos={str(name): SiloAnswer.checked(one) for name, one in content["silos"].items()},
        refused=_words(content["refused"]),
        missing=_words(content["missing"]),
    )


def _words(content: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(why) for name, why in content.items()}
