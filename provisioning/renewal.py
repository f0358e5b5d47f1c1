"""New certificates for participants whose own end soon: of the same name and key, and of the federation's root.

NVFlare's provisioning gives a participant a certificate of 360 days once, and hands the same one out ever after. What is
renewed here it finds in its state and hands out instead. The key stays, so that what travels to a hospital is no secret,
and nothing that was signed with it loses its signer.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from provisioning.consortium import Consortium
from silo_app import durable
from silo_app.errors import CertificateMissing, NotReady

__all__ = ["LIFE", "renew"]

LIFE = timedelta(days=360)
"""What NVFlare 2.9 gives."""


def renew(consortium: Consortium, authority: Path, names: Sequence[str], *, now: datetime | None = None) -> None:
    """Write new certificates of `names` into the provisioning's state; `kits.provision` then hands them out.

    Raises `NotReady` where the root's key is not here, and `CertificateMissing` if the root has ended.
    """
    state = authority / consortium.name / "state" / "cert.json"
    if not state.is_file():
        raise NotReady(
            "the root's key is not here, and nobody can certify anything without it",
            where=str(authority),
            remedy="Bring `.authority` back to where it was when the federation was provisioned.",
        )
    issued = json.loads(state.read_text())
    root = x509.load_pem_x509_certificate(issued["root_cert"].encode())
    at = now or datetime.now(UTC)
    if root.not_valid_after_utc <= at:
        raise CertificateMissing(
            f"the root certificate ended on {root.not_valid_after_utc:%Y-%m-%d}",
            where=str(state),
            remedy="Provision anew in another folder (--out), under the same names: everybody needs a new kit.",
        )
    key = load_pem_private_key(issued["root_pri_key"].encode(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise CertificateMissing("the root's key is neither RSA nor EC", where=str(state), remedy="Restore your backup.")
    for name in names:
        old = x509.load_pem_x509_certificate(issued[name]["cert"].encode())
        ends = min(at + LIFE, root.not_valid_after_utc)
        issued[name]["cert"] = _prolonged(old, key, ends).public_bytes(Encoding.PEM).decode()
    durable.write_text(state, json.dumps(issued))


def _prolonged(
    old: x509.Certificate, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, ends: datetime
) -> x509.Certificate:
    """Return the same certificate until `ends`; it begins when the old one did, so that a late clock refuses none."""
    made = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(ends)
    )
    for extension in old.extensions:
        made = made.add_extension(extension.value, critical=extension.critical)
    return made.sign(key, hashes.SHA256())
