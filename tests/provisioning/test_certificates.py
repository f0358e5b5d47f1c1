from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from provisioning import certificates
from silo_app.errors import CertificateMissing


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, issuer, public_key, signing_key, days=10):
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=20))
        .not_valid_after(now + timedelta(days=days, minutes=1))
        .sign(signing_key, hashes.SHA256())
    )


@pytest.fixture
def kit(tmp_path):
    """A hospital's kit whose certificate holds ten more days."""
    write(tmp_path / "hospital-a")
    return tmp_path / "hospital-a"


def write(kit, days=10):
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    startup = kit / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    files = {
        "rootCA.pem": certificate("root", "root", root.public_key(), root),
        "client.crt": certificate("hospital-a", "root", key.public_key(), root, days),
    }
    for file, content in files.items():
        (startup / file).write_bytes(content.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (startup / "client.key").write_bytes(pem)


def test_a_whole_kit_says_how_long_it_holds(kit):
    found = certificates.check(kit)
    assert (found.participant, found.days_left) == ("hospital-a", 10)
    assert certificates.read(kit) == found


@pytest.mark.parametrize("missing", ["client.crt", "client.key", "rootCA.pem"])
def test_what_is_missing_is_named(kit, missing):
    (kit / "startup" / missing).unlink()
    with pytest.raises(CertificateMissing, match=f"startup/{missing} is missing"):
        certificates.check(kit)


@pytest.mark.parametrize(
    ("foreign", "problem"),
    [
        ("client.key", "client.key is not the key of client.crt"),
        ("rootCA.pem", "client.crt was not issued by this kit's rootCA.pem"),
    ],
)
def test_a_file_of_another_kit_is_found_out(kit, tmp_path, foreign, problem):
    write(tmp_path / "other")
    (kit / "startup" / foreign).write_bytes((tmp_path / "other" / "startup" / foreign).read_bytes())
    with pytest.raises(CertificateMissing, match=problem):
        certificates.check(kit)


@pytest.mark.parametrize("name", ["client.crt", "client.key"])
def test_a_damaged_file_is_found_out(kit, name):
    (kit / "startup" / name).write_text("nothing of the kind")
    with pytest.raises(CertificateMissing, match=f"{name} is not"):
        certificates.check(kit)


def test_an_expired_certificate_is_refused_but_can_be_shown(kit):
    write(kit, days=-1)
    assert certificates.read(kit).days_left < 0
    with pytest.raises(CertificateMissing, match=r"expired on \d{4}-\d{2}-\d{2}"):
        certificates.check(kit)
