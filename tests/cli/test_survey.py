"""`silo survey`: silos side by side, for people, programs and as a page; a record from a server is read with care."""

import json
import re

import pytest
from typer.testing import CliRunner

from silo_app.cli.survey import app
from silo_app.errors import MessageInvalid, NotReady
from silo_app.privacy.questions import TABLES


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def record():
    def counts(women):
        told = {table.name: [25] * len(table.labels) for table in TABLES}
        return told | {"patients": [400], "sex": [women, 400 - women, 0, 0], "finding:Mass": [300, 100, 0]}

    def terms(epsilon):
        return {"min_count": 11, "epsilon": epsilon, "spent": epsilon or 0, "day": "2026-11-23"}

    return {
        "schema_version": 1,
        "silos": {
            "st-anna": {"terms": terms(None), "counts": counts(380)},
            "st-bruno": {"terms": terms(5.0), "counts": counts(20)},
        },
        "refused": {"st-clara": {"code": "release-refused", "public": "The silo's policy does not allow this."}},
        "missing": ["<b>st-denis"],
    }


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "job" / "workspace"
    folder.mkdir(parents=True)
    path = folder / "survey.json"
    path.write_text(json.dumps(record()))
    return path


def test_a_downloaded_job_as_json(file):
    data = json.loads(run("show", file.parents[1], "--format", "json").stdout)["data"]
    tables = {table["name"]: table for table in data["tables"]}
    assert tables["sex"]["counts"] == {"st-anna": [380, 20, 0, 0], "st-bruno": [20, 380, 0, 0]}
    (pair,) = tables["sex"]["distances"]
    assert pair["silos"] == ["st-anna", "st-bruno"]
    assert pair["clear"]
    assert pair["distance"] > 0.7 > pair["by_chance"]
    assert tables["age"]["distances"][0]["distance"] == 0
    assert data["refused"] == {"st-clara": "The silo's policy does not allow this."}


def test_for_people(file):
    text = run("show", file).stdout
    assert "st-anna: drawn 2026-11-23, no noise, counts from 11" in text
    assert "st-bruno: drawn 2026-11-23, noise of epsilon 5, counts from 11" in text
    assert "st-clara: refused" in text
    assert re.search(r"Sex\s+st-anna and st-bruno\s+0\.\d\d\s+0\.\d\d", text)
    assert re.search(r"\d+ of \d+ distances are such as chance and noise give", text)


def test_page_stands_alone_and_escapes_what_a_server_sent(file, tmp_path):
    page = tmp_path / "survey.html"
    assert run("show", file, "--html", page).exit_code == 0
    text = page.read_text()
    assert not re.search(r"""<script|(src|href)=|url\(|https?://""", text)
    assert "<b>st-denis" not in text
    assert "&lt;b&gt;st-denis" in text
    assert text.count('<svg class="chart"') == sum(table.ordered for table in TABLES)
    assert "25 % of 400" in text
    assert '<td class="number">5.0</td>' in text


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r | {"schema_version": 2},
        lambda r: r | {"silos": 7},
        lambda r: r | {"silos": {"a": {"terms": {}, "counts": {}}}},
        lambda r: {},
        lambda r: [],
        lambda r: r["silos"]["st-anna"]["counts"].update({"sex": [1]}) or r,
        lambda r: r["silos"]["st-anna"]["counts"].update({"sex": [1, 2, 3, -4]}) or r,
    ],
)
def test_a_record_that_is_none_is_refused(file, change):
    file.write_text(json.dumps(change(record())))
    assert isinstance(run("show", file).exception, MessageInvalid)


def test_no_json_and_no_record(file, tmp_path):
    file.write_text("[" * 100_000)
    assert isinstance(run("show", file).exception, MessageInvalid)
    assert isinstance(run("show", tmp_path / "nothing").exception, NotReady)


def test_tables_of_a_newer_version_are_passed_over(file):
    changed = record()
    changed["silos"]["st-anna"]["counts"]["moon"] = [1]
    file.write_text(json.dumps(changed))
    assert run("show", file).exit_code == 0


def test_status_and_renewal(make_silo, tmp_path, make_dicom):
    from silo_app.imaging.ingest import ingest

    home = make_silo(survey={"epsilon": 5.0, "epsilon_total": 5.0})
    assert "has told no survey anything yet" in run("status", "--silo", home.kit).stdout
    (tmp_path / "source" / "1.dcm").write_bytes(make_dicom())
    ingest(home)
    assert json.loads(run("renew", "--silo", home.kit, "--format", "json").stdout)["data"]["spent"] == 5.0
    text = run("status", "--silo", home.kit).stdout
    assert "spent: 5 of 5" in text
    assert "noise of epsilon 5 a release" in text
    assert run("renew", "--silo", home.kit).exit_code != 0
