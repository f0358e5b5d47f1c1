"""A silo is gone when its site says that the job's process has ended, or cannot be reached, some times in a row."""

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

    monkeypatch.setattr(cells, "request", request)
    presence = Presence(None, ["a"], "job-1", every_s=0.0)
    assert not presence.is_gone("a")
    end = time.monotonic() + 10
    while len(asked) < 6 and time.monotonic() < end:
        time.sleep(0.05)
    presence.close()
    assert (presence.is_absent("a"), presence.is_gone("a", unreached=unreached)) == (absent, gone)
    assert set(asked) == {(words.TOPIC_ALIVE, "a", b"job-1")}
