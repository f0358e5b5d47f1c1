"""Keyed pseudonyms: the same identifier always gives the same name, and without the silo's key the name says nothing.

HMAC-SHA256 (RFC 2104) under a key that never leaves the silo. For use inside the silo only: what leaves it is a random
case id, since 45 CFR 164.514(c) bars codes that are derived from information about the patient.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from silo_app.cases import PatientKey, Split
from silo_app.catalogue.contents import ContentKey
from silo_app.durable import PRIVATE, sync_folder
from silo_app.errors import NotReady

__all__ = ["SiloKey"]

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SiloKey:
    """The silo's secret; never printed, never sent."""

    secret: bytes = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> "SiloKey":
        """Read the key, making a random one at first use. Raises `NotReady` for one that is damaged or not private."""
        if not path.exists():
            _create(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "SiloKey":
        """Read the key. Raises `NotReady` if there is none, or it is damaged or not private."""
        if not path.exists():
            raise NotReady("the silo has no key", where=str(path), remedy="Restore silo.key from a backup.")
        secret = path.read_bytes()
        if len(secret) != KEY_BYTES:
            raise NotReady(
                f"the silo's key has {len(secret)} bytes instead of {KEY_BYTES}",
                where=str(path),
                remedy="Restore it from a backup: without it, known patients and studies cannot be recognized.",
            )
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise NotReady("other accounts can read the silo's key", where=str(path), remedy=f"Run: chmod 600 {path}")
        return cls(secret)

    def name(self, kind: str, *parts: str) -> str:
        """Return the pseudonym of an identifier of one kind, 64 hex digits; "" if every part is empty."""
        if not any(parts):
            return ""
        # Each part with its length: ("ab", "c") and ("a", "bc") must not share a name.
        message = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in (kind, *parts))
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()

    def patient(self, patient_id: str, issuer: str) -> PatientKey:
        """Return the pseudonym of a patient; a Patient ID is unique only for its issuer (PS3.3 C.7.1.1)."""
        return PatientKey(self.name("patient", patient_id, issuer))

    def split(self, patient: PatientKey, held_out_share: float) -> Split:
        """Draw the patient's split: the same one for ever in this silo, and unrelated to any other's."""
        draw = int(self.name("split", patient)[:16], 16) / 2**64
        return Split.HELD_OUT if draw < held_out_share else Split.TRAIN

    @property
    def contents(self) -> ContentKey:
        """What names the files' bytes; it tells nothing of the silo's key, so that a decoder may have it."""
        return ContentKey(bytes.fromhex(self.name("key", "contents")))

    @property
    def check(self) -> str:
        """A value that tells whether a catalogue was made with this key, and nothing else."""
        return self.name("check", "catalogue")


def _create(path: Path) -> None:
    """Write a new key; if another process was first, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # fails where the key exists; a rename would replace it
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
