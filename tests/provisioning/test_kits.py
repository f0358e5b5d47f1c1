"""Provisioning with the real `nvflare provision`: what is handed out, and what a second run leaves alone."""

import json
import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from provisioning import authority, certificates, kits
from provisioning.federation import Federation
from silo_app import config
from silo_app.errors import ConfigInvalid, NotReady, ProcessFailed

SITES = ("anchor", "hospital-a", "hospital-b")


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of the kits with its content and the moment it was written; what NVFlare writes for itself left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".authority" not in path.parts)
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in found if p.name != "federation.json"}


def again(federation: Federation, consortium, **options) -> list[str]:
    changes: list[str] = []
    kits.provision(consortium, federation.root, tell=changes.append, **options)
    return changes


def test_everybody_gets_a_kit(provisioned):
    for name in ("server", *SITES, "lead@trial.example", "admin@trial.example"):
        assert (provisioned.kit(name) / "startup" / "rootCA.pem").is_file()
        assert not list((provisioned.kit(name) / "local").glob("authorization.json.default"))
    assert provisioned.admin_kit.name == "lead@trial.example"
    assert provisioned.operator_kit.name == "admin@trial.example"


def test_nothing_is_readable_by_others(provisioned):
    for path in (provisioned.root, *provisioned.root.rglob("*")):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_certificates_last_as_long_as_nvflare_lets_them(provisioned):
    assert {certificate.days_left for certificate in provisioned.certificates()} <= {359, 360}


def test_a_chosen_port_is_kept_and_written_everywhere(provisioned):
    port = provisioned.consortium.server.port
    assert port != 0
    server = json.loads((provisioned.kit("server") / "startup" / "fed_server.json").read_text())["servers"][0]
    assert (server["service"]["target"], server["admin_port"]) == (f"localhost:{port}", port)
    for site in SITES:
        settings = json.loads((provisioned.kit(site) / "startup" / "fed_client.json").read_text())
        assert settings["servers"][0]["service"]["target"] == f"localhost:{port}"
    assert Federation.load(provisioned.root).consortium == provisioned.consortium


def test_every_site_and_the_server_refuse_code_and_foreign_classes(provisioned):
    for name in ("server", *SITES):
        local = provisioned.kit(name) / "local"
        rights = json.loads((local / "authorization.json").read_text())["permissions"]
        assert {role["byoc"] for role in rights.values()} == {"none"}
        assert json.loads((local / "resources.json").read_text())["class_allow_list"] == ["silo_app.flare."]


def test_silos_alone_have_a_gateway(provisioned):
    for name in ("server", *SITES):
        resources = json.loads((provisioned.kit(name) / "local" / "resources.json").read_text())
        has_gateway = "silo_gateway" in {component["id"] for component in resources["components"]}
        assert has_gateway == (name in provisioned.silos)


def test_the_server_knows_whom_the_search_asks(provisioned):
    members = json.loads((provisioned.kit("server") / "local" / "consortium.json").read_text())
    people = ["lead@trial.example", "admin@trial.example"]
    assert members == {"silos": ["hospital-a", "hospital-b"], "anchor": "anchor", "people": people, "revoked": []}
    components = json.loads((provisioned.kit("server") / "local" / "resources.json").read_text())["components"]
    assert {"id": "door", "path": "silo_app.flare.door.Door", "args": {}} in components


def test_a_silos_configuration_can_be_loaded(provisioned):
    home = config.load(provisioned.kit("hospital-a"))
    assert (home.config.name, home.config.release.min_gallery) == ("hospital-a", 11)


def test_jobs_can_be_submitted_by_their_short_name(provisioned):
    for kit in (provisioned.admin_kit, provisioned.operator_kit):
        assert (kit / "transfer" / "jobs").resolve() == kits.jobs_folder()


def test_start_scripts_take_the_python_that_has_siloscope(provisioned):
    script = (provisioned.kit("hospital-a") / "startup" / "sub_start.sh").read_text()
    assert script.startswith("#!/usr/bin/env bash\n")
    assert 'exec "$PYTHON" -u -m nvflare' in script
    assert "python3 -" not in script


def test_a_service_manager_can_run_a_kit_in_the_foreground(provisioned):
    for name in ("server", *SITES):  # docs/how-to-several-machines.md relies on it
        script = (provisioned.kit(name) / "startup" / "sub_start.sh").read_text()
        _, _, once = script.partition('if [[ "$doOnce" == "true" ]]; then')
        assert "start_python\n" in once.partition("\nfi")[0]
        assert 'start_python() {\n  exec "$PYTHON"' in script


def test_a_second_run_touches_nothing(federation, make_consortium):
    before = snapshot(federation.root)
    assert again(federation, make_consortium()) == []
    assert snapshot(federation.root) == before


def test_a_new_hospital_gets_a_kit_under_the_same_root_and_the_others_keep_theirs(federation, make_consortium):
    before = snapshot(federation.root)
    changes = again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))
    assert changes == ["server: changed local/consortium.json", "hospital-c: made"]
    after = snapshot(federation.root)
    assert {file for file in before if after[file] != before[file]} == {
        "server/local/consortium.json",
        ".authority/handed-out.json",
    } & set(before)
    assert after["hospital-c/startup/rootCA.pem"][0] == before["hospital-a/startup/rootCA.pem"][0]


def test_a_hospital_that_left_is_named_and_its_kit_stays(federation, make_consortium):
    changes = again(federation, make_consortium("hospital-a"))
    assert any(line.startswith("hospital-b: no longer in the federation's file") for line in changes)
    assert (federation.root / "hospital-b" / "startup" / "client.key").is_file()


def test_what_the_hospital_edited_is_kept(federation, make_consortium):
    local = federation.kit("hospital-a") / "local"
    (local / "silo.yaml").write_text("name: hospital-a\nrelease: {answer_queries: false}\n")
    resources = json.loads((local / "resources.json").read_text()) | {"client": {"retry_timeout": 5}}
    (local / "resources.json").write_text(json.dumps(resources))
    changes = again(federation, make_consortium("hospital-a", "hospital-b"))
    assert changes == ["hospital-a: kept local/resources.json, which was edited there (provisioning would write another)"]
    assert json.loads((local / "resources.json").read_text()) == resources
    assert "answer_queries: false" in (local / "silo.yaml").read_text()


def test_a_difference_to_the_hospitals_own_configuration_is_told(federation, make_consortium):
    silos = [{"name": "hospital-a", "release": {"max_hits": 3}}, {"name": "hospital-b"}]
    changes = again(federation, make_consortium(silos=silos))
    assert changes == ["hospital-a: kept local/silo.yaml, which has another release than consortium.yaml"]
    assert config.load(federation.kit("hospital-a")).config.release.max_hits == 20


@pytest.mark.parametrize("content", [b"a: [\n", b"name: \xff\n"])
def test_a_hospitals_configuration_that_cannot_be_read_holds_up_nobody(federation, make_consortium, content):
    file = federation.kit("hospital-a") / "local" / "silo.yaml"
    file.write_bytes(content)
    changes = again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))
    assert any(line.startswith("hospital-a: kept local/silo.yaml, which cannot be read") for line in changes)
    assert file.read_bytes() == content
    assert Federation.load(federation.root).silos == ["hospital-a", "hospital-b", "hospital-c"]


def test_a_lost_key_is_put_back_as_it_was(federation, make_consortium):
    key = federation.kit("hospital-a") / "startup" / "client.key"
    content = key.read_bytes()
    key.unlink()
    assert again(federation, make_consortium()) == ["hospital-a: added startup/client.key"]
    assert key.read_bytes() == content


def test_a_server_that_moves_gets_a_certificate_for_its_new_name(federation, make_consortium):
    root = (federation.kit("server") / "startup" / "rootCA.pem").read_bytes()
    changes = again(federation, make_consortium(server={"port": 0, "host": "fl.trial.example", "home": "/srv/trial/server"}))
    assert "hospital-a: changed startup/fed_client.json" in changes
    assert not any("client.crt" in line for line in changes)
    certificate = x509.load_pem_x509_certificate((federation.kit("server") / "startup" / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "fl.trial.example" in {str(name.value) for name in names}
    assert (federation.kit("server") / "startup" / "rootCA.pem").read_bytes() == root


def subject(kit):
    return x509.load_pem_x509_certificate((kit / "startup" / "client.crt").read_bytes()).subject.rfc4514_string()


def test_another_role_or_organisation_is_a_new_certificate_of_the_same_root_for_that_one_alone(federation, make_consortium):
    wanted = {
        "silos": [{"name": "hospital-a", "organisation": "st_anna"}, {"name": "hospital-b"}],
        "researchers": [{"name": "lead@trial.example", "role": "member"}],
    }
    changes = again(federation, make_consortium(**wanted))
    new = [
        f"{name}: changed startup/client.{kind}" for name in ("hospital-a", "lead@trial.example") for kind in ("crt", "key")
    ]
    assert sorted(line for line in changes if "client." in line) == sorted(new)
    assert "O=st_anna" in subject(federation.kit("hospital-a"))
    assert "member" in subject(federation.kit("lead@trial.example"))
    for name in ("hospital-a", "hospital-b", "lead@trial.example"):
        certificates.check(federation.kit(name))
    assert not any("client." in line for line in again(federation, make_consortium(**wanted)))


def test_renewal_is_of_those_named_and_of_nothing_else(federation):
    before, changes = snapshot(federation.root), []
    kits.renew(federation, ["hospital-b"], within=timedelta(0), tell=changes.append)
    assert changes == ["hospital-b: changed startup/client.crt", "hospital-b: changed startup/client.key"]
    after = snapshot(federation.root)
    assert {file for file in before if after[file][0] != before[file][0]} == {
        "hospital-b/startup/client.crt",
        "hospital-b/startup/client.key",
    }
    certificates.check(federation.kit("hospital-b"))


@pytest.mark.parametrize(("days", "changed"), [(60, 0), (361, 6)])
def test_without_names_those_are_renewed_that_end_soon(federation, days, changed):
    changes = []
    kits.renew(federation, [], within=timedelta(days=days), tell=changes.append)
    assert len([line for line in changes if line.endswith(".crt")]) == changed


def test_who_is_not_in_the_federation_is_not_renewed(federation):
    before = snapshot(federation.root)
    with pytest.raises(ConfigInvalid, match="'hospital-x' is not in this federation"):
        kits.renew(federation, ["hospital-a", "hospital-x"], within=timedelta(0))
    assert snapshot(federation.root) == before


def test_provisioning_says_whose_certificate_ends_soon(federation, make_consortium, monkeypatch):
    monkeypatch.setattr(kits, "SOON", timedelta(days=400))
    told = [line for line in again(federation, make_consortium()) if line.endswith("consortium renew")]
    assert len(told) == 6


def members_of(federation):
    return json.loads((federation.kit("server") / "local" / "consortium.json").read_text())


def serial_of(kit):
    return f"{x509.load_pem_x509_certificate((kit / 'startup' / 'client.crt').read_bytes()).serial_number:x}"


def test_a_revoked_certificate_is_named_to_the_server_and_another_is_issued(federation, make_consortium):
    kit = federation.kit("hospital-b")
    before, changes = serial_of(kit), []
    kits.revoke(federation, ["hospital-b"], tell=changes.append)
    assert serial_of(kit) != before
    assert members_of(federation)["revoked"] == [before]
    assert "server: changed startup/server.crt" in changes
    assert "server: changed local/consortium.json" in changes
    assert again(federation, make_consortium()) == []
    assert members_of(federation)["revoked"] == [before]


def test_who_left_and_was_revoked_comes_back_with_a_new_key(federation, make_consortium):
    kit = federation.kit("hospital-b")
    before, key = serial_of(kit), (kit / "startup" / "client.key").read_bytes()
    again(federation, make_consortium("hospital-a"))
    assert members_of(federation)["silos"] == ["hospital-a"]
    kits.revoke(Federation.load(federation.root), ["hospital-b"])
    again(federation, make_consortium())
    assert members_of(federation)["revoked"] == [before]
    assert (kit / "startup" / "client.key").read_bytes() != key


@pytest.mark.parametrize(("name", "problem"), [("server", "cannot be revoked"), ("hospital-x", "has no certificate")])
def test_what_cannot_be_revoked_is_refused(federation, name, problem):
    before = snapshot(federation.root)
    with pytest.raises(ConfigInvalid, match=problem):
        kits.revoke(federation, ["hospital-a", name])
    assert snapshot(federation.root) == before
    assert members_of(federation)["revoked"] == []


def state_of(federation):
    return federation.root / ".authority" / "trial" / "state" / "cert.json"


@pytest.mark.parametrize("content", ["[{", "{}", '[{"name": "hospital-b"}]', '[{"serial": "not hexadecimal"}]'])
def test_a_damaged_list_of_revoked_certificates_is_named_and_changes_nothing(federation, make_consortium, content):
    kits.revoke(federation, ["hospital-b"])
    record = federation.root / ".authority" / "revoked.json"
    whole = record.read_text()
    record.write_text(content)
    before = snapshot(federation.root)
    for act in (lambda: kits.revoke(federation, ["hospital-a"]), lambda: again(federation, make_consortium("hospital-b"))):
        with pytest.raises(ConfigInvalid) as refused:
            act()
        assert refused.value.where == str(record)
    assert snapshot(federation.root) == before
    record.write_text(whole)
    assert again(federation, make_consortium()) == []


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_list_of_what_was_handed_out_is_named_and_changes_nothing(federation, make_consortium, content):
    record = federation.root / ".authority" / "handed-out.json"
    record.write_text(content)
    kits = {name: snapshot(federation.kit(name)) for name in ("server", "hospital-a")}
    with pytest.raises(ConfigInvalid) as refused:
        again(federation, make_consortium("hospital-a", "hospital-b"))
    assert refused.value.where == str(record)
    assert kits == {name: snapshot(federation.kit(name)) for name in kits}
    record.unlink()
    again(federation, make_consortium("hospital-a", "hospital-b"))


def test_a_provisioning_that_is_cut_off_leaves_the_root_as_it_was(federation, make_consortium, monkeypatch, tmp_path):
    before = state_of(federation).read_bytes()
    cut_off = tmp_path / "nvflare"
    cut_off.write_text("#!/bin/sh\nfor file in */state/cert.json; do echo '{\"root' > $file; done\nexit 1\n")
    cut_off.chmod(0o700)
    monkeypatch.setattr("provisioning.authority.nvflare_command", lambda: [str(cut_off)])
    with pytest.raises(ProcessFailed):
        again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))
    assert state_of(federation).read_bytes() == before
    assert not (federation.root / ".authority" / ".making").exists()
    monkeypatch.undo()
    assert "hospital-c: made" in again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))


def test_without_the_roots_key_no_new_root_is_made(federation, make_consortium):
    offline = federation.root.parent / "offline"
    (federation.root / ".authority").rename(offline)
    before = snapshot(federation.root)
    with pytest.raises(ConfigInvalid, match="of a root whose key is not here") as caught:
        again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))
    assert "Put .authority back" in caught.value.remedy
    for change in (kits.renew, kits.revoke):
        options = {"within": timedelta(0)} if change is kits.renew else {}
        with pytest.raises(ConfigInvalid, match="of a root whose key is not here"):
            change(federation, ["hospital-a"], **options)
    assert snapshot(federation.root) == before
    assert not (federation.root / ".authority").exists()
    offline.rename(federation.root / ".authority")
    assert "hospital-c: made" in again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))


def test_nor_are_kits_given_the_root_of_another_federation(federation, make_consortium, tmp_path):
    other = kits.provision(make_consortium(), tmp_path / "other")
    shutil.rmtree(federation.root / ".authority")
    shutil.copytree(other.root / ".authority", federation.root / ".authority")
    with pytest.raises(ConfigInvalid, match="of a root whose key is not here"):
        again(federation, make_consortium())


def test_a_damaged_root_certificate_of_a_kit_is_put_back(federation, make_consortium):
    file = federation.kit("hospital-a") / "startup" / "rootCA.pem"
    content = file.read_bytes()
    file.write_text("damaged")
    assert again(federation, make_consortium()) == ["hospital-a: changed startup/rootCA.pem"]
    assert file.read_bytes() == content


def test_two_do_not_provision_one_folder_at_once(federation, make_consortium):
    with (
        authority.issue(make_consortium(), federation.root / ".authority") as staged,
        pytest.raises(NotReady, match="is provisioning here"),
    ):
        again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))
    assert not staged.exists()
    assert "hospital-c: made" in again(federation, make_consortium("hospital-a", "hospital-b", "hospital-c"))


@pytest.mark.parametrize("content", ["", "{}", '{"root', "[]", '{"root_cert": "x", "root_pri_key": "y"}'])
def test_a_damaged_root_is_never_replaced_by_a_new_one(federation, make_consortium, content):
    state_of(federation).write_text(content)
    with pytest.raises(ConfigInvalid, match="root's key is damaged"):
        again(federation, make_consortium())
    assert state_of(federation).read_text() == content


def test_the_gateway_can_be_left_out(federation, make_consortium):
    changes = again(federation, make_consortium(), with_gateway=False)
    assert changes == ["hospital-a: changed local/resources.json", "hospital-b: changed local/resources.json"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "another"}, "this folder belongs to the federation 'trial'"),
        ({"certificates": {"root_valid_days": 30}}, "the root certificate was made for 3650 days"),
    ],
)
def test_what_would_need_a_new_root_is_refused(federation, make_consortium, changes, problem):
    before = snapshot(federation.root)
    with pytest.raises(ConfigInvalid, match=problem):
        again(federation, make_consortium(**changes))
    assert snapshot(federation.root) == before


def test_the_servers_stores_lie_in_its_kit_unless_its_home_is_elsewhere(federation, make_consortium):
    resources = federation.kit("server") / "local" / "resources.json"
    assert '"/srv/trial/server/store/jobs"' in resources.read_text()
    assert again(federation, make_consortium(server={"port": 0})) == ["server: changed local/resources.json"]
    assert f'"{federation.kit("server")}/store/jobs"' in resources.read_text()


def test_a_path_with_a_space_is_refused(tmp_path, make_consortium):
    with pytest.raises(ConfigInvalid, match="holds a space"):
        kits.provision(make_consortium(), tmp_path / "my federation")
    assert not (tmp_path / "my federation").exists()


def test_what_nvflare_refuses_is_shown(tmp_path, make_consortium, monkeypatch):
    monkeypatch.setattr("provisioning.authority.project", lambda _: {"api_version": 1, "name": "trial"})
    with pytest.raises(ProcessFailed, match="API version"):
        kits.provision(make_consortium(), tmp_path / "federation")


def test_the_roots_key_is_private_and_no_kit_holds_it(provisioned):
    state = provisioned.root / ".authority" / "trial" / "state" / "cert.json"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    secret = json.loads(state.read_text())["root_pri_key"].encode()
    held = [path for path in provisioned.root.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert held == []
    assert not list((provisioned.root / ".authority").rglob("*.key"))


def test_the_description_of_the_project_is_what_nvflare_got(provisioned):
    project = yaml.safe_load((provisioned.root / ".authority" / "project.yml").read_text())
    roles = {person["name"]: person["role"] for person in project["participants"] if person["type"] == "admin"}
    assert roles == {"lead@trial.example": "lead", "admin@trial.example": "project_admin"}
    assert os.access(provisioned.root, os.W_OK)
