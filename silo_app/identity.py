"""Who somebody is: signatures with the provisioned certificates, checked against the federation's root.

NVFlare's mTLS ends at the server, which relays; so what must hold between two silos is signed by one and verified by
the other. A signature is bound to a context, so that a signed query can never pass for a signed key.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from silo_app.errors import CertificateMissing, SignatureInvalid

__all__ = ["Identity", "Signed", "Trust", "unverified_payload"]

MAX_CERTIFICATE_BYTES = 8 * 1024
_REMEDY = "Unpack the startup kit again, or ask the consortium's operator for a new one (`consortium provision`)."
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


@dataclass(frozen=True)
class Signed:
    """A verified payload and the name in its signer's certificate."""

    name: str
    payload: bytes


@dataclass(frozen=True)
class Trust:
    """The federation's root certificate: whom it certified is a member, everybody else is nobody."""

    root: x509.Certificate

    @classmethod
    def load(cls, kit: Path) -> "Trust":
        """Read `startup/rootCA.pem`. Raises `CertificateMissing`."""
        return cls(_certificate(kit / "startup" / "rootCA.pem"))

    def verify(self, context: bytes, envelope: bytes) -> Signed:
        """Return who signed `envelope` in `context`, and what. Raises `SignatureInvalid`."""
        certificate_bytes, payload, signature = _opened(envelope)
        try:
            certificate = x509.load_der_x509_certificate(certificate_bytes)
        except ValueError:
            raise _invalid("the certificate cannot be read") from None
        self._require_member(certificate)
        try:
            _verify(certificate.public_key(), signature, context + payload)
        except InvalidSignature:
            raise _invalid("the signature does not fit") from None
        return Signed(_name(certificate), payload)

    def _require_member(self, certificate: x509.Certificate) -> None:
        try:
            certificate.verify_directly_issued_by(self.root)
        except (InvalidSignature, ValueError, TypeError):
            raise _invalid("the certificate is not of this federation") from None
        now = dt.datetime.now(dt.UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise _invalid(f"the certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d} only")


@dataclass(frozen=True)
class Identity:
    """A participant's own certificate and private key."""

    name: str
    trust: Trust
    _certificate: bytes
    _key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, kit: Path) -> "Identity":
        """Read the certificate and key of the startup kit. Raises `CertificateMissing` saying what is wrong with it."""
        startup = kit / "startup"
        stem = "server" if (startup / "server.crt").exists() else "client"
        certificate = _certificate(startup / f"{stem}.crt")
        key = _private_key(startup / f"{stem}.key")
        trust = Trust.load(kit)
        if _public_bytes(key.public_key()) != _public_bytes(certificate.public_key()):
            raise _missing(startup / f"{stem}.key", "the private key does not belong to the certificate")
        try:
            trust._require_member(certificate)  # noqa: SLF001  (one module, one secret)
        except SignatureInvalid as error:
            raise _missing(startup / f"{stem}.crt", error.problem) from None
        der = certificate.public_bytes(serialization.Encoding.DER)
        return cls(_name(certificate), trust, der, key)

    def sign(self, context: bytes, payload: bytes) -> bytes:
        """Return an envelope with `payload`, our certificate, and a signature that holds in `context` only."""
        message = context + payload
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(message, _PSS, hashes.SHA256())
        else:
            signature = self._key.sign(message, ec.ECDSA(hashes.SHA256()))
        return bytes(msgpack.packb([self._certificate, payload, signature]))


def unverified_payload(envelope: bytes) -> bytes:
    """Return what an envelope holds without asking who signed it, for a relay. Raises `SignatureInvalid`."""
    return _opened(envelope)[1]


def _opened(envelope: bytes) -> tuple[bytes, bytes, bytes]:
    try:
        parts: Any = msgpack.unpackb(envelope, max_array_len=3, max_map_len=0, max_ext_len=0)
    except Exception:  # noqa: BLE001  (msgpack raises many kinds on foreign bytes)
        raise _invalid("the envelope cannot be read") from None
    if not isinstance(parts, list) or len(parts) != 3 or not all(isinstance(part, bytes) for part in parts):
        raise _invalid("the envelope has other parts than certificate, payload and signature")
    if len(parts[0]) > MAX_CERTIFICATE_BYTES:
        raise _invalid("the certificate is too large")
    return parts[0], parts[1], parts[2]


def _verify(key: object, signature: bytes, message: bytes) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, message, _PSS, hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:
        raise InvalidSignature


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except FileNotFoundError:
        raise _missing(file, "the file is missing") from None
    except ValueError:
        raise _missing(file, "the file is not a certificate") from None


def _private_key(file: Path) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        mode = file.stat().st_mode & 0o777
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except FileNotFoundError:
        raise _missing(file, "the file is missing") from None
    except (ValueError, TypeError):
        raise _missing(file, "the file is not a private key") from None
    if mode & 0o077:
        raise CertificateMissing(
            f"others can read the private key (mode {mode:04o})", where=str(file), remedy=f"Run `chmod 600 {file}`."
        )
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise _missing(file, "the key is neither RSA nor elliptic")
    return key


def _public_bytes(key: Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _invalid(problem: str) -> SignatureInvalid:
    return SignatureInvalid(problem, remedy="Nothing of the message was used. Check who sent it, and its certificate.")


def _missing(file: Path, problem: str) -> CertificateMissing:
    return CertificateMissing(problem, where=str(file), remedy=_REMEDY)
