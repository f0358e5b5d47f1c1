"""What a child process says, and whether it is there at all."""

import os
import threading
import time

import pytest

from silo_app.encoder import heard
from silo_app.encoder.heard import Hearing, Silent, Speaker


@pytest.fixture
def pipe(monkeypatch):
    monkeypatch.setattr(heard, "_EVERY_S", 0.05)
    monkeypatch.setattr(heard, "_LOOK_S", 0.1)
    monkeypatch.setattr(heard, "SILENT_S", 2.0)
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as there, os.fdopen(write, "w", encoding="utf-8") as here:
        yield here, Hearing(there)


def test_messages_of_many_threads_are_whole_lines(pipe):
    speaker, hearing = Speaker(pipe[0]), pipe[1]
    speaker.live()
    threads = [threading.Thread(target=speaker.say, args=({"long": "x" * 100_000},)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert {len(hearing.line()) for _ in threads} == {100_013}
    for thread in threads:
        thread.join()


def test_who_works_for_long_is_there_and_who_says_nothing_hangs(pipe):
    speaker, hearing = Speaker(pipe[0]), pipe[1]
    speaker.live()
    threading.Timer(4, speaker.say, ({"answer": {}},)).start()
    assert hearing.line() == '{"answer": {}}\n'
    with speaker._lock, pytest.raises(Silent):
        hearing.line()


def test_who_has_not_begun_to_say_that_it_is_there_is_waited_for(pipe):
    threading.Timer(4, pipe[0].close).start()
    start = time.monotonic()
    assert pipe[1].line() == ""
    assert time.monotonic() - start > 2
    assert pipe[1].line() == ""
