"""Who a silo is: its certificate of the startup kit, signatures under it, and what it takes to believe another's.

A signature always names what it is for (its context), so that a signed search query can never pass for a signed key.
The certificate travels with the signature; only a chain to the root certificate of one's own kit makes it believable.
"""

import functools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

import msgpack
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from silo_app.errors import CertificateMissing, MessageInvalid, SignatureInvalid
from silo_app.session_key import SessionKeys, Vouched, Vouchers

__all__ = ["Identity", "Signer", "Trust", "Verified"]

PAYLOAD_LIMIT = 64 * 1024
CERTIFICATE_LIMIT = 8 * 1024
SIGNATURE_LIMIT = 1024
_MOST_REMEMBERED = 2048
_VOUCHER = b"siloscope session key 2\0"
ROLE_OF_A_SILO = ("", "client")  # NVFlare leaves a silo's role empty, or writes "client" (`nvflare cert approve`)
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Signer:
    """Who a certificate names: its common name, and the role that NVFlare wrote into it."""

    name: str
    role: str

    @property
    def is_silo(self) -> bool:
        """Whether this is a hospital, and not the server or an administrator of the same federation."""
        return self.role in ROLE_OF_A_SILO


@dataclass(frozen=True, slots=True)
class Verified:
    """A payload whose signature and certificate chain were checked."""

    signer: Signer
    payload: bytes

    @property
    def name(self) -> str:
        """The common name of the signer's certificate."""
        return self.signer.name


@dataclass(frozen=True)
class Trust:
    """What one participant believes: one root certificate, and which names are servers (their kits are no silos')."""

    root: x509.Certificate
    servers: frozenset[str] = frozenset()
    _issued: dict[bytes, x509.Certificate] = field(default_factory=dict, repr=False, compare=False)
    """Certificates that the root was found to have issued: that never changes, and takes most of a verification."""

    @classmethod
    def of_root(cls, file: Path) -> Self:
        """Believe what the root certificate in the PEM file `file` issued. Raises `CertificateMissing`."""
        return cls(_read_certificate(file))

    def verify(self, signed: bytes, *, context: bytes, limit: int = PAYLOAD_LIMIT) -> Verified:
        """Check signature, chain, dates and sizes of `signed`, made by `Identity.sign` with the same context.

        Raises `MessageInvalid` for what is no signed message, `SignatureInvalid` for what does not verify.
        """
        certificate_der, payload, signature = _unpack(signed, limit)
        certificate = self._issued.get(certificate_der) or _parse(certificate_der)
        signer = self._signer_of(certificate, issued=certificate_der in self._issued)
        self._remember(certificate_der, certificate)
        if not _matches(certificate, signature, _statement(context, certificate_der, payload)):
            raise SignatureInvalid(
                f"the signature of {signer.name} is not of this content",
                remedy="Nothing was used. The message was changed on its way, or was signed for another purpose.",
            )
        return Verified(signer, payload)

    def verify_session(self, signed: bytes, *, context: bytes, limit: int = PAYLOAD_LIMIT) -> Verified:
        """Check a message that `Identity.session` signed, its key's voucher included. Raises as `verify` does."""
        signer, payload = self._vouchers.verify(signed, context=context, limit=limit)
        return Verified(signer, payload)

    def session_of(self, signed: bytes, *, limit: int = PAYLOAD_LIMIT) -> Vouched[Signer]:
        """Return whose session's keys come with a message, without asking whether it is theirs. Raises as `verify` does."""
        return self._vouchers.signer_of(signed, limit=limit)

    def vouched(self, voucher: bytes) -> Vouched[Signer]:
        """Return whose session's keys a voucher (`SessionKeys.voucher`) is for. Raises as `verify` does."""
        return self._vouchers.vouched(voucher)

    def unseal(
        self, message: bytes, session: SessionKeys, *, context: bytes, question: bytes, limit: int = PAYLOAD_LIMIT
    ) -> tuple[Verified, Vouched[Signer]]:
        """Read what was sealed for one's own `session`, as the reply to its signed `question`, and with whose keys.

        Raises as `verify` does.
        """
        writer, payload = self._vouchers.unseal(message, session, context=context, question=question, limit=limit)
        return Verified(writer.who, payload), writer

    @functools.cached_property
    def _vouchers(self) -> Vouchers[Signer]:
        def believe(voucher: bytes) -> tuple[Signer, bytes]:
            verified = self.verify(voucher, context=_VOUCHER, limit=1024)
            return verified.signer, verified.payload

        return Vouchers(believe)

    def signer_of(self, certificate: x509.Certificate) -> Signer:
        """Return whom `certificate` names; raise `SignatureInvalid` unless the root issued it and it is valid now."""
        return self._signer_of(certificate, issued=False)

    def _remember(self, der: bytes, certificate: x509.Certificate) -> None:
        if len(self._issued) >= _MOST_REMEMBERED:
            self._issued.clear()
        self._issued[der] = certificate

    def _signer_of(self, certificate: x509.Certificate, *, issued: bool) -> Signer:
        name = _common_name(certificate)
        if reason := _out_of_date(certificate, self.root) if issued else _distrust(certificate, self.root):
            raise SignatureInvalid(
                f"the certificate of {name!r} {reason}",
                remedy="Nothing was used. Ask the provisioner of the federation whether this participant is one of it.",
            )
        return Signer(name, "server" if name in self.servers else _attribute(certificate, NameOID.UNSTRUCTURED_NAME))


@dataclass(frozen=True)
class Identity:
    """One participant's certificate and private key, and what it trusts; `repr` shows the name only."""

    name: str
    certificate: x509.Certificate = field(repr=False)
    key: PrivateKey = field(repr=False)
    trust: Trust = field(repr=False)

    @classmethod
    def load(cls, kit: Path) -> Self:
        """Read the identity in the startup kit `kit`.

        Raises `CertificateMissing` if a file is missing or unreadable, the key does not fit or may be read by others,
        or the certificate is expired or not of the kit's root.
        """
        startup = kit / "startup"
        side = "server" if (startup / "server.crt").is_file() else "client"
        root = _read_certificate(startup / "rootCA.pem")
        certificate = _read_certificate(startup / f"{side}.crt")
        key = _read_key(startup / f"{side}.key")
        _require_fit(startup / f"{side}.crt", certificate, key, root)
        return cls(_common_name(certificate), certificate, key, Trust(root, _servers(startup)))

    def sign(self, payload: bytes, *, context: bytes) -> bytes:
        """Return `payload` with this identity's certificate and its signature for the purpose `context`."""
        certificate = self.certificate.public_bytes(serialization.Encoding.DER)
        statement = _statement(context, certificate, payload)
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(statement, PSS, hashes.SHA256())
        else:
            signature = self.key.sign(statement, ec.ECDSA(hashes.SHA256()))
        return bytes(msgpack.packb({"certificate": certificate, "payload": payload, "signature": signature}))

    @functools.cached_property
    def session(self) -> SessionKeys:
        """Signs and seals messages that are read at once, at little cost; what is kept is signed with `sign`."""
        return SessionKeys(lambda content: self.sign(content, context=_VOUCHER))

    @functools.cached_property
    def peers(self) -> dict[str, Vouched[Signer]]:
        """By name, the keys of others' sessions: what they are asked is locked for these."""
        return {}


def _statement(context: bytes, certificate: bytes, payload: bytes) -> bytes:
    """Return what is really signed: purpose, certificate and payload, each of a fixed or stated length."""
    return b"".join(
        [
            b"siloscope/signature/1\0",
            len(context).to_bytes(2, "big"),
            context,
            sha256(certificate).digest(),
            sha256(payload).digest(),
        ]
    )


def _unpack(signed: bytes, limit: int) -> tuple[bytes, bytes, bytes]:
    sizes = {"certificate": CERTIFICATE_LIMIT, "payload": limit, "signature": SIGNATURE_LIMIT}
    problem = ""
    if len(signed) > sum(sizes.values()) + 256:
        problem = f"has {len(signed)} bytes, more than any may have"
    else:
        try:
            content = msgpack.unpackb(signed, max_map_len=3, max_array_len=0, max_ext_len=0)
        except (ValueError, msgpack.UnpackException):
            content = None
        if not isinstance(content, dict) or content.keys() != sizes.keys():
            problem = "is not of this version, or damaged"
        elif any(not isinstance(content[key], bytes) or len(content[key]) > size for key, size in sizes.items()):
            problem = "has a part of another type or size"
        else:
            return content["certificate"], content["payload"], content["signature"]
    raise MessageInvalid(
        f"a signed message {problem}", remedy="Nothing was used. Compare the versions of siloscope on both sides."
    )


def _parse(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _common_name(certificate)
    except Exception:  # noqa: BLE001  (a stranger's bytes: x509.InvalidVersion, for one, is no ValueError)
        raise SignatureInvalid(
            "the certificate in a signed message cannot be read",
            remedy="Nothing was used. Compare the versions of siloscope on both sides.",
        ) from None
    return certificate


def _matches(certificate: x509.Certificate, signature: bytes, statement: bytes) -> bool:
    try:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, statement, PSS, hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _distrust(certificate: x509.Certificate, root: x509.Certificate) -> str:
    """Return why a certificate is not believed, or ""."""
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return "was not issued by this federation's root"
    return _out_of_date(certificate, root)


def _out_of_date(certificate: x509.Certificate, root: x509.Certificate) -> str:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc or now > root.not_valid_after_utc:
        return f"(or its root's) expired at {min(certificate.not_valid_after_utc, root.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc}; compare the clocks"
    return ""


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """Return a subject attribute, or "" if the subject does not have it."""
    values = certificate.subject.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""


def _common_name(certificate: x509.Certificate) -> str:
    """Return the one common name; a certificate with none or with several names nobody."""
    values = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(values) != 1:
        raise ValueError("the certificate does not have exactly one common name")
    return str(values[0].value)


def _missing(path: Path, problem: str, remedy: str) -> CertificateMissing:
    return CertificateMissing(problem, where=str(path), remedy=remedy)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _missing(
            path,
            f"cannot be read: {error.strerror}",
            "Name the startup kit that the provisioner gave to this silo, complete with its startup folder.",
        ) from None


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(_read(path))
        _common_name(certificate)
    except ValueError as error:
        raise _missing(path, f"is not a usable certificate: {error}", "Ask the provisioner for a new kit.") from None
    return certificate


def _read_key(path: Path) -> PrivateKey:
    content = _read(path)
    if path.stat().st_mode & 0o077:
        raise _missing(path, "the private key may be read by other accounts", f"Close it: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _missing(path, "is not an unencrypted private key in PEM", "Ask the provisioner for a new kit.") from None
    if not isinstance(key, PrivateKey):
        raise _missing(path, f"holds a {type(key).__name__}, not RSA or EC", "Ask the provisioner for a new kit.")
    return key


def _require_fit(path: Path, certificate: x509.Certificate, key: PrivateKey, root: x509.Certificate) -> None:
    if certificate.public_key() != key.public_key():
        raise _missing(
            path, "is not the certificate of the private key beside it", "Restore the kit as the provisioner made it."
        )
    if reason := _distrust(certificate, root):
        raise _missing(path, f"the certificate {reason}", "Ask the provisioner for a new one (`consortium renew`).")


def _servers(startup: Path) -> frozenset[str]:
    """Return the servers' names as NVFlare's fed_client.json gives them; other kits need none."""
    file = startup / "fed_client.json"
    if not file.is_file():
        return frozenset()
    try:
        servers = json.loads(file.read_text(encoding="utf-8"))["servers"]
        return frozenset(str(server["identity"]) for server in servers if "identity" in server)
    except (ValueError, KeyError, TypeError):
        raise _missing(file, "does not list the federation's servers", "Ask the provisioner for a new kit.") from None
