"""The index process: verifies, decides, records, answers; nothing that it is sent ends it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from silo_app.audit.log import verify
from silo_app.catalogue import Catalogue
from silo_app.config import load
from silo_app.errors import ConfigInvalid, NotReady, ProcessFailed
from silo_app.policy.filters import Filters
from silo_app.policy.refusal import RefusalCode
from silo_app.search.envelope import CONTEXT, conceal, keyed, keys_for, open_reply, seal
from silo_app.search.local import exchange
from silo_app.search.meeting import VOUCHER_ASKED, meet
from silo_app.search.messages import Bundle, BundleReply, Refusal, SiloAnswer
from silo_app.search.parcels import Content, Parcel, pack, unpack
from silo_app.search.replays import SeenQueries
from silo_app.search.sealed import SealedRequest
from silo_app.search.server import IndexProcess
from silo_app.search.standing import open_generation, wait_until_taken
from silo_app.search.wire import decode, encode
from silo_app.session_key import encrypted

FORTIES = Filters(age_bands=("40-49",))


@pytest.fixture
def silo(stocked):
    made = stocked("south")
    made.index()
    return made


@pytest.fixture
def start():
    """Start index processes in this process, and end them."""
    started = []

    def begin(home, **options) -> IndexProcess:
        process = IndexProcess(home, **options)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()


def test_a_silo_by_another_name_than_its_certificates_does_not_start(silo):
    file = silo.home.kit / "local" / "silo.yaml"
    file.write_text(file.read_text().replace("name: south", "name: south-2"))
    with pytest.raises(
        ConfigInvalid, match="the name is 'south-2', and the certificate of this kit is of 'south'"
    ) as caught:
        IndexProcess(load(silo.home.kit))
    assert caught.value.where.endswith("silo.yaml:name")


@pytest.fixture
def ask(stocked, request_of):
    """Ask a silo's index process over its socket, as `north`."""

    north = stocked.federation.identity("north")

    def asking(silo, vector=None, **fields):
        frame = seal(north, request_of(vector, **fields))
        reply = exchange(silo.home.index_socket, frame, 10)
        return open_reply(north, silo.home.config.name, frame, reply, SiloAnswer, Refusal)

    return asking


@pytest.fixture
def told(stocked):
    """Ask a process with a frame, and read its reply as `north`, or as whoever has signed it."""

    def read(process, frame, asker="north"):
        reply = process.answer_frame(frame)
        return open_reply(stocked.federation.identity(asker), "south", frame, reply, SiloAnswer, Refusal)

    return read


def records(silo):
    return [json.loads(line) for line in silo.home.audit.read_text().splitlines()]


def test_it_answers_over_its_socket(silo, start, ask):
    start(silo.home)
    digest, vector = next(iter(silo.vectors.items()))
    reply = ask(silo, vector, k=3)
    assert isinstance(reply, SiloAnswer)
    assert (reply.silo, reply.generation, reply.indexed, len(reply.hits)) == ("south", "000001", 20, 3)
    assert reply.hits[0].score == pytest.approx(1, abs=1e-3)
    assert reply.hits[0].card.age_band == "40-49"
    assert reply.took_us > 0
    assert digest not in repr(reply)


def test_every_answer_and_refusal_is_in_the_audit_log(silo, start, ask):
    start(silo.home)
    answered = ask(silo, k=2, user="dr.x@north")
    ask(silo, purpose="marketing")
    exchange(silo.home.index_socket, b"noise", 10)
    first, second, third = records(silo)
    assert (first["event"], first["asker"], first["user"], first["k"]) == ("answer", "north", "dr.x@north", 2)
    assert first["released"] == [hit.case for hit in answered.hits]
    assert (second["event"], second["code"]) == ("refusal", "purpose-not-allowed")
    assert (third["event"], third["code"]) == ("refusal", "message-invalid")
    assert verify(silo.home.audit).lines == 3


def test_who_may_not_ask_fills_neither_memory_nor_disk(stocked, request_of, told):
    silo = stocked("south", config="release: {askers: [west]}\n")
    silo.index()
    now = [time.time()]
    process = IndexProcess(silo.home, clock=lambda: now[0])
    process._seen = SeenQueries(limit=5)

    def ask(name):
        request = request_of(asker=name, issued_at_ms=int(now[0] * 1000))
        return told(process, seal(stocked.federation.identity(name), request), name)

    assert {ask("north").code for _ in range(300)} == {RefusalCode.ASKER}
    assert isinstance(ask("west"), SiloAnswer)
    first = records(silo)
    assert [line["event"] for line in first] == ["refusal"] * 10 + ["answer"]
    now[0] += 61
    assert isinstance(ask("west"), SiloAnswer)
    assert {ask("north").code for _ in range(7)} == {RefusalCode.ASKER}
    process.close()
    counted = [line for line in records(silo) if line["event"] == "refusals"]
    assert [(line["asker"], line["code"], line["count"]) for line in counted] == [
        ("north", "asker-not-allowed", 290),
        ("north", "asker-not-allowed", 7),
    ]
    assert verify(silo.home.audit).lines == 14


def test_a_refusal_that_costs_its_asker_a_query_is_recorded_whole(stocked, request_of, told):
    silo = stocked("south", config="release: {min_similarity: 0.99}\n")
    silo.index()
    process = IndexProcess(silo.home)
    north = stocked.federation.identity("north")
    assert {told(process, seal(north, request_of())).code for _ in range(30)} == {RefusalCode.TOO_FEW_SIMILAR}
    process.close()
    assert [line["event"] for line in records(silo)] == ["refusal"] * 30


def test_what_could_not_be_recorded_of_refusals_is_recorded_later(stocked, request_of, told):
    silo = stocked("south", config="release: {purposes: []}\n")
    silo.index()
    now = [time.time()]
    process = IndexProcess(silo.home, clock=lambda: now[0])

    def ask():
        return told(process, seal(stocked.federation.identity("north"), request_of(issued_at_ms=int(now[0] * 1000)))).code

    assert {ask() for _ in range(15)} == {RefusalCode.PURPOSE}
    now[0] += 61
    write, process._audit.append_all = process._audit.append_all, lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    assert ask() is RefusalCode.INTERNAL
    process._audit.append_all = write
    process.close()
    assert [line["count"] for line in records(silo) if line["event"] == "refusals"] == [6]


def test_the_audit_log_holds_no_embedding_and_no_identifier(silo, start, ask):
    start(silo.home)
    digest, vector = next(iter(silo.vectors.items()))
    ask(silo, vector)
    text = silo.home.audit.read_text()
    for secret in ("secret", "vector", digest, str(float(vector[0]))[:8]):
        assert secret not in text


def test_without_an_audit_record_nothing_is_released(silo, start, ask):
    process = start(silo.home)
    process._audit.append_all = lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    assert ask(silo).code is RefusalCode.INTERNAL


def test_a_replayed_request_is_refused_also_after_a_restart(silo, start, stocked, request_of, told):
    frame = seal(stocked.federation.identity("north"), request_of())
    process = start(silo.home)
    assert isinstance(told(process, frame), SiloAnswer)
    assert told(process, frame).code is RefusalCode.REPLAYED
    process.close()
    again = start(silo.home)
    assert told(again, frame).code is RefusalCode.REPLAYED


def test_a_replayed_request_is_refused_also_after_a_rotation_and_a_restart(silo, start, stocked, request_of, told):
    frame = seal(stocked.federation.identity("north"), request_of())
    process = start(silo.home)
    assert isinstance(told(process, frame), SiloAnswer)
    silo.home.audit.rename(silo.home.audit.with_name("audit.jsonl.1"))
    process.close()
    again = start(silo.home)
    assert told(again, frame).code is RefusalCode.REPLAYED


def test_a_silo_that_is_asked_too_much_answers_what_it_has_time_for_and_the_rest_is_busy_at_once(
    silo, start, stocked, request_of, monkeypatch
):
    process, north, now = start(silo.home), stocked.federation.identity("north"), [1000.0]
    search = process._search

    def slow(case):
        now[0] += 0.1
        search(case)

    monkeypatch.setattr(process, "_search", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    requests = [request_of(vector, budget_ms=1000) for vector in np.eye(16, dtype=np.float32)]
    requests.append(request_of(budget_ms=150))  # who has little time costs the others nothing
    bundle = Bundle(
        budget_ms=1000,
        asker="north",
        encoder_version=requests[0].encoder_version,
        k=max(one.k for one in requests),
        requests=tuple(encode(one) for one in requests),
    )
    frame = seal(north, bundle)
    (content,) = unpack(process.answer_frame(pack(Parcel((Content(1, frame, 1000),))))).contents
    replies = open_reply(north, "south", frame, content.body, BundleReply, Refusal).replies
    said = [decode(one, SiloAnswer, Refusal) for one in replies]
    assert [one.query_id for one in said] == [one.query_id for one in requests]
    refused = [one.code for one in said if isinstance(one, Refusal)]
    assert refused == [RefusalCode.BUSY] * 8
    assert now[0] == pytest.approx(1000.9)


def test_forged_and_malformed_requests_are_refused(silo, start, stocked, authority, request_of, told):
    process = start(silo.home)
    forged = {
        "another federation": (seal(authority.identity("north"), request_of()), RefusalCode.SIGNATURE_INVALID),
        "another's name": (seal(stocked.federation.identity("west"), request_of()), RefusalCode.SIGNATURE_INVALID),
        "noise": (os.urandom(200), RefusalCode.MESSAGE_INVALID),
        "nothing": (b"", RefusalCode.MESSAGE_INVALID),
        "oversized": (bytes(1 << 20), RefusalCode.MESSAGE_INVALID),
        "old": (
            seal(stocked.federation.identity("north"), request_of(issued_at_ms=1)),
            RefusalCode.STALE,
        ),
    }
    for kind, (frame, code) in forged.items():
        assert told(process, frame, "west" if kind == "another's name" else "north").code is code, kind


def test_no_index_yet_is_not_ready_and_a_published_one_is_noticed(stocked, start, ask):
    silo = stocked("south")
    start(silo.home)
    assert ask(silo).code is RefusalCode.NOT_READY
    silo.index()
    assert ask(silo).generation == "000001"


def test_a_new_generation_is_taken_while_the_old_one_answers(silo, start, ask):
    start(silo.home)
    assert ask(silo).generation == "000001"
    silo.stock(99, 5)
    silo.index()
    deadline = time.monotonic() + 10
    while (reply := ask(silo)).generation != "000002":
        assert reply.generation == "000001"
        assert time.monotonic() < deadline
    assert reply.indexed == 25


def test_a_new_generation_is_taken_when_it_is_asked_for_so_that_the_next_query_finds_it(silo, start, ask):
    start(silo.home)
    assert open_generation(silo.home) == "000001"
    silo.index(encoder="cd" * 32)
    assert wait_until_taken(silo.home, "000002", timeout_s=10)
    assert ask(silo, encoder_version="cd" * 32).generation == "000002"


def test_what_cannot_be_opened_is_not_waited_for_longer_than_said(silo, start):
    start(silo.home)
    assert not wait_until_taken(silo.home, "000002", timeout_s=0.2)
    assert wait_until_taken(silo.home, "000001", timeout_s=0)


def test_a_process_without_an_index_says_so_and_none_at_all_is_an_error(stocked, start):
    home = stocked("south").home
    with pytest.raises(ProcessFailed, match="nobody listens"):
        open_generation(home)
    start(home)
    assert open_generation(home) == ""


def test_a_damaged_generation_is_not_used(silo, start, ask):
    silo.stock(99, 5)
    silo.index()
    file = silo.home.index / "000002" / "gallery.faiss"
    file.chmod(0o600)
    os.truncate(file, 100)
    start(silo.home)
    assert ask(silo).generation == "000001"


def test_no_sound_generation_is_an_error_until_one_is_built(silo, start, ask):
    file = silo.home.index / "000001" / "gallery.faiss"
    file.chmod(0o600)
    os.truncate(file, 100)
    start(silo.home)
    assert ask(silo).code is RefusalCode.INDEX_DAMAGED
    assert ask(silo).code is RefusalCode.INDEX_DAMAGED
    silo.index()
    assert ask(silo).generation == "000002"


def test_another_encoder_is_named(silo, start, ask):
    start(silo.home)
    reply = ask(silo, encoder_version="cd" * 16)
    assert reply.code is RefusalCode.OTHER_ENCODER
    assert reply.encoder_version == "ab" * 32


def test_a_recalled_study_is_gone_from_the_next_answer(silo, start, ask):
    start(silo.home)
    digest, vector = next(iter(silo.vectors.items()))
    nearest = ask(silo, vector, k=1).hits[0].case
    silo.recall(digest)
    assert nearest not in {hit.case for hit in ask(silo, vector, k=20).hits}


def test_a_silo_without_a_catalogue_refuses_and_lives_on(silo, start, ask):
    start(silo.home)
    silo.home.catalogue.rename(silo.home.catalogue.with_suffix(".away"))
    assert ask(silo).code is RefusalCode.NOT_READY
    silo.home.catalogue.with_suffix(".away").rename(silo.home.catalogue)
    assert isinstance(ask(silo), SiloAnswer)


def test_more_queries_than_places_are_busy_within_their_budget(silo, start, ask):
    process = start(silo.home, at_once=1)
    process._places.acquire()
    begun = time.monotonic()
    assert ask(silo, budget_ms=100).code is RefusalCode.BUSY
    assert time.monotonic() - begun < 1
    process._places.release()
    assert isinstance(ask(silo), SiloAnswer)


@pytest.fixture
def slow_columns(monkeypatch):
    """Reading the catalogue by columns waits for this."""
    go_on, real = threading.Event(), Catalogue.card_columns
    monkeypatch.setattr(Catalogue, "card_columns", lambda catalogue: go_on.wait(20) and real(catalogue))
    yield go_on
    go_on.set()


@pytest.fixture
def ask_both(stocked, request_of):
    """Ask a process in one parcel, as `north`: first with a filter and then without."""
    north = stocked.federation.identity("north")

    def asking(process, **fields):
        frames = [seal(north, request_of(**fields, filters=filters)) for filters in (FORTIES, Filters())]
        parcel = Parcel(tuple(Content(number, frame, fields["budget_ms"]) for number, frame in enumerate(frames)))
        replies = unpack(process.answer_frame(pack(parcel))).contents
        return [
            open_reply(north, "south", frame, reply.body, SiloAnswer, Refusal)
            for frame, reply in zip(frames, replies, strict=True)
        ]

    return asking


def test_nobody_in_a_parcel_misses_an_answer_because_another_narrows(silo, start, ask_both, slow_columns):
    process = start(silo.home)
    begun = time.monotonic()
    narrowed, other = ask_both(process, budget_ms=1000)
    assert time.monotonic() - begun < 1
    assert narrowed.code is RefusalCode.BUSY
    assert len(other.hits) == 10
    slow_columns.set()
    narrowed, other = ask_both(process, budget_ms=5000)
    assert narrowed.hits == other.hits


def test_a_narrowed_search_does_not_wait_for_what_an_ingest_changes_and_shows_nobody_who_left(
    silo, start, ask, ask_both, slow_columns
):
    process = start(silo.home)
    slow_columns.set()
    digest, vector = next(iter(silo.vectors.items()))
    first = ask(silo, vector, filters=FORTIES, k=20, budget_ms=5000)
    assert len(first.hits) == 20
    slow_columns.clear()
    silo.recall(digest)
    begun = time.monotonic()
    for _ in range(2):
        narrowed, other = ask_both(process, vector=vector, k=20, budget_ms=5000)
        assert narrowed.hits == other.hits == first.hits[1:]
    assert time.monotonic() - begun < 3


def test_many_askers_at_once(silo, start, ask):
    start(silo.home)
    replies = []
    vectors = list(silo.vectors.values())
    threads = [
        threading.Thread(target=lambda v=v: replies.append((v, ask(silo, v, k=1, budget_ms=20_000)))) for v in vectors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({reply.hits[0].case for _, reply in replies}) == 20
    assert verify(silo.home.audit).lines == 20


def test_a_second_index_process_is_refused(silo, start):
    start(silo.home)
    with pytest.raises(NotReady, match="another process listens here already"):
        IndexProcess(silo.home).start()


def test_the_command_answers_until_it_is_ended_and_loads_no_torch(silo, ask):
    code = (
        "import sys; from silo_app.cli.serve import serve; from pathlib import Path\n"
        "serve(Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'monai', 'tenseal', 'pydicom', 'nvflare') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, silo.home.kit]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()) as process:
        while "answers at" not in (line := process.stderr.readline()):
            assert line, "it ended before it listened"
        assert isinstance(ask(silo, np.ones(16, np.float32)), SiloAnswer)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output.strip() == "[]"
    assert not silo.home.index_socket.exists()


@pytest.fixture
def south(silo, start, stocked):
    """The index process of `south`, whose keys `north` knows."""
    process = start(silo.home)
    meet(stocked.federation.identity("north"), {"south": process.answer_frame(VOUCHER_ASKED)})
    return process


@pytest.fixture
def said(south, stocked):
    """Return what `south` says to a frame that `north` has signed: a code, or "answered"."""

    def to(signed, key):
        reply = south.answer_frame(keyed(signed, key))
        return getattr(
            open_reply(stocked.federation.identity("north"), "south", signed, reply, SiloAnswer, Refusal), "code", "answered"
        )

    return to


def test_a_concealed_request_is_answered_once(said, silo, stocked, request_of):
    north = stocked.federation.identity("north")
    signed, key = conceal(north, request_of())
    locked = keys_for(north, signed, key)["south"]
    assert [said(signed, locked) for _ in range(2)] == ["answered", RefusalCode.REPLAYED]
    assert request_of().vector not in keyed(signed, locked)
    lines = [json.loads(line) for line in silo.home.audit.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["answer", "refusal"]


def test_a_concealed_request_is_for_the_silo_whose_key_came_with_it(said, stocked, request_of):
    """Without a key, with that of another silo, or of another question, it is refused, and asked again it is answered."""
    north, west = stocked.federation.identity("north"), stocked.federation.identity("west")
    signed, key = conceal(north, request_of())
    another = conceal(north, request_of())
    locked = keys_for(north, signed, key)["south"]
    wrong = {
        "no key": None,
        "an open one": key + bytes(len(locked) - len(key)),
        "another silo's": north.session.lock(key, west.trust.vouched(west.session.voucher), signed=signed),
        "another question's": keys_for(north, *another)["south"],
    }
    assert {name: said(signed, key) for name, key in wrong.items()} == dict.fromkeys(wrong, RefusalCode.OTHER_KEY)
    assert said(signed, locked) == "answered"


def test_what_is_concealed_is_of_who_signed_it(said, stocked, request_of):
    """A silo cannot put another's question, which it may read, into an envelope of its own."""
    north = stocked.federation.identity("north")
    content, key = encrypted(encode(request_of(asker="west")))
    fields = {"query_id": "0" * 32, "budget_ms": 1000, "encoder_version": "ab" * 32, "k": 1, "queries": 1}
    signed = north.session.sign(encode(SealedRequest(asker="north", content=content, **fields)), context=CONTEXT)
    assert said(signed, keys_for(north, signed, key)["south"]) is RefusalCode.MESSAGE_INVALID
    changed = SealedRequest(asker="north", content=content[:-1] + bytes([content[-1] ^ 1]), **fields)
    signed = north.session.sign(encode(changed), context=CONTEXT)
    assert said(signed, keys_for(north, signed, key)["south"]) is RefusalCode.SIGNATURE_INVALID
