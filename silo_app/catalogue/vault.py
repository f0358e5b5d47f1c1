"""What identifies a patient and must stay readable inside the silo: sealed at rest under keys made from the silo's.

The crosswalk from a case to its study (AES-256-GCM, bound to the case), and the names of files, which in many archives are
a patient's name or a UID (AES-SIV, RFC 5297: the same name gives the same token, so that a file is known again).
"""

import base64
import binascii
import json
import secrets
from dataclasses import asdict, dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from silo_app.cases import CaseId
from silo_app.catalogue.pseudonyms import SiloKey
from silo_app.errors import CatalogueDamaged

__all__ = ["StudyIdentity", "Vault"]

_PREFIX = "sealed:"
_NONCE_BYTES = 12
_NAME_BLOCK = 32
"""Names are padded to a multiple of this, so that a token does not tell a name's length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """By what the hospital's own archive finds the study of a case."""

    study_uid: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)


class Vault:
    """Seals and opens with keys made from one silo's key (HKDF, RFC 5869)."""

    def __init__(self, key: SiloKey) -> None:
        self._records = AESGCM(_derived(key, b"crosswalk", 32))
        self._names = AESSIV(_derived(key, b"file names", 64))
        self._key = key

    def seal(self, case: CaseId, identity: StudyIdentity) -> bytes:
        """Return a study's identity sealed; it opens for this case only."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        content = json.dumps(asdict(identity), separators=(",", ":")).encode()
        return nonce + self._records.encrypt(nonce, content, case.encode())

    def open(self, case: CaseId, sealed: bytes) -> StudyIdentity:
        """Return what was sealed. Raises `CatalogueDamaged` for another key, another case, or changed bytes."""
        try:
            content = self._records.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], case.encode())
            return StudyIdentity(**json.loads(content))
        except (InvalidTag, ValueError, TypeError):
            raise _wrong("the crosswalk") from None

    def name(self, name: str) -> str:
        """Return a file's name sealed: the same token each time."""
        content = name.encode()
        content += b"\0" * (-len(content) % _NAME_BLOCK or (0 if content else _NAME_BLOCK))
        return _PREFIX + base64.urlsafe_b64encode(self._names.encrypt(content, None)).decode()

    def clear(self, token: str) -> str:
        """Return the name that was sealed. Raises `CatalogueDamaged` for another key or changed bytes."""
        try:
            sealed = base64.urlsafe_b64decode(token.removeprefix(_PREFIX))
            return self._names.decrypt(sealed, None).rstrip(b"\0").decode()
        except (InvalidTag, ValueError, binascii.Error):
            raise _wrong("a file's name") from None

    def stamp(self, mtime_ns: int) -> int:
        """Return a number that tells whether a file's time has changed, and not what it is: often the day of the study."""
        return int(self._key.name("mtime", str(mtime_ns))[:15], 16)


def _derived(key: SiloKey, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"siloscope vault " + purpose).derive(key.secret)


def _wrong(what: str) -> CatalogueDamaged:
    return CatalogueDamaged(
        f"{what} does not open with this silo's key",
        remedy="Restore silo.key and catalogue.db of the same backup; if there is none, move the catalogue away, ingest, "
        "and take out again what was taken out (`case-recalled` in the audit log).",
    )
