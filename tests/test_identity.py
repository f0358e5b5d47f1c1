"""Who a silo is, whom it believes, and what it says when its kit is not in order."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo_app.errors import CertificateMissing, MessageInvalid, SignatureInvalid
from silo_app.identity import Identity, Trust
from silo_app.session_key import SessionKeys

CONTEXT = b"siloscope/test/1"


def name_of(common_name, role=None):
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name(parts + ([x509.NameAttribute(NameOID.UNSTRUCTURED_NAME, role)] if role else []))


class Root:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.issue("federation", self.key.public_key(), days=(-5, 60))

    def issue(self, name, public, *, role=None, days=(-1, 30)):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name_of(name, role))
            .issuer_name(name_of("federation"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .sign(self.key, hashes.SHA256())
        )


def write_kit(kit, root, name="silo-a", *, key=None, side="client", days=(-1, 30)):
    startup = kit / "startup"
    startup.mkdir(parents=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    certificate = root.issue(name, key.public_key(), days=days)
    (startup / "rootCA.pem").write_bytes(root.certificate.public_bytes(serialization.Encoding.PEM))
    (startup / f"{side}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = startup / f"{side}.key"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        if not isinstance(key, ed25519.Ed25519PrivateKey)
        else key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    (startup / "fed_client.json").write_text(json.dumps({"servers": [{"name": "federation", "identity": "server"}]}))
    return kit


@pytest.fixture(scope="module")
def root():
    return Root()


@pytest.fixture(scope="module")
def signed(root, tmp_path_factory):
    identity = Identity.load(write_kit(tmp_path_factory.mktemp("signed"), root))
    return identity.trust, identity.sign(b"payload", context=CONTEXT)


KEYS = {
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("side", ["client", "server"])
def test_what_a_kit_signs_any_kit_of_the_federation_believes(tmp_path, root, kind, side):
    identity = Identity.load(write_kit(tmp_path / "a", root, key=KEYS[kind](), side=side))
    other = Identity.load(write_kit(tmp_path / "b", root, "silo-b"))
    verified = other.trust.verify(identity.sign(b"hello", context=CONTEXT), context=CONTEXT)
    assert (verified.name, verified.payload) == ("silo-a", b"hello")
    assert verified.signer.is_silo


def test_the_key_is_not_shown(tmp_path, root):
    assert repr(Identity.load(write_kit(tmp_path, root))) == "Identity(name='silo-a')"


def test_servers_and_administrators_are_no_silos(tmp_path, root):
    trust = Identity.load(write_kit(tmp_path, root)).trust
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    roles = {
        name: trust.signer_of(root.issue(name, public, role=role))
        for name, role in (("server", None), ("lead@a.org", "lead"), ("silo-b", None), ("silo-c", "client"))
    }
    assert {name: signer.is_silo for name, signer in roles.items()} == {
        "server": False,
        "lead@a.org": False,
        "silo-b": True,
        "silo-c": True,
    }


def remove(name):
    return lambda kit: (kit / "startup" / name).unlink()


def write(name, content):
    return lambda kit: (kit / "startup" / name).write_bytes(content)


def foreign_root(kit):
    write("rootCA.pem", Root().certificate.public_bytes(serialization.Encoding.PEM))(kit)


def other_key(kit):
    key = ec.generate_private_key(ec.SECP256R1())
    write(
        "client.key",
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )(kit)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (remove("client.crt"), "client.crt: cannot be read: No such file"),
        (remove("client.key"), "client.key: cannot be read: No such file"),
        (remove("rootCA.pem"), "rootCA.pem: cannot be read: No such file"),
        (write("client.crt", b"no certificate"), "client.crt: is not a usable certificate"),
        (write("client.key", b"no key"), "client.key: is not an unencrypted private key"),
        (write("fed_client.json", b"{}"), "fed_client.json: does not list the federation's servers"),
        (lambda kit: (kit / "startup/client.key").chmod(0o644), "chmod 600 "),
        (foreign_root, "client.crt: the certificate was not issued by this federation's root"),
        (other_key, "client.crt: is not the certificate of the private key beside it"),
    ],
    ids=[
        "no certificate",
        "no key",
        "no root",
        "junk certificate",
        "junk key",
        "junk json",
        "open",
        "foreign",
        "mixed",
    ],
)
def test_a_kit_that_is_not_in_order_is_named(tmp_path, root, harm, problem):
    kit = write_kit(tmp_path, root)
    harm(kit)
    with pytest.raises(CertificateMissing) as caught:
        Identity.load(kit)
    assert problem in str(caught.value)


@pytest.mark.parametrize(("days", "problem"), [((-9, -1), "expired at"), ((2, 9), "is not valid before")])
def test_a_kit_out_of_its_dates_is_named(tmp_path, root, days, problem):
    with pytest.raises(CertificateMissing, match=problem):
        Identity.load(write_kit(tmp_path, root, days=days))


def test_a_kind_of_key_that_we_cannot_use_is_named(tmp_path, root):
    with pytest.raises(CertificateMissing, match="not RSA or EC"):
        Identity.load(write_kit(tmp_path, root, key=ed25519.Ed25519PrivateKey.generate()))


def test_a_signature_is_for_one_purpose(signed):
    trust, message = signed
    with pytest.raises(SignatureInvalid, match="not of this content"):
        trust.verify(message, context=b"siloscope/other/1")


def test_a_signature_of_another_federation_is_refused(signed):
    with pytest.raises(SignatureInvalid, match="'silo-a' was not issued by this federation's root"):
        Trust(Root().certificate).verify(signed[1], context=CONTEXT)


def test_an_expired_signer_is_refused(root):
    key = ec.generate_private_key(ec.SECP256R1())
    trust = Trust(root.certificate)
    identity = Identity("late", root.issue("late", key.public_key(), days=(-9, -1)), key, trust)
    with pytest.raises(SignatureInvalid, match=r"'late'.*expired"):
        trust.verify(identity.sign(b"x", context=CONTEXT), context=CONTEXT)


def test_a_certificate_without_a_name_is_refused(root):
    key = ec.generate_private_key(ec.SECP256R1())
    trust = Trust(root.certificate)
    identity = Identity("", root.issue("", key.public_key()), key, trust)
    with pytest.raises(SignatureInvalid, match="cannot be read"):
        trust.verify(identity.sign(b"x", context=CONTEXT), context=CONTEXT)


@pytest.mark.parametrize("message", [b"", b"x", b"\x80", b"\xc1", b"\x93\x01\x02\x03", b"x" * 200_000])
def test_what_is_no_signed_message_is_refused(signed, message):
    with pytest.raises(MessageInvalid):
        signed[0].verify(message, context=CONTEXT)


def test_an_oversized_payload_is_refused(tmp_path, root):
    identity = Identity.load(write_kit(tmp_path, root))
    message = identity.sign(b"x" * 101, context=CONTEXT)
    with pytest.raises(MessageInvalid, match="size"):
        identity.trust.verify(message, context=CONTEXT, limit=100)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_signed_message_is_believed(signed, data):
    trust, message = signed
    where = data.draw(st.integers(0, len(message) - 1))
    flip = data.draw(st.integers(0, 255))
    changed = bytes([*message[:where], flip, *message[where + 1 :]])
    if data.draw(st.booleans()):
        changed = message[:where]
    if changed == message:
        return
    with pytest.raises((MessageInvalid, SignatureInvalid)):
        trust.verify(changed, context=CONTEXT)


def test_a_session_speaks_for_its_certificate_and_no_longer(tmp_path, root):
    identity = Identity.load(write_kit(tmp_path / "a", root))
    other = Identity.load(write_kit(tmp_path / "b", root, "silo-b"))
    message = identity.session.sign(b"hello", context=CONTEXT)
    verified = other.trust.verify_session(message, context=CONTEXT)
    assert (verified.name, verified.signer.is_silo, verified.payload) == ("silo-a", True, b"hello")
    with pytest.raises(SignatureInvalid, match="not issued by this federation's root"):
        Trust(Root().certificate).verify_session(message, context=CONTEXT)
    key = ec.generate_private_key(ec.SECP256R1())
    late = Identity("late", root.issue("late", key.public_key(), days=(-9, -1)), key, other.trust)
    with pytest.raises(SignatureInvalid, match=r"'late'.*expired"):
        other.trust.verify_session(late.session.sign(b"x", context=CONTEXT), context=CONTEXT)


def test_a_signature_for_another_purpose_is_no_voucher(tmp_path, root):
    identity = Identity.load(write_kit(tmp_path, root))
    keys = SessionKeys(lambda content: identity.sign(content, context=CONTEXT))
    with pytest.raises(SignatureInvalid):
        identity.trust.verify_session(keys.sign(b"x", context=CONTEXT), context=CONTEXT)


PROJECT = """
api_version: 3
name: federation
participants:
  - {name: server, type: server, org: a, fed_learn_port: 8002}
  - {name: silo-a, type: client, org: a}
  - {name: lead@a.org, type: admin, org: a, role: lead}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
  - {path: nvflare.lighter.impl.static_file.StaticFileBuilder, args: {config_folder: config, scheme: grpc}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""


def test_kits_made_by_nvflare_are_read(tmp_path):
    (tmp_path / "project.yml").write_text(PROJECT)
    subprocess.run(
        [Path(sys.executable).parent / "nvflare", "provision", "-p", "project.yml", "-w", "ws"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    kits = tmp_path / "ws" / "federation" / "prod_00"
    silo = Identity.load(kits / "silo-a")
    signers = {
        name: silo.trust.verify(Identity.load(kits / name).sign(b"x", context=CONTEXT), context=CONTEXT).signer
        for name in ("server", "silo-a", "lead@a.org")
    }
    assert {name: signer.role for name, signer in signers.items()} == {
        "server": "server",
        "silo-a": "",
        "lead@a.org": "lead",
    }
    assert [name for name, signer in signers.items() if signer.is_silo] == ["silo-a"]
