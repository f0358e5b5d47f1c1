"""Certificates are renewed before they end: same name, same key, same root; nobody else's kit is touched."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from provisioning import certificates, cli, kits, renewal
from silo_app.cli import edge
from silo_app.errors import CertificateMissing, ConfigInvalid, NotReady
from silo_app.identity import Identity


@pytest.fixture
def ending(federation):
    """Of the hospitals, the first one's certificate has ten days left, and so has the server's."""
    then = datetime.now(UTC) - renewal.LIFE + timedelta(days=10, minutes=1)
    renewal.renew(federation.consortium, federation.root / ".authority", ["server", "hospital-a"], now=then)
    kits.provision(federation.consortium, federation.root)
    return federation


def lives(federation) -> dict[str, int]:
    return {one.participant: one.days_left for one in federation.certificates()}


def certificate(federation, name: str) -> x509.Certificate:
    side = "server" if name == "server" else "client"
    return x509.load_pem_x509_certificate((federation.kit(name) / "startup" / f"{side}.crt").read_bytes())


def test_who_ends_soon_gets_a_certificate_and_nobody_else_hears_of_it(ending):
    assert (lives(ending)["server"], lives(ending)["hospital-a"]) == (10, 10)
    key = (ending.kit("hospital-a") / "startup" / "client.key").read_bytes()
    before = certificate(ending, "server")
    changes: list[str] = []
    kits.renew(ending, [], within_days=90, tell=changes.append)
    assert changes == ["server: changed startup/server.crt", "hospital-a: changed startup/client.crt"]
    assert set(lives(ending).values()) <= {359, 360}
    assert (ending.kit("hospital-a") / "startup" / "client.key").read_bytes() == key
    after = certificate(ending, "server")
    assert after.serial_number != before.serial_number
    assert (after.subject, list(after.extensions)) == (before.subject, list(before.extensions))
    for name in ("server", "hospital-a"):
        assert certificates.check(ending.kit(name)).days_left > 350
        assert Identity.load(ending.kit(name)).name == name


def test_a_role_stays_in_a_researchers_certificate(federation):
    kits.renew(federation, ["lead@trial.example"], within_days=0)
    kit = federation.kit("lead@trial.example")
    signed = Identity.load(kit).sign(b"x", context=b"trial")
    verified = Identity.load(federation.kit("hospital-a")).trust.verify(signed, context=b"trial", limit=10_000)
    assert verified.signer.role == "lead"


def test_provisioning_again_keeps_what_was_renewed(ending):
    kits.renew(ending, ["hospital-a"], within_days=0)
    changes: list[str] = []
    kits.provision(ending.consortium, ending.root, tell=changes.append)
    assert changes == []
    assert lives(ending)["server"] == 10


def test_where_nothing_ends_nothing_happens(federation):
    changes: list[str] = []
    kits.renew(federation, [], within_days=90, tell=changes.append)
    assert changes == []


def test_nobody_outlives_the_root(federation):
    root = x509.load_pem_x509_certificate((federation.kit("server") / "startup" / "rootCA.pem").read_bytes())
    late = root.not_valid_after_utc - timedelta(days=20)
    renewal.renew(federation.consortium, federation.root / ".authority", ["hospital-b"], now=late)
    kits.provision(federation.consortium, federation.root)
    assert certificate(federation, "hospital-b").not_valid_after_utc == root.not_valid_after_utc
    with pytest.raises(CertificateMissing, match="the root certificate ended on"):
        renewal.renew(federation.consortium, federation.root / ".authority", ["hospital-b"], now=late + timedelta(days=21))


def test_without_the_roots_key_it_is_said_what_is_missing(federation):
    (federation.root / ".authority").rename(federation.root.parent / "offline")
    with pytest.raises(NotReady, match="the root's key is not here"):
        kits.renew(federation, ["hospital-a"], within_days=0)
    assert not (federation.root / ".authority").exists()


def test_a_name_that_is_not_of_the_federation_is_refused(federation):
    with pytest.raises(ConfigInvalid, match="'hospital-z' is not in this federation"):
        kits.renew(federation, ["hospital-z"], within_days=0)


def test_the_command_tells_whose_certificate_is_new_and_what_to_do_with_it(ending, capsys):
    with pytest.raises(SystemExit) as ended:
        edge.run(cli.app, ["renew", "--dir", str(ending.root)])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "hospital-a: changed startup/client.crt" in shown.err
    assert "send each its new file of startup/" in shown.err
    with pytest.raises(SystemExit):
        edge.run(cli.app, ["renew", "--dir", str(ending.root), "--format", "json"])
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["changes"] == []
    assert {kit["days"] for kit in data["kits"]} <= {359, 360}
