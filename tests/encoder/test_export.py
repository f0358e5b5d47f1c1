import json
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from silo_app.audit.recent import newest_records
from silo_app.encoder import checkpoint, export
from silo_app.encoder.model import build, to_vector
from silo_app.errors import CheckpointInvalid, ConfigInvalid, SignatureInvalid
from silo_app.identity import Identity, Trust
from tests.test_identity import Root, write_kit


@pytest.fixture
def root():
    return Root()


@pytest.fixture
def exported(make_silo, spec, root, tmp_path):
    home = make_silo()
    write_kit(home.kit, root)
    version = checkpoint.save(home.models, spec, to_vector(build(spec, 1)), {"kind": "federated", "job": "j1"})
    file = tmp_path / "encoder.zip"
    return home, file, version, export.export(home, version, file, "silo"), Trust(root.certificate)


def test_an_export_is_verified_and_kept_elsewhere(exported, tmp_path):
    home, file, version, told, trust = exported
    opened = export.verify(file, trust)
    assert opened.provenance == told["provenance"]
    assert opened.provenance["privacy_spent"] == "none claimed"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = home.model_copy(update={"config": home.config.model_copy(update={"home": tmp_path / "other"})})
    assert export.keep(other, opened) == version
    kept = checkpoint.load(other.models, version)
    assert np.array_equal(kept.vector, opened.vector)
    assert kept.card["imported"]["exporter"] == "silo-a"


def test_the_audit_log_says_what_went_to_whom(exported):
    home, _, version, told, _ = exported
    record = next(newest_records(home.audit))
    assert (record["event"], record["to"], record["version"]) == ("encoder-exported", "silo", version)
    assert record["file_sha256"] == told["file_sha256"]


def test_a_researcher_gets_it_only_when_the_policy_allows(exported, make_silo, tmp_path):
    home, _, version, _, trust = exported
    out = tmp_path / "out.zip"
    with pytest.raises(ConfigInvalid, match="silos only"):
        export.export(home, version, out, "researcher")
    assert not out.exists()
    export.export(make_silo(release={"encoder": "researchers"}), version, out, "researcher")
    assert export.verify(out, trust).provenance["audience"] == "researcher"


def rewrite(file, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)


def flip(members):
    weights = members["encoder.safetensors"]
    members["encoder.safetensors"] = weights[:-3] + bytes([weights[-3] ^ 1]) + weights[-2:]


def edit(members):
    content = json.loads(members["provenance.json"]) | {"audience": "researcher"}
    members["provenance.json"] = json.dumps(content).encode()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: rewrite(f, flip), "the weights are not those of the provenance"),
        (lambda f: rewrite(f, edit), "the provenance is not the signed one"),
        (lambda f: rewrite(f, lambda m: m.pop("provenance.signed")), "does not hold exactly"),
        (lambda f: rewrite(f, lambda m: m.update(more=b"")), "does not hold exactly"),
        (lambda f: rewrite(f, lambda m: m.update({"provenance.json": b" " * 70_000})), "too large"),
        (lambda f: rewrite(f, lambda _: None, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda f: f.write_bytes(f.read_bytes() + b"more"), "damaged|beside its members"),
        (lambda f: f.write_bytes(b"more" + f.read_bytes()), "beside its members"),
        (lambda f: f.write_bytes(b"no zip"), "is no zip"),
        (lambda f: f.write_bytes(b""), "is no zip"),
        (lambda f: f.unlink(), "cannot be read"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(exported, damage, problem):
    _, file, _, _, trust = exported
    damage(file)
    with pytest.raises(CheckpointInvalid, match=problem):
        export.verify(file, trust)


def test_an_oversized_file_is_refused(exported, monkeypatch):
    monkeypatch.setattr(export, "FILE_LIMIT", 100)
    with pytest.raises(CheckpointInvalid, match="more than 100 bytes"):
        export.verify(exported[1], exported[4])


def test_another_federations_root_does_not_believe_it(exported):
    with pytest.raises(SignatureInvalid, match="not issued by"):
        export.verify(exported[1], Trust(Root().certificate))


def test_an_expired_exporter_is_refused(exported, root):
    home, file, _, _, trust = exported
    key = ec.generate_private_key(ec.SECP256R1())
    expired = root.issue("silo-a", key.public_key(), days=(-4, -1))
    identity = replace(Identity.load(home.kit), certificate=expired, key=key)

    def resign(members):
        members["provenance.signed"] = identity.sign(members["provenance.json"], context=export.CONTEXT)

    rewrite(file, resign)
    with pytest.raises((SignatureInvalid, CheckpointInvalid), match="expired"):
        export.verify(file, trust)


@pytest.mark.parametrize(("name", "problem"), [("encoder.zip", "the file exists"), ("", "no file can be made there")])
def test_nothing_is_overwritten(exported, name, problem):
    home, file, version, _, _ = exported
    before = file.read_bytes()
    with pytest.raises(ConfigInvalid, match=problem):
        export.export(home, version, file.parent / name, "silo")
    assert file.read_bytes() == before


def signed_again(file, home, change):
    """Let the silo itself sign another provenance: a bug, or a newer version of it."""

    def resign(members):
        payload = json.dumps(change(json.loads(members["provenance.json"]))).encode()
        members["provenance.json"] = payload
        members["provenance.signed"] = Identity.load(home.kit).sign(payload, context=export.CONTEXT)

    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    resign(members)
    file.write_bytes(export._pack(tuple(members.values())))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda said: {}, "encoder_version"),
        (lambda said: [], "all of it"),
        (lambda said: said | {"spec": 3}, "spec"),
        (lambda said: said | {"exporter": "silo-b"}, "the exporter is not who signed it"),
        (lambda said: said | {"spec": said["spec"] | {"embedding_dim": 24}}, "weights are not those"),
        (lambda said: said | {"preprocessing": "other"}, "made for preprocessing other"),
    ],
)
def test_a_signature_does_not_excuse_nonsense(exported, change, problem):
    home, file, _, _, trust = exported
    signed_again(file, home, change)
    with pytest.raises(CheckpointInvalid, match=problem):
        export.verify(file, trust)


def test_weights_that_are_no_numbers_are_refused_whoever_signed_them(exported, spec, tmp_path):
    home, _, _, _, trust = exported
    broken = to_vector(build(spec, 1))
    broken[3] = np.nan
    export.export(home, checkpoint.save(home.models, spec, broken, {}), tmp_path / "broken.zip", "silo")
    with pytest.raises(CheckpointInvalid, match="not finite"):
        export.verify(tmp_path / "broken.zip", trust)


def test_what_a_newer_version_adds_does_not_matter(exported):
    home, file, version, _, trust = exported
    signed_again(file, home, lambda said: said | {"more": 1})
    assert export.verify(file, trust).provenance["encoder_version"] == version
