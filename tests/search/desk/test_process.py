"""The asking process: what it answers, what it refuses, and that nothing that it is sent ends it."""

import errno
import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.encoder.embed import load_encoder
from silo_app.encoder.region import Region
from silo_app.encoder.transforms import squared
from silo_app.errors import Busy, CaseUnknown, ConfigInvalid, ImageUnsupported, MessageInvalid, NotReady, ProcessFailed
from silo_app.imaging.cache import RadiographCache, as_cached
from silo_app.imaging.radiograph import read_radiograph
from silo_app.index import generations
from silo_app.pages.search import search_page
from silo_app.policy.filters import Filters
from silo_app.search import local
from silo_app.search.desk import process as process_module
from silo_app.search.desk.client import Desk, find_soonest
from silo_app.search.desk.messages import DeskAsked, DeskError, DeskSearch, Sought
from silo_app.search.desk.process import DeskProcess
from silo_app.search.examples import Example
from silo_app.search.find import Wanted, as_data, find
from silo_app.search.query import Refinement
from silo_app.search.rocchio import Weights
from silo_app.search.wire import decode, encode

UID = "1.2.826.0.1.31415926"
UNHURRIED = 20_000
ROOT = Path(__file__).parents[3]


def wanted(example, **options):
    return Wanted(example=example, **{"budget_ms": UNHURRIED, "user": "dr.x"} | options)


def variants(asking):
    file, case, uid = Example(file=asking.file), Example(case=asking.case), Example(uid=UID)
    moved = Refinement(more=[Example(file=asking.other)], less=[case], weights=Weights(more=0.5, less=0.25))
    return [
        wanted(file),
        wanted(file, k=3, purpose="research", filters=Filters(positions=("PA",))),
        wanted(file, refinement=moved),
        wanted(file, refinement=Refinement(region=Region(0.5, 0, 1, 0.5)), without_patient=True),
        wanted(case, k=25),
        wanted(Example(case=asking.case[:8])),
        wanted(uid),
        wanted(file, private=True),
    ]


def audited(asking):
    """What the audit log has of queries, without what differs between two of the same."""
    log = asking.home.audit
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [
        {name: value for name, value in line.items() if name not in {"at", "asked_query", "queries", "previous", "digest"}}
        for line in lines
        if line["event"] in {"asked", "shown"}
    ]


def test_it_finds_what_a_search_without_it_finds_and_both_are_audited_alike(asking, desk, same):
    for each in variants(asking):
        there, here = desk.search(each), find(asking.home, each)
        assert same(there.result) == same(here.result)
        assert (there.result.answered, there.preview) == (2, b"")
        first, second = audited(asking)[-2:]
        assert first == second
        assert first["user"] == "dr.x"


def test_the_preview_is_what_the_encoder_sees_and_an_own_cases_is_recorded(asking, desk, pixels):
    image = as_cached(read_radiograph(asking.file))  # 64 x 48, whose square has 32 x 24 of its 32 x 32 pixels
    expected = squared(image, 32)[:, 4:28]
    found = desk.search(wanted(Example(file=asking.file), preview=True))
    assert np.array_equal(pixels(found.preview), expected)
    assert [line["event"] for line in audited(asking)] == ["asked"]
    found = desk.search(wanted(Example(case=asking.case), preview=True))
    assert np.array_equal(pixels(found.preview), expected)
    assert [line["event"] for line in audited(asking)] == ["asked", "asked", "shown"]
    assert audited(asking)[-1]["cases"] == [asking.case]
    assert audited(asking)[-1]["user"] == "dr.x"


def test_what_is_like_a_region_is_compared_with_no_whole_images(asking, desk):
    file = Example(file=asking.file)
    whole = desk.search(wanted(file)).result.hits
    part = desk.search(wanted(file, refinement=Refinement(region=Region(0.5, 0, 1, 0.5)))).result.hits
    assert {hit.beyond is None for hit in whole} == {False}
    assert {hit.beyond for hit in part} == {None}


def test_the_image_itself_counts_for_no_neighbour_where_its_similarity_does_not_tell_it(asking, desk):
    file, case = Example(file=asking.file), Example(case=asking.case)
    part, moved = Refinement(region=Region(0.5, 0, 1, 0.5)), Refinement(more=[file])
    asked = [
        wanted(file),
        wanted(file, refinement=part),
        wanted(file, private=True),
        wanted(Example(file=asking.other), refinement=moved),
        wanted(case, refinement=part),
        wanted(Example(file=asking.other), refinement=Refinement(more=[case])),
    ]
    for each, listed in zip(asked, [True, True, True, True, False, False], strict=True):
        for found in (desk.search(each), find(asking.home, each)):
            data = as_data(found.result)
            assert (asking.case in {hit["case"] for hit in data["hits"]}) is listed
            page = search_page(data, private=each.private, own="north", itself=found.itself)
            assert page.count("(the image asked with)") == listed


def test_without_its_image_in_the_cache_a_case_is_searched_all_the_same(asking, desk):
    cache = RadiographCache(asking.home.cache)
    for digest in list(cache.digests()):
        cache.discard(digest)
    found = desk.search(wanted(Example(case=asking.case), preview=True))
    assert (found.result.answered, found.preview) == (2, b"")
    assert [line["event"] for line in audited(asking)] == ["asked"]


def test_of_an_image_that_is_new_its_patients_cases_are_left_out_too(asking, desk, make_dicom, make_picture, same):
    new = {"SOPInstanceUID": f"{UID}.9", "StudyInstanceUID": f"{UID}.9.1"}
    asked = wanted(Example(content=make_dicom(make_picture(seed=7), **new)), without_patient=True)
    there, here = desk.search(asked), find(asking.home, asked)
    assert same(there.result) == same(here.result)
    assert asking.case not in {hit.case for hit in there.result.hits}


def test_its_state_is_what_the_last_search_saw(asking, desk):
    state = desk.state()
    assert (state.encoder, state.encoder_version, state.silos, state.seen_at_ms) == ("ready", asking.version, {}, 0)
    assert (state.at_work, state.reachable) == (0, 0)
    desk.search(wanted(Example(file=asking.file)))
    state = desk.state()
    assert {name: silo.value for name, silo in state.silos.items()} == {"north": "answered", "south": "answered"}
    assert state.reachable == 2
    assert abs(state.seen_at_ms / 1000 - time.time()) < 60
    asking.gateway.close()
    desk.search(wanted(Example(file=asking.file)))
    assert set(desk.state().silos) == {"north"}


def test_every_error_comes_as_it_is_raised_without_the_desk(asking, desk, tmp_path):
    notes, empty, cut = tmp_path / "notes.txt", tmp_path / "empty.dcm", tmp_path / "cut.dcm"
    notes.write_text("not DICOM")
    empty.write_bytes(b"")
    cut.write_bytes(asking.file.read_bytes()[:-1000])
    file, unknown = Example(file=asking.file), Example(case="3f9c21aa")
    for each, kind in (
        (wanted(Example(file=notes)), ImageUnsupported),
        (wanted(Example(file=empty)), ImageUnsupported),
        (wanted(Example(file=cut)), ImageUnsupported),
        (wanted(Example(file=tmp_path / "nothing.dcm")), ImageUnsupported),
        (wanted(file, refinement=Refinement(less=[file, Example(file=notes)])), ImageUnsupported),
        (wanted(unknown), CaseUnknown),
        (wanted(Example(uid="1.2.3")), CaseUnknown),
        (wanted(file, refinement=Refinement(more=[unknown])), CaseUnknown),
        (wanted(file, refinement=Refinement(less=[file], weights=Weights(less=1))), ConfigInvalid),
        (wanted(file, private=True, filters=Filters(sexes=("F",))), NotReady),
    ):
        with pytest.raises(kind) as there:
            desk.search(each)
        with pytest.raises(kind) as here:
            find(asking.home, each)
        assert str(there.value) == str(here.value)
        assert (there.value.code, getattr(there.value, "reason", "")) == (here.value.code, getattr(here.value, "reason", ""))
    assert desk.search(wanted(file)).result.answered == 2


def test_what_cannot_be_asked_is_said_before_anything_is_sent(asking):
    desk = Desk.at(asking.home)  # which does not run
    for name, value in {"purpose": "No Purpose!", "user": "x" * 200, "k": 0, "budget_ms": 10**6}.items():
        with pytest.raises(ConfigInvalid, match=name):
            desk.search(wanted(Example(file=asking.file), **{name: value}))


def raw(**fields):
    return msgpack.packb(DeskSearch(sought=Sought(case="3f9c21aa")).model_dump() | fields)


def test_a_malformed_request_is_refused_and_costs_nothing_else(asking, desk):
    for frame, code in (
        (b"", "message-invalid"),
        (b"noise", "message-invalid"),
        (b"\x80\x04\x95pickle", "message-invalid"),
        (msgpack.packb({"kind": "request"}), "message-invalid"),
        (raw(version=2), "message-invalid"),
        (raw(more=[{"case": "3f9c21aa", "path": "/etc/passwd"}]), "message-invalid"),
        (raw(k=0), "message-invalid"),
        (raw(k="10"), "message-invalid"),
        (raw(user="x" * 129), "message-invalid"),
        (raw(region=[0.0, 0.0, 2.0, 2.0]), "message-invalid"),
        (raw(region=[0.0, 0.0, 0.01, 0.01]), "config-invalid"),
        (raw(sought={"case": "3f9c21aa", "uid": "1.2"}), "config-invalid"),
        (raw(sought={}), "config-invalid"),
    ):
        reply = decode(local.exchange(asking.home.desk_socket, frame, 20), DeskError)
        assert reply.code == code, frame
        assert reply.problem
        assert reply.remedy
    assert desk.state().encoder == "ready"


def test_an_oversized_request_is_not_sent_and_not_read(asking, desk, monkeypatch):
    monkeypatch.setattr(desk._connections, "_largest", 1000)
    with pytest.raises(MessageInvalid, match="the largest allowed is 1000"):
        desk.search(wanted(Example(file=asking.file)))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(asking.home.desk_socket))
        connection.sendall((2**32 - 1).to_bytes(4, "big"))
        assert connection.recv(1) == b""
    assert desk.state().encoder == "ready"


def test_images_that_have_no_room_are_told_so(asking, desk, monkeypatch):
    monkeypatch.setattr(local, "_SMALL", 1000)
    monkeypatch.setattr(asking.desks[-1]._server, "_room", 1000)
    with pytest.raises(Busy, match="as many searches as it takes on"):
        desk.search(wanted(Example(file=asking.file)))
    assert desk.search(wanted(Example(case=asking.case))).result.answered == 2


def test_another_account_is_not_listened_to(asking, desk, monkeypatch, caplog):
    assert stat.S_IMODE(asking.home.desk_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(asking.home.desk_socket.parent.stat().st_mode) == 0o700
    other = os.geteuid() + 1
    monkeypatch.setattr(local.os, "geteuid", lambda: other)
    stranger = Desk.at(asking.home)
    assert not stranger.runs
    with pytest.raises(ProcessFailed):
        stranger.search(wanted(Example(file=asking.file)))
    monkeypatch.undo()
    assert stranger.runs
    assert "another account" in caplog.text
    assert audited(asking) == []


class Held:
    """Searches that wait until they may go on."""

    def __init__(self, monkeypatch):
        self.begun, self.go_on, self.find = threading.Semaphore(0), threading.Event(), process_module.find
        monkeypatch.setattr(process_module, "find", self.wait)

    def wait(self, *arguments, **options):
        self.begun.release()
        assert self.go_on.wait(60)
        return self.find(*arguments, **options)


def test_one_search_too_many_is_told_that_it_is_busy(asking, monkeypatch):
    desk, held = asking.open_desk(at_once=2), Held(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(desk.search, wanted(Example(file=asking.file))) for _ in range(2)]
        assert all(held.begun.acquire(timeout=20) for _ in running)
        assert desk.state().at_work == 2
        with pytest.raises(Busy) as raised:
            desk.search(wanted(Example(file=asking.file)))
        assert "Ask again" in raised.value.remedy
        held.go_on.set()
        assert [each.result().result.answered for each in running] == [2, 2]
    assert desk.search(wanted(Example(file=asking.file))).result.answered == 2


def test_many_clients_at_once_get_what_each_gets_alone(asking, desk, same):
    each = variants(asking)[:4]
    alone = [same(desk.search(one).result) for one in each]
    clients = [Desk.at(asking.home) for _ in each]
    with ThreadPoolExecutor(len(each)) as pool:
        together = list(pool.map(lambda pair: same(pair[0].search(pair[1]).result), zip(clients, each, strict=True)))
    assert together == alone


def test_a_search_whose_asker_left_leaves_nothing_behind(asking, monkeypatch):
    desk = asking.open_desk(at_once=1)
    desk.search(wanted(Example(file=asking.file)))
    held, before = Held(monkeypatch), threading.active_count()
    frame = encode(DeskSearch(sought=Sought(case=asking.case), budget_ms=UNHURRIED))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(asking.home.desk_socket))
        connection.sendall(len(frame).to_bytes(4, "big") + frame)
        assert held.begun.acquire(timeout=20)
    held.go_on.set()
    for _ in range(5):  # and who leaves in the middle of a frame
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(asking.home.desk_socket))
            connection.sendall(len(frame).to_bytes(4, "big") + frame[:10])
    end = time.monotonic() + 20
    while desk.state().at_work or threading.active_count() > before + 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    server = asking.desks[-1]._server
    assert server._room == server._limits.room
    assert desk.search(wanted(Example(file=asking.file))).result.answered == 2


def test_searches_by_what_the_silo_holds_check_it_once(asking, desk, monkeypatch):
    desk.search(wanted(Example(file=asking.file)))  # the index processes open theirs
    opened, open_catalogue, require_sound = [], Catalogue.open, generations.require_sound
    monkeypatch.setattr(Catalogue, "open", lambda *options: opened.append("catalogue") or open_catalogue(*options))
    monkeypatch.setattr(generations, "require_sound", lambda *of: opened.append("index") or require_sound(*of))
    for example in (Example(case=asking.case), Example(uid=UID), Example(file=asking.file)) * 2:
        desk.search(wanted(example, without_patient=True))
    assert sorted(opened) == ["catalogue", "index"]


def asked_of_hospitals(asking):
    lines = [json.loads(line) for line in asking.home.audit.read_text().splitlines()]
    return [line for line in lines if line["event"] in {"asking", "asked", "asking-failed"}]


def test_its_end_waits_for_what_has_begun_and_takes_on_no_more(asking, monkeypatch):
    desk, held = asking.open_desk(), Held(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(desk.search, wanted(Example(file=asking.file), private=True))
        assert held.begun.acquire(timeout=20)
        ending = pool.submit(asking.desks[-1].close)
        end = time.monotonic() + 20
        while not asking.desks[-1]._ended.is_set():
            assert time.monotonic() < end
        with pytest.raises(Busy, match="the desk is ending"):
            desk.search(wanted(Example(file=asking.file)))
        assert desk.search_if_free(wanted(Example(file=asking.file))) is None
        with pytest.raises(TimeoutError):
            ending.result(3.5)  # a private search takes longer than a few seconds
        held.go_on.set()
        assert running.result().result.answered == 2
        ending.result()
    assert [line["event"] for line in asked_of_hospitals(asking)] == ["asking", "asked"]


def test_a_reply_that_is_ready_when_it_ends_is_not_lost(asking, monkeypatch):
    answer, ready, server = DeskProcess.answer_frame, threading.Event(), []

    def late(process, frame):
        reply = answer(process, frame)
        if isinstance(decode(frame, DeskSearch, DeskAsked), DeskSearch):
            ready.set()
            while server[0]._listener is not None:
                time.sleep(0.01)
        return reply

    monkeypatch.setattr(DeskProcess, "answer_frame", late)
    desk = asking.open_desk()
    server.append(asking.desks[-1]._server)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(desk.search, wanted(Example(file=asking.file)))
        assert ready.wait(60)
        asking.desks[-1].close()
        assert running.result(20).result.answered == 2


def test_what_its_end_cuts_off_is_recorded_and_asked_once(asking, monkeypatch):
    monkeypatch.setattr(process_module, "_LONGEST_END_S", 0.2)
    desk, go_on, relayed = asking.open_desk(), threading.Event(), asking.gateway._handler
    asked = threading.Event()

    def hang(frame):
        asked.set()
        go_on.wait(20)
        return relayed(frame)

    monkeypatch.setattr(asking.gateway, "_handler", hang)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(find_soonest, asking.home, wanted(Example(file=asking.file)))
        assert asked.wait(20)
        end = time.monotonic() + 20
        while not (asking.home.audit.exists() and asked_of_hospitals(asking)):
            assert time.monotonic() < end
        asking.desks[-1].close()
        with pytest.raises(ProcessFailed, match="the desk has the search and gave no result"):
            running.result()
    go_on.set()
    begun, failed = asked_of_hospitals(asking)
    assert (begun["event"], failed["event"], failed["code"]) == ("asking", "asking-failed", "process-failed")
    assert begun["asked_query"] == failed["asked_query"]
    assert not desk.runs


def test_another_encoder_in_use_is_taken_without_a_restart(asking, desk, new_encoder, same):
    old = desk.search(wanted(Example(file=asking.file))).result
    version = new_encoder(asking.home.models, 2)
    found = desk.search(wanted(Example(file=asking.file))).result
    assert old.encoder_version == found.encoder_version == asking.version  # until the index is built
    assert found.answered == 2
    for silo in asking.silos.values():
        silo.index(version)
    end = time.monotonic() + 30
    while (found := desk.search(wanted(Example(file=asking.file))).result).encoder_version != version or found.answered < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert desk.state().encoder_version == version == load_encoder(asking.home.models).version
    assert same(found) == same(find(asking.home, wanted(Example(file=asking.file))).result)


def test_without_an_encoder_it_runs_and_says_what_is_missing(asking):
    shutil.rmtree(asking.home.models)
    asking.desks.append(DeskProcess(asking.home))
    asking.desks[-1].start()
    desk, end = Desk.at(asking.home), time.monotonic() + 20
    while desk.state().encoder != "missing":
        assert time.monotonic() < end
    with pytest.raises(NotReady, match="no encoder yet"):
        desk.search(wanted(Example(file=asking.file)))


def test_its_log_has_nothing_of_what_is_asked_or_found(asking, desk, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    found = desk.search(wanted(Example(file=asking.file), preview=True)).result
    desk.search(wanted(Example(uid=UID)))
    secret = f"{UID} {asking.case} Doe^Jane"

    def fail(*_arguments, **_options):
        raise RuntimeError(secret)

    monkeypatch.setattr(process_module, "find", fail)
    with pytest.raises(Exception, match="could not do this") as raised:
        desk.search(wanted(Example(case=asking.case)))
    everything = caplog.text + str(raised.value)
    assert "RuntimeError at" in caplog.text
    for told in (UID, asking.case, asking.case[:8], "Doe", "dr.x", str(asking.file), *(hit.case for hit in found.hits)):
        assert told not in everything


def test_without_a_record_nothing_is_found(asking, desk, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/audit.jsonl")

    monkeypatch.setattr(asking.desks[-1]._asker.audit, "append_all", full)
    with pytest.raises(NotReady, match="the system refuses it: No space left on device") as raised:
        desk.search(wanted(Example(file=asking.file)))
    assert "silo doctor" in raised.value.remedy
    monkeypatch.undo()
    assert desk.search(wanted(Example(file=asking.file))).result.answered == 2


def test_a_decoder_that_dies_costs_its_request(asking, desk, monkeypatch):
    desk.search(wanted(Example(file=asking.file)))
    reader = asking.desks[-1]._reader
    monkeypatch.setattr(reader, "_seconds", 1)
    (decoder,) = reader._idle
    (worker,) = decoder._pool._all
    stopped = threading.Timer(0.2, os.kill, (worker.process.pid, signal.SIGKILL))
    os.kill(worker.process.pid, signal.SIGSTOP)
    stopped.start()
    with pytest.raises(ImageUnsupported, match="crashed or took too long"):
        desk.search(wanted(Example(file=asking.file)))
    assert desk.search(wanted(Example(file=asking.file))).result.answered == 2


class RealDesk:
    """A desk in a process of its own."""

    def __init__(self, asking):
        self.asking, self.processes = asking, []

    def start(self):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "silo_app.cli.main", "desk", "--silo", str(self.asking.home.kit)]
        self.processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return self.processes[-1]


@pytest.fixture
def real(asking):
    made = RealDesk(asking)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_killed_one_is_replaced_a_living_one_is_not_robbed_and_sigterm_ends_it(asking, real, same):
    desk, direct = Desk.at(asking.home), same(find(asking.home, wanted(Example(file=asking.file))).result)
    first = real.start()
    asking.ready(desk)
    assert same(desk.search(wanted(Example(file=asking.file))).result) == direct
    second = real.start()
    assert second.wait(60) == 1
    assert "another process listens here already" in second.stderr.read()
    assert same(desk.search(wanted(Example(file=asking.file))).result) == direct
    first.kill()
    first.wait()
    assert asking.home.desk_socket.exists()
    assert not desk.runs
    third = real.start()
    asking.ready(desk)
    assert same(desk.search(wanted(Example(file=asking.file))).result) == direct
    third.send_signal(signal.SIGTERM)
    assert third.wait(20) == 0
    assert not asking.home.desk_socket.exists()
    assert list((asking.home.root / "run" / "desk").iterdir()) == []
    log = third.stderr.read()
    assert "Traceback" not in log
    assert asking.version[:12] in log
