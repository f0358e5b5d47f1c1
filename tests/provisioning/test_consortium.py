from pathlib import Path

import pytest
from nvflare.fuel.utils.argument_utils import parse_vars
from pydantic import ValidationError

from provisioning.consortium import Consortium, SiloEntry, read
from silo_app.config import CsvLabels, SiloConfig
from silo_app.errors import ConfigInvalid, InputError

EXAMPLE = Path(__file__).parents[2] / "provisioning" / "consortium.yaml"


def test_the_example_has_three_hospitals_and_needs_nothing_else():
    example = read(EXAMPLE)
    assert example.silo_names == ("hospital-a", "hospital-b", "hospital-c")
    assert all(silo.display_name for silo in example.silos)
    assert example.participants == (
        "server",
        "anchor",
        "hospital-a",
        "hospital-b",
        "hospital-c",
        "lead@siloscope.example",
        "admin@siloscope.example",
    )


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "nothing.yaml")


def test_every_problem_is_reported_at_once(tmp_path):
    file = tmp_path / "consortium.yaml"
    file.write_text(
        "name: Trial One\n"
        "server: {port: 70000, sheme: tcp}\n"
        "certificates: {root_valid_days: 0}\n"
        "silos: [{name: st-anna}, {name: Hospital A, organisation: St. Anna}]\n"
        "researchers: [{name: nobody, role: king}]\n"
    )
    with pytest.raises(ConfigInvalid) as caught:
        read(file)
    keys = [line.removeprefix(f"{file}:").split(":")[0] for line in caught.value.problem.splitlines()]
    assert keys == [
        "name",
        "server.port",
        "server.sheme",
        "certificates.root_valid_days",
        "silos.1.name",
        "silos.1.organisation",
        "researchers.0.name",
        "researchers.0.role",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"silos": [{"name": "hospital-a"}, {"name": "hospital-a"}]},
        {"silos": [{"name": "anchor"}]},
        {"silos": [{"name": "server"}]},
        {"anchor": "server"},
        {"operator": {"name": "lead@trial.example"}},
        {"silos": [{"name": "keep-search"}], "keep": ["search"]},
    ],
)
def test_names_must_differ(changes, make_consortium):
    with pytest.raises(ValidationError, match="names must differ"):
        make_consortium(**changes)


@pytest.mark.parametrize(
    "name", ["1234", "007", "1e5", "1_000", "inf", "nan", "true", "t", "yes", "y", "no", "f", "False", "N"]
)
def test_what_nvflare_does_not_read_as_a_name_is_none(name, make_consortium):
    assert not isinstance(parse_vars([f"uid={name}"])["uid"], str)
    changes = [{"silos": [{"name": "hospital-a", "organisation": name}]}]
    if name.islower() or name.isdigit():
        changes += [{"silos": [{"name": name}]}, {"anchor": name}] if "_" not in name else []
    for change in changes:
        with pytest.raises(ValidationError, match="as a number or as yes or no"):
            make_consortium(**change)


def test_nor_is_one_of_which_the_organisation_is_a_number(make_consortium):
    assert parse_vars(["org=1_000"]) == {"org": 1000}
    with pytest.raises(ValidationError, match="as a number or as yes or no"):
        make_consortium("1-000")


@pytest.mark.parametrize("name", ["1-st-anna", "e5", "on", "off", "none", "all", "yes-or-no", "infirmary"])
def test_what_nvflare_reads_as_a_name_is_one(name, make_consortium):
    assert parse_vars([f"uid={name}"]) == {"uid": name}
    assert make_consortium(name).silo_names == (name,)


def test_a_name_fits_into_a_certificate(make_consortium):
    assert make_consortium(operator={"name": "a" * 50 + "@trial.example"})
    with pytest.raises(ValidationError, match="at most 64 characters"):
        make_consortium(operator={"name": "a" * 60 + "@trial.example"})


@pytest.mark.parametrize("silos", [[], None])
def test_a_federation_has_hospitals(silos):
    with pytest.raises(ValidationError):
        Consortium.model_validate({"name": "trial", "silos": silos})


def test_the_operator_is_the_projects_administrator_whatever_the_file_says(make_consortium):
    operator = {"name": "admin@trial.example", "role": "member"}
    assert make_consortium(operator=operator).operator.role == "project_admin"


def test_a_silo_gets_what_the_file_gives_and_defaults_for_the_rest(make_consortium):
    given = {
        "name": "st-anna",
        "display_name": "St. Anna",
        "sources": [{"path": "/data/dicom"}],
        "labels": {"kind": "csv", "path": "/data/labels.csv"},
        "release": {"max_hits": 3},
    }
    config = make_consortium(silos=[given]).silos[0].config()
    assert config == SiloConfig(
        name="st-anna",
        display_name="St. Anna",
        sources=({"path": "/data/dicom"},),
        labels=CsvLabels(path=Path("/data/labels.csv")),
        release={"max_hits": 3},
    )


def test_an_organisation_is_made_of_the_name(make_consortium):
    assert make_consortium("st-anna-2").silos[0].org == "st_anna_2"


def test_a_silo_may_be_provisioned_with_its_archive():
    sources = [
        {"path": "/data/dicom"},
        {"kind": "dicomweb", "name": "web", "url": "https://pacs.example/dicom-web", "token_file": "token"},
        {"kind": "dimse", "name": "pacs", "host": "127.0.0.1", "port": 4242, "ae_title": "PACS"},
        {"kind": "listen", "name": "router", "peers": ["ROUTER"]},
    ]
    entry = SiloEntry.model_validate({"name": "st-anna", "sources": sources})
    assert [source.kind for source in entry.config().sources] == ["folder", "dicomweb", "dimse", "listen"]
    assert SiloConfig.model_validate(entry.config().model_dump(mode="json")) == entry.config()
