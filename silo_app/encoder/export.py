"""An encoder as one signed file: weights, and where they come from, for whoever holds the federation's root certificate.

A zip without compression: `encoder.safetensors`, `provenance.json`, and `provenance.signed` (the same provenance with the
exporter's certificate and signature). The provenance holds the weights' digest. Exactly one zip is valid for given
members: it is packed again and compared, so that no byte of a file is unaccounted for.
"""

import datetime as dt
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from silo_app import durable
from silo_app.audit.log import AuditLog
from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome
from silo_app.encoder import checkpoint
from silo_app.encoder.preprocessing import PREPROCESSING
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import CheckpointInvalid, ConfigInvalid, SignatureInvalid
from silo_app.identity import PAYLOAD_LIMIT, Identity, Trust

__all__ = ["Audience", "Exported", "export", "keep", "verify"]

Audience = Literal["silo", "researcher"]
CONTEXT = b"siloscope/encoder-export/1"
FILE_LIMIT = 256 * 1024 * 1024
"""Bytes of the largest file that is read."""
_WEIGHTS, _PROVENANCE, _SIGNED = _MEMBERS = ("encoder.safetensors", "provenance.json", "provenance.signed")
_OF_CARD = (
    "kind",
    "job",
    "round",
    "rounds",
    "silos",
    "encryption",
    "field_bits",
    "min_silos",
    "threshold",
    "seed",
    "training",
    "privacy",
    "created",
)
"""What of a model card travels; None where the card does not say it."""


class Provenance(BaseModel):
    """What `provenance.json` must say; a field that only older or newer versions know is no reason to refuse."""

    model_config = ConfigDict(frozen=True, extra="allow")

    encoder_version: str
    weights_sha256: str
    spec: dict[str, Any]
    preprocessing: str
    exporter: str
    audience: Audience
    exported: str
    privacy_spent: str


@dataclass(frozen=True)
class Exported:
    """A verified export: spec, weights float32 (P,), and its provenance."""

    spec: EncoderSpec
    vector: NDArray[np.float32]
    provenance: Mapping[str, Any]


def export(home: SiloHome, version: EncoderVersion, out: Path, audience: Audience) -> dict[str, Any]:
    """Write a version as a new file `out`, after the audit log has it.

    Raises `ConfigInvalid` if the policy forbids it, or `out` exists or cannot be written.
    """
    if audience == "researcher" and home.config.release.encoder != "researchers":
        raise ConfigInvalid(
            "this silo's policy gives encoders to silos only",
            where="release.encoder",
            remedy="Set release.encoder: researchers in silo.yaml if the hospital agrees.",
        )
    if not out.parent.is_dir() or out.is_dir():
        raise ConfigInvalid("no file can be made there", where=str(out), remedy="Name a file in a folder that exists.")
    if out.exists():
        raise ConfigInvalid("the file exists", where=str(out), remedy="Name another file, or remove this one first.")
    identity = Identity.load(home.kit)
    kept = checkpoint.load(home.models, version)
    weights = save_tensors({"weights": kept.vector})
    provenance = _provenance(kept, weights, identity.name, audience)
    payload = json.dumps(provenance, indent=2).encode()
    content = _pack((weights, payload, identity.sign(payload, context=CONTEXT)))
    digest = hashlib.sha256(content).hexdigest()
    log = AuditLog(home.audit)
    log.append("encoder-exported", {"to": audience, "version": version, "file_sha256": digest})
    log.close()
    try:
        durable.write_bytes(out, content)
    except OSError as error:
        raise ConfigInvalid(
            f"it cannot be written: {error.strerror}", where=str(out), remedy="Make room, or name another file."
        ) from None
    return {"file": str(out), "file_sha256": digest, "provenance": provenance}


def verify(file: Path, trust: Trust) -> Exported:
    """Read an exported file. Raises `CheckpointInvalid`, `MessageInvalid` or `SignatureInvalid`; then nothing is used."""
    weights, payload, signed = _unpack(file)
    verified = trust.verify(signed, context=CONTEXT)
    if not verified.signer.is_silo:
        raise SignatureInvalid(
            f"{verified.name} is no silo", where=str(file), remedy="Nothing was used. Ask a silo for the encoder."
        )
    if verified.payload != payload:
        raise _invalid(file, "the provenance is not the signed one")
    provenance = _provenance_of(file, payload)
    if provenance["exporter"] != verified.name:
        raise _invalid(file, "the exporter is not who signed it")
    if provenance["weights_sha256"] != hashlib.sha256(weights).hexdigest():
        raise _invalid(file, "the weights are not those of the provenance")
    return _opened(file, weights, provenance)


def keep(home: SiloHome, exported: Exported) -> EncoderVersion:
    """Put a verified export among the silo's encoders, not as the current one, and return its version."""
    said = exported.provenance
    card = {name: said[name] for name in _OF_CARD if said.get(name) is not None}
    card["imported"] = {name: said[name] for name in ("exporter", "exported", "audience")}
    return checkpoint.save(home.models, exported.spec, exported.vector, card)


def _provenance(kept: checkpoint.Checkpoint, weights: bytes, exporter: str, audience: Audience) -> dict[str, Any]:
    return {
        "encoder_version": kept.version,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "spec": kept.spec.model_dump(mode="json"),
        "preprocessing": PREPROCESSING,
        **{name: kept.card.get(name) for name in _OF_CARD},
        "privacy_spent": _spent(kept.card.get("privacy")),
        "exporter": exporter,
        "audience": audience,
        "exported": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _spent(privacy: Mapping[str, Any] | None) -> str:
    """Return in words what the exporting silo spent; another silo's own card says what that one did."""
    if not privacy:
        return "none claimed"
    return f"epsilon {privacy['epsilon']:g} at delta {privacy['delta']:g} for each {privacy['unit']} of the exporter"


def _provenance_of(file: Path, payload: bytes) -> dict[str, Any]:
    try:
        return Provenance.model_validate_json(payload).model_dump()
    except ValidationError as error:
        names = sorted({".".join(map(str, one["loc"])) or "all of it" for one in error.errors()})
        raise _invalid(file, f"the provenance cannot be read: {', '.join(names)[:200]}") from None


def _opened(file: Path, weights: bytes, provenance: Mapping[str, Any]) -> Exported:
    try:
        spec = EncoderSpec.model_validate(provenance["spec"])
        vector = load_tensors(weights)["weights"]
    except (ValidationError, SafetensorError, KeyError):
        raise _invalid(file, "the weights or their spec cannot be read") from None
    if provenance["preprocessing"] != PREPROCESSING:
        raise _invalid(file, f"it was made for preprocessing {provenance['preprocessing']}")
    if vector.shape != (_values_of(spec),):
        raise _invalid(file, f"{vector.size} weights are not those of a {spec.backbone}")
    if vector.dtype != np.float32 or checkpoint.version_of(spec, vector) != provenance["encoder_version"]:
        raise _invalid(file, "the weights are not those of the encoder version")
    if not np.isfinite(vector).all():
        raise _invalid(file, "it has weights that are not finite numbers")
    return Exported(spec, vector, provenance)


def _values_of(spec: EncoderSpec) -> int:
    """Return how many weights an encoder has."""
    from silo_app.encoder.model import build, layout_of

    return sum(math.prod(shape) for _, shape in layout_of(build(spec, 0)))


def _pack(members: tuple[bytes, bytes, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(_MEMBERS, members, strict=True):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            archive.writestr(entry, content)
    return packed.getvalue()


def _unpack(file: Path) -> tuple[bytes, bytes, bytes]:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_LIMIT + 1)
    except OSError as error:
        raise _invalid(file, f"it cannot be read: {error.strerror}") from None
    if len(content) > FILE_LIMIT:
        raise _invalid(file, f"it has more than {FILE_LIMIT} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if tuple(entry.filename for entry in entries) != _MEMBERS:
                raise _invalid(file, f"it does not hold exactly {', '.join(_MEMBERS)}")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(content) for entry in entries):
                raise _invalid(file, "a member is compressed")
            if entries[1].file_size > PAYLOAD_LIMIT:
                raise _invalid(file, "the provenance is too large")
            weights, payload, signed = (archive.read(entry) for entry in entries)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError):
        raise _invalid(file, "it is no zip, or a damaged one") from None
    if _pack((weights, payload, signed)) != content:
        raise _invalid(file, "it holds bytes beside its members")
    return weights, payload, signed


def _invalid(file: Path, problem: str) -> CheckpointInvalid:
    return CheckpointInvalid(problem, where=str(file), remedy="Nothing was used. Ask the silo to export the encoder again.")
