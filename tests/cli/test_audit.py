"""`silo audit`: planted cases, and who found them."""

import gzip
import json
import lzma
import time
import tracemalloc

import pytest
from typer.testing import CliRunner

from silo_app.audit import kept
from silo_app.audit.log import AuditLog
from silo_app.catalogue import Catalogue
from silo_app.cli.main import app
from silo_app.errors import AuditDamaged, CaseUnknown, NotReady
from silo_app.imaging.ingest import ingest
from silo_app.policy.canaries import read_canaries
from silo_app.printable import is_printable


@pytest.fixture
def home(make_silo, tmp_path, make_dicom, make_picture):
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "1.dcm").write_bytes(make_dicom(make_picture(24, 20)))
    home = make_silo()
    ingest(home, workers=1)
    return home


def run(home, *words):
    return CliRunner().invoke(app, ["audit", words[0], "--silo", str(home.kit), *words[1:]])


def case_of(home):
    with Catalogue.open(home.catalogue) as catalogue:
        (view,) = catalogue.views()
    return view.case


def test_planting_and_taking_away(home):
    case = case_of(home)
    assert "1 planted" in run(home, "plant", case).stdout
    assert read_canaries(home.canaries) == {case}
    assert "0 planted" in run(home, "unplant", case).stdout
    assert read_canaries(home.canaries) == set()


def test_who_names_a_case_that_is_not_planted_is_told(home):
    case = case_of(home)
    run(home, "plant", case)
    done = run(home, "unplant", case[:8])
    assert (done.exit_code, done.stdout) == (0, "1 planted cases\n")
    assert f"{case[:8]} was not planted" in done.stderr
    assert not run(home, "unplant", case).stderr


def test_a_case_that_the_silo_does_not_hold_changes_nothing(home):
    run(home, "plant", case_of(home))
    assert isinstance(run(home, "plant", "0" * 32).exception, CaseUnknown)
    assert read_canaries(home.canaries) == {case_of(home)}


@pytest.mark.parametrize("output", ["table", "json"])
def test_what_an_older_log_holds_of_a_stranger_hides_no_alert(home, output):
    user = "x\x1b[2K\rno alerts\x9b8m\u202e\n"
    log = AuditLog(home.audit)
    log.append("canary", {"asker": "north", "user": user, "purpose": "care", "query": "q", "cases": ["c"]})
    log.close()
    printed = run(home, "alerts", "--format", output).stdout
    assert printed.count("\n") == 1
    assert is_printable(printed.removesuffix("\n"))
    if output == "json":
        assert json.loads(printed)["data"][0]["user"] == user
    else:
        assert "north  x\ufffd[2K\ufffdno alerts\ufffd8m\ufffd\ufffd  care  c" in printed


def test_alerts_are_the_findings_of_planted_cases(home):
    assert "no alerts" in run(home, "alerts").stdout
    log = AuditLog(home.audit)
    log.append("whois", {"user": "u"})
    log.append("canary", {"asker": "north", "user": "x", "purpose": "care", "query": "q", "cases": ["c"]})
    log.close()
    (found,) = json.loads(run(home, "alerts", "--format", "json").stdout)["data"]
    assert (found["asker"], found["cases"]) == ("north", ["c"])
    assert "north" in run(home, "alerts").stdout
    home.audit.write_text(home.audit.read_text().replace("north", "south"))
    assert isinstance(run(home, "alerts").exception, AuditDamaged)


def alert(home, asker):
    log = AuditLog(home.audit)
    log.append("canary", {"asker": asker, "user": "x", "purpose": "care", "query": "q", "cases": ["c"]})
    log.close()


def test_alerts_before_the_log_was_rotated_are_listed_too(home):
    folder = home.audit.parent
    names = ["audit.jsonl.2.gz", "audit.jsonl-20261130.xz", "audit-20261201.jsonl", "audit.jsonl.1", "audit.jsonl"]
    for number, name in enumerate(names):
        alert(home, f"silo-{number}")
        content = home.audit.read_bytes()
        home.audit.unlink()
        time.sleep(0.002)  # the next one is of another millisecond
        packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(folder.joinpath(name).suffix, bytes)(content)
        (folder / name).write_bytes(packed)
    (folder / "audit.jsonl.3").write_bytes((folder / "audit.jsonl.1").read_bytes())  # a copy tells nothing new
    (folder / "audit.jsonl.damaged").write_text("moved away")
    found = json.loads(run(home, "alerts", "--format", "json").stdout)["data"]
    assert [one["asker"] for one in found] == [f"silo-{number}" for number in range(5)]
    home.audit.unlink()
    assert run(home, "alerts").stdout.count("\n") == 4


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("audit.jsonl.1", b"{}\n", "audit.jsonl.1:1"),
        ("audit.jsonl.1.gz", gzip.compress(b"x" * 100, mtime=0)[:-9], "audit.jsonl.1.gz: it cannot be unpacked"),
        ("audit.jsonl.1.gz", b"no archive", "audit.jsonl.1.gz: it cannot be unpacked"),
        ("audit.jsonl.1.xz", b"no archive", "audit.jsonl.1.xz: it cannot be unpacked"),
    ],
)
def test_an_older_log_that_cannot_be_read_is_no_silence(home, name, content, says):
    alert(home, "north")
    (home.audit.parent / name).write_bytes(content)
    error = run(home, "alerts").exception
    assert isinstance(error, AuditDamaged)
    assert says in str(error)


def test_alerts_are_not_missed_where_the_log_is_rotated_meanwhile(home, monkeypatch):
    alert(home, "north")
    really = kept._verify

    def rotated(*given):
        home.audit.rename(home.audit.with_name("audit.jsonl.1"))
        return really(*given)

    monkeypatch.setattr(kept, "_verify", rotated)
    error = run(home, "alerts").exception
    assert isinstance(error, NotReady)
    assert "is being rotated" in str(error)


def test_a_log_of_years_does_not_have_to_fit_into_memory(home):
    log = AuditLog(home.audit)
    log.append_all([("answer", {"asker": "north", "released": [f"{i:032x}" for i in range(20)]})] * 10_000)
    log.close()
    run(home, "alerts")
    tracemalloc.start()
    assert "no alerts" in run(home, "alerts").stdout
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < home.audit.stat().st_size / 4


def test_a_whole_log_is_told_file_by_file_with_its_last_digest(home):
    alert(home, "silo-1")
    home.audit.rename(home.audit.with_name("audit.jsonl.1"))
    alert(home, "silo-2")
    told = json.loads(run(home, "verify", "--format", "json").stdout)["data"]
    assert [file["names"] for file in told["files"]] == [["audit.jsonl.1"], ["audit.jsonl"]]
    shown = run(home, "verify", "--noted", told["digest"]).stdout
    assert "audit.jsonl.1: 20" in shown
    assert f"The log is whole. Note its last digest elsewhere: {told['digest']}" in shown


def test_a_log_that_is_not_whole_is_an_error(home):
    for number in range(3):
        alert(home, f"silo-{number}")
        home.audit.rename(home.audit.with_name(f"audit.jsonl.{number}"))
    home.audit.with_name("audit.jsonl.1").unlink()
    error = run(home, "verify").exception
    assert isinstance(error, AuditDamaged)
    assert "audit.jsonl.2 continues a line that is in no file" in str(error)
    assert isinstance(run(home, "verify", "--noted", "ab" * 32).exception, AuditDamaged)


def test_nothing_written_yet_is_said(home):
    home.audit.unlink(missing_ok=True)
    assert run(home, "verify").stdout == "nothing was written yet\n"
