"""A silo with a certificate and one image."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture
def stocked_kit(make_silo, make_dicom, tmp_path):
    """A silo whose source holds one DICOM file, with a self-made certificate in its kit."""
    home = make_silo(name="north")
    (tmp_path / "source" / "one.dcm").write_bytes(make_dicom())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "north")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    startup = home.kit / "startup"
    startup.mkdir()
    for file in ("rootCA.pem", "client.crt"):
        (startup / file).write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (startup / "client.key").write_bytes(secret)
    (startup / "client.key").chmod(0o600)
    return home
