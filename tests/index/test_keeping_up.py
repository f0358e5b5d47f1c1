"""When an index is brought up to date by itself, and when it is left alone; builds are stood in for by small processes."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from silo_app.cases import EncoderVersion, PatientKey, Split
from silo_app.catalogue import Catalogue, FileRecord, ViewKeys, ViewRecord
from silo_app.config import IndexSettings, MilvusSettings
from silo_app.encoder.current import set_current
from silo_app.errors import IndexDamaged
from silo_app.index.build import build_generation
from silo_app.index.generations import building, open_current
from silo_app.index.keeping_up import KeepingUp, Pace
from silo_app.index.manifest import read_manifest
from silo_app.index.storage import Storage

ENCODER, OTHER = EncoderVersion("ab" * 16), EncoderVersion("cd" * 16)
DONE = json.dumps({"status": "ok", "data": {"generation": "000002", "cases": 3}})
FAILED = json.dumps({"status": "error", "error": {"code": "not-ready", "problem": "no room", "where": "", "remedy": ""}})


def digest(number):
    return f"{number:064x}"


def put(home, *numbers):
    with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
        for name in map(digest, numbers):
            keys = ViewKeys(instance=name, study=name, study_uid=name, accession="", patient=PatientKey("p"), patient_id="p")
            writer.add_view(ViewRecord(digest=name, keys=keys, split=Split.TRAIN))
            writer.record_file(FileRecord(source="s", path=name, size=1, mtime_ns=1, recipe="r", digest=name))


def drop(home, number):
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        writer.forget_files("s", [digest(number)])
        writer.drop_orphans()


def embed(digests):
    return np.stack([np.random.default_rng(int(name, 16)).standard_normal(8) for name in digests]).astype(np.float32)


def build(home, encoder=ENCODER):
    return build_generation(home, encoder, embed)


class Builds(KeepingUp):
    """Keeps up by running `script`, at times of its own, and remembers when it did."""

    def __init__(self, home, script=f"print({DONE!r})", **options):
        self.now, self.begun, self.renewals = 0.0, [], []
        super().__init__(
            home,
            lambda: self.renewals.append(self.now),
            clock=lambda: self.now,
            command=[sys.executable, "-c", script],
            **options,
        )

    def _build(self, missing):
        self.begun.append((self.now, missing))
        super()._build(missing)

    def looks(self, *times):
        for self.now in times:
            self.look()
        return self.begun


@pytest.fixture
def home(make_silo):
    """Three views, all in the index, made with the silo's current encoder."""
    made = make_silo()
    made.root.mkdir()
    made.models.mkdir()
    put(made, 1, 2, 3)
    set_current(made.models, ENCODER)
    build(made)
    return made


@pytest.fixture
def keeping(home):
    made = []

    def make(*arguments, **options):
        made.append(Builds(home, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def until(condition, limit_s=20.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_new_views_are_a_reason_to_build(home, keeping):
    keeps = keeping()
    assert keeps.looks(0, 2, 4) == []
    put(home, 4, 5)
    assert keeps.looks(6) == [(6, 2)]


def test_a_catalogue_that_was_filled_anew_is_a_reason_to_build_though_its_images_are_the_same(home, keeping):
    keeps = keeping()
    assert keeps.looks(0) == []
    home.catalogue.rename(home.catalogue.with_name("lost.db"))
    put(home, 1, 2, 3)
    assert keeps.looks(2) == [(2, 3)]
    assert build_generation(home, ENCODER, embed, only_new=True).reused == 3
    with Catalogue.open(home.catalogue) as catalogue:
        assert {view.case for view in catalogue.views()} == {
            row.tobytes().hex() for row in open_current(home.index).gallery.row_cases
        }
    assert keeps.looks(100) == [(2, 3)]


def test_what_a_damaged_generation_had_is_missing(home, keeping):
    put(home, 4)
    build(home)
    file = home.index / "000002" / "gallery.faiss"
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1])
    assert keeping().looks(0) == [(0, 1)]


def test_a_damaged_generation_is_replaced_though_no_view_is_missing(home, keeping):
    build(home)
    keeps = keeping()
    assert keeps.looks(0) == []
    (home.index / "000002" / "gallery.faiss").unlink()
    keeps.close()
    keeps = keeping()
    assert keeps.looks(0) == [(0, 0)]
    assert build_generation(home, ENCODER, embed, only_new=True).info.generation == "000003"
    assert keeps.looks(100) == [(0, 0)]


@pytest.fixture
def in_milvus(make_silo):
    """Two generations in Milvus, of views 1 and 2, and of 1, 2 and 3."""
    made = make_silo(index={"held_in": "milvus", "milvus": {"uri": "milvus.db"}})
    made.root.mkdir()
    made.models.mkdir()
    set_current(made.models, ENCODER)
    put(made, 1, 2)
    build(made)
    put(made, 3)
    build(made)
    return made


def lose(home, *generations):
    """Have Milvus lose the collections of generations, as when somebody drops them."""
    lost = {read_manifest(home.index / name).collection for name in generations}
    Storage.of(home).tidy(Storage.of(home).collections() - lost)


def test_what_milvus_lost_is_a_reason_to_build(in_milvus):
    keeps = Builds(in_milvus)
    assert keeps.looks(0, 2) == []
    lose(in_milvus, "000002")
    assert keeps.looks(4, 28) == []
    assert keeps.looks(32) == [(32, 1)]
    assert build_generation(in_milvus, ENCODER, embed, only_new=True).info.generation == "000003"
    assert keeps.looks(100, 200) == [(32, 1)]
    keeps.close()


def test_that_milvus_lost_all_is_said(in_milvus):
    keeps = Builds(in_milvus)
    assert keeps.looks(0) == []
    lose(in_milvus, "000001", "000002")
    with pytest.raises(IndexDamaged, match="none of the generations 000001, 000002"):
        keeps.looks(30)
    build(in_milvus)
    assert keeps.looks(60, 100) == []
    keeps.close()


def test_a_milvus_that_does_not_answer_has_lost_nothing(in_milvus):
    keeps = Builds(in_milvus)
    assert keeps.looks(0) == []
    keeps._storage = Storage(IndexSettings(held_in="milvus", milvus=MilvusSettings(uri="http://127.0.0.1:9", timeout_s=1.0)))
    assert keeps.looks(30) == []
    keeps.close()


def test_views_that_left_are_none(home, keeping):
    keeps = keeping()
    drop(home, 2)
    assert keeps.looks(0, 2) == []
    put(home, 4)
    assert keeps.looks(4) == [(4, 1)]


def test_a_first_index_is_never_made(make_silo):
    home = make_silo()
    home.root.mkdir()
    keeps = Builds(home)
    assert keeps.looks(0) == []
    home.models.mkdir()
    put(home, 1)
    set_current(home.models, ENCODER)
    assert keeps.looks(2, 40) == []
    build(home)
    put(home, 2)
    assert keeps.looks(50) == [(50, 1)]
    keeps.close()


def test_an_index_of_another_encoder_than_the_current_one_is_left_alone(home, keeping, monkeypatch):
    keeps = keeping()
    assert keeps.looks(0) == []
    set_current(home.models, OTHER)
    put(home, 4)
    with monkeypatch.context() as patched:
        patched.setattr("silo_app.index.generations.read_rows", None)  # its manifest says enough
        assert keeps.looks(20, 40) == []
    set_current(home.models, ENCODER)
    assert keeps.looks(80) == [(80, 1)]


def test_a_silo_whose_encoder_is_gone_is_left_alone(home, keeping):
    (home.models / "current").unlink()
    put(home, 4)
    assert keeping().looks(0, 40) == []


def test_while_nothing_changes_nothing_is_compared(home, keeping, monkeypatch):
    keeps = keeping()
    keeps.looks(0)
    monkeypatch.setattr(Catalogue, "contents", None)
    monkeypatch.setattr("silo_app.index.keeping_up.indexed", None)
    assert keeps.looks(2, 4, 6) == []


def test_another_generation_is_taken_though_nobody_asks(home, keeping):
    keeps = keeping()
    keeps.looks(0, 2)
    build(home)
    keeps.looks(4, 6)
    assert keeps.renewals == [4]


def test_builds_begin_half_a_minute_apart_at_least(home, keeping):
    keeps = keeping()
    put(home, 4)
    assert keeps.looks(*range(0, 62, 2)) == [(0, 1), (30, 1), (60, 1)]


@pytest.mark.parametrize(
    ("took_s", "failures", "pause_s"),
    [(1, 0, 30), (10, 0, 30), (100, 0, 300), (1, 1, 30), (1, 2, 60), (1, 4, 240), (1, 99, 1800), (2000, 9, 6000)],
)
def test_the_pause_grows_with_what_a_build_takes_and_how_often_it_failed(took_s, failures, pause_s):
    assert Pace().pause_s(took_s, failures) == pause_s


def test_builds_that_fail_are_tried_ever_more_seldom_and_said_in_one_line(home, keeping, caplog):
    keeps = keeping(f"print({FAILED!r}); raise SystemExit(2)")
    put(home, 4)
    begun = [at for at, _ in keeps.looks(*range(0, 500, 2))]
    assert begun == [0, 30, 90, 210, 450]
    assert len(caplog.records) == 5
    assert "next try in 240 s: " in caplog.text
    assert "no room (not-ready)" in caplog.text


def test_views_whose_radiographs_are_lost_are_built_for_once_until_the_catalogue_changes(home, keeping, caplog):
    lacking = json.dumps({"status": "ok", "data": {"generation": "000001", "cases": 3, "lacking": 1}})
    keeps = keeping(f"print({lacking!r})")
    put(home, 4)
    assert keeps.looks(*range(0, 500, 2)) == [(0, 1)]
    assert "1 views are not searchable" in caplog.text
    put(home, 5)
    assert keeps.looks(500, 600) == [(0, 1), (500, 2)]


def test_what_is_ingested_while_a_build_lacks_something_is_not_passed_over(home, keeping):
    keeps = keeping()
    lacking = json.dumps({"status": "ok", "data": {"generation": "000002", "cases": 4, "lacking": 1}})
    outcome = keeps._outcome

    def meanwhile(child):
        outcome(child)
        if len(keeps.begun) == 1:
            build(home)
            put(home, 6)
        return lacking, ""

    keeps._outcome = meanwhile
    put(home, 4, 5)
    assert keeps.looks(0, 2, 40) == [(0, 2), (40, 1)]


def test_a_manual_build_ends_the_pauses_growth(home, keeping):
    keeps = keeping(f"print({FAILED!r})")
    put(home, 4)
    keeps.looks(0, 30, 90)
    build(home)
    put(home, 5)
    assert [at for at, _ in keeps.looks(*range(92, 250, 2))][3:] == [210, 240]


def test_while_somebody_else_builds_nothing_is_read_nor_begun(home, keeping, monkeypatch):
    keeps = keeping()
    put(home, 4)
    with building(home.index), monkeypatch.context() as patched:
        patched.setattr(Catalogue, "contents", None)
        patched.setattr("silo_app.index.keeping_up.indexed", None)
        assert keeps.looks(0, 2, 4) == []
    assert keeps.looks(6) == [(6, 1)]


ENDLESS = """
import sys, time
from pathlib import Path
from silo_app.index.generations import building
with building(Path(sys.argv[1])):
    Path(sys.argv[1], ".000002.part").mkdir()
    Path(sys.argv[1]).with_name("begun").touch()
    time.sleep(60)
"""


def test_a_build_that_is_killed_in_the_middle_costs_nothing_but_itself(home, keeping, caplog):
    keeps = keeping()
    keeps._command += [str(home.index)]
    keeps._command[2] = ENDLESS
    put(home, 4)
    thread = threading.Thread(target=keeps.looks, args=(0,))
    thread.start()
    until((home.root / "begun").exists)
    (child,) = builds(home)
    until(lambda: os.getpriority(os.PRIO_PROCESS, child) == 19)
    os.kill(child, signal.SIGKILL)
    thread.join(20)
    assert "ended with status -9" in caplog.text
    assert open_current(home.index).info.generation == "000001"
    keeps._command[2] = f"print({DONE!r})"
    assert [at for at, _ in keeps.looks(2, 28, 30)] == [0, 30]
    assert build(home).embedded == 1
    assert not list(home.index.glob(".*.part"))


def test_a_build_ends_with_us(home, keeping):
    keeps = keeping(pace=Pace(look_s=0.01))
    keeps._command += [str(home.index)]
    keeps._command[2] = ENDLESS
    put(home, 4)
    keeps.start()
    until((home.root / "begun").exists)
    (child,) = builds(home)
    begun = time.monotonic()
    keeps.close()
    assert time.monotonic() - begun < 5
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert build(home).embedded == 1


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_thread_outlives_whatever_a_look_meets(home, keeping, caplog):
    keeps = keeping(pace=Pace(look_s=0.01))
    (home.index / "000001" / "manifest.json").chmod(0o600)
    (home.index / "000001" / "manifest.json").write_text("{")
    keeps.start()
    until(lambda: "is as it was written" in caplog.text)
    time.sleep(0.1)
    assert len(caplog.records) == 1
    assert keeps._thread.is_alive()


def test_a_silo_can_do_without(make_silo, home):
    keeps = Builds(make_silo(index={"keep_up": False}), pace=Pace(look_s=0.01))
    put(home, 4)
    keeps.start()
    assert keeps._thread is None
    keeps.close()


def builds(home):
    """The processes that build this index; other tests may have left this process children of theirs."""
    return [child.pid for child in psutil.Process().children() if str(home.index) in child.cmdline()]
