"""A silo is gone when its site says that the job's process has ended, or cannot be reached, some times in a row."""

import threading
import time

import pytest

from silo_app.flare import cells, words
from silo_app.flare.presence import LONG, Presence


@pytest.mark.parametrize(
    ("answer", "unreached", "absent", "gone"),
    [
        (words.HERE, 4, False, False),
        (words.ENDED, 4, True, True),
        (words.ENDED, LONG, True, True),
        (cells.CellUnreachable("a"), 4, True, True),
        (cells.CellUnreachable("a"), LONG, True, False),
        (cells.CellTimeout("a"), 4, False, False),
    ],
)
def test_who_is_gone(monkeypatch, answer, unreached, absent, gone):
    asked = []

    def request(core, topic, target, payload, timeout_s):
        asked.append((topic, target, payload))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(cells, "echo", lambda *_: None)
    monkeypatch.setattr(cells, "request", request)
    presence = Presence(None, ["a"], "job-1", every_s=0.0)
    assert not presence.is_gone("a")
    end = time.monotonic() + 10
    while len(asked) < 6 and time.monotonic() < end:
        time.sleep(0.05)
    presence.close()
    assert (presence.is_absent("a"), presence.is_gone("a", unreached=unreached)) == (absent, gone)
    assert set(asked) == {(words.TOPIC_ALIVE, "a", b"job-1")}


@pytest.mark.parametrize("hangs", ["site", "job"])
def test_a_connected_process_that_says_nothing_for_long_is_gone_until_it_speaks(monkeypatch, hangs):
    """Its site, or the process of the job alone."""
    hung, asked = threading.Event(), []

    def request(core, topic, target, payload, timeout_s):
        if hangs == "site" and hung.is_set():
            raise cells.CellTimeout(target)
        return words.HERE

    def echo(core, target, timeout_s):
        asked.append(target)
        if hung.is_set():
            raise cells.CellTimeout(target)
        raise cells.CellUnreachable(target)  # a process that begins: its site says that it is there

    def become(wanted):
        end = time.monotonic() + 10
        while presence.is_gone("a", unreached=LONG) is not wanted and time.monotonic() < end:
            time.sleep(0.02)
        return presence.is_gone("a", unreached=LONG), presence.is_silent("a"), presence.is_absent("a")

    monkeypatch.setattr(cells, "request", request)
    monkeypatch.setattr(cells, "echo", echo)
    with Presence(None, ["a"], "job-1", every_s=0.0, silent_s=0.5) as presence:
        hung.set()
        time.sleep(0.2)
        assert not presence.is_gone("a")
        assert become(True) == (True, True, False)
        hung.clear()
        assert become(False) == (False, False, False)
    assert set(asked) == {"a.job-1"}
