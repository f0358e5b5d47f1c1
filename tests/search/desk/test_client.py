"""Whoever searches uses the desk where it runs, and searches alone where it does not."""

import threading
from dataclasses import replace

import pytest

from silo_app.errors import Busy, ImageUnsupported, MessageInvalid, ProcessFailed
from silo_app.search import local
from silo_app.search.desk import client
from silo_app.search.desk.client import Desk, find_soonest
from silo_app.search.desk.messages import DeskAsked, DeskError, DeskSearch, DeskState
from silo_app.search.examples import Example
from silo_app.search.find import Wanted
from silo_app.search.wire import decode, encode

ALONE = object()


@pytest.fixture
def home(make_silo, monkeypatch):
    monkeypatch.setattr(client, "find", lambda *_: ALONE)
    return make_silo()


@pytest.fixture
def desk_that(home):
    """Make a desk that is ready, and that replies to a search with what it is given."""
    made = []

    def make(reply, state=None):
        ready = encode(DeskState(encoder="ready", at_work=0, at_once=1)) if state is None else state

        def answer(frame):
            return ready if isinstance(decode(frame, DeskAsked, DeskSearch), DeskAsked) else reply

        made.append(local.FrameServer(home.desk_socket, answer))
        made[-1].start()
        return home

    yield make
    for server in made:
        server.close()


WANTED = Wanted(example=Example(case="3f9c21aa"))


def test_without_a_desk_it_is_found_here(home):
    assert not Desk.at(home).runs
    with pytest.raises(ProcessFailed, match="nobody listens"):
        Desk.at(home).state()
    assert find_soonest(home, WANTED) is ALONE


ERRORS = pytest.mark.parametrize("error", [Busy, ProcessFailed, MessageInvalid])


@ERRORS
def test_a_desk_that_does_not_take_it_on_is_no_obstacle(desk_that, error):
    home = desk_that(encode(DeskError.of(error("something", remedy="Do this."), taken=False)))
    with pytest.raises(error):
        Desk.at(home).search(WANTED)
    assert find_soonest(home, WANTED) is ALONE


@ERRORS
def test_what_fails_in_a_search_that_the_desk_has_taken_on_is_not_asked_again(desk_that, error):
    home = desk_that(encode(DeskError.of(error("something", remedy="Do this."))))
    with pytest.raises(error, match="something"):
        find_soonest(home, WANTED)


@pytest.mark.parametrize(("reply", "kind"), [(b"noise", MessageInvalid), (encode(DeskAsked()), MessageInvalid)])
def test_a_desk_that_has_the_search_and_talks_nonsense_has_it_still(desk_that, reply, kind):
    with pytest.raises(kind, match="the desk has the search and gave no result") as raised:
        find_soonest(desk_that(reply), WANTED)
    assert "`asking` in the silo's audit log" in raised.value.remedy


def test_a_desk_that_ends_at_work_is_not_asked_again_nor_is_the_next_one(home):
    """The connection that told its state is kept: a search on it that has no reply is not sent on another one."""
    searches, ready = [], encode(DeskState(encoder="ready", at_work=0, at_once=1))

    def answer(frame):
        if isinstance(decode(frame, DeskAsked, DeskSearch), DeskAsked):
            return ready
        searches.append(frame)
        first.close()
        second.start()
        return b""

    first, second = (local.FrameServer(home.desk_socket, answer) for _ in range(2))
    first.start()
    with pytest.raises(ProcessFailed, match="the desk has the search and gave no result"):
        find_soonest(home, WANTED)
    second.close()
    assert len(searches) == 1


def test_what_is_too_large_for_the_desk_is_found_here(desk_that, monkeypatch):
    monkeypatch.setattr(client, "MAX_SEARCH_BYTES", 100)
    home = desk_that(encode(DeskError.of(Busy("not reached", remedy=""))))
    with pytest.raises(MessageInvalid, match="the largest allowed is 100"):
        Desk.at(home).search(WANTED)
    assert find_soonest(home, WANTED) is ALONE


@pytest.mark.parametrize("noise", [b"", b"noise", encode(DeskAsked())])
def test_noise_is_no_desk(desk_that, noise):
    home = desk_that(noise, state=noise)
    assert not Desk.at(home).runs
    assert find_soonest(home, WANTED) is ALONE


def test_an_error_of_the_search_is_not_tried_again(desk_that, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not DICOM")
    error = ImageUnsupported("no image", reason="not-dicom", where="more-like image 1", remedy="Give one.")
    home = desk_that(encode(DeskError.of(error)))
    wanted = Wanted(example=Example(case="3f9c21aa"), refinement=replace(WANTED.refinement, more=[Example(file=file)]))
    with pytest.raises(ImageUnsupported) as raised:
        find_soonest(home, wanted)
    assert raised.value.where == str(file)


def test_a_desk_that_hangs_is_not_waited_for(home, monkeypatch):
    monkeypatch.setattr(client, "_AT_ONCE_S", 0.2)
    go_on = threading.Event()
    server = local.FrameServer(home.desk_socket, lambda _frame: bytes(go_on.wait(20)))
    server.start()
    assert find_soonest(home, WANTED) is ALONE
    go_on.set()
    server.close()
