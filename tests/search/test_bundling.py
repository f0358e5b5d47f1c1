"""An asker's queries that are asked at once go together, and each gets its own result, or the error that all of them met."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from silo_app.errors import BrokerUnreachable
from silo_app.search.bundling import Bundler
from silo_app.search.messages import MAX_BUNDLED, SearchResult


class Way:
    """Answers each request with its own query id, after a while."""

    def __init__(self, seconds=0.03):
        self.seconds, self.sent, self.within, self.threads = seconds, [], [], []

    def __call__(self, requests, within_ms):
        self.sent.append(list(requests))
        self.within.append(within_ms)
        self.threads.append(threading.current_thread())
        time.sleep(self.seconds)
        return [
            SearchResult(query_id=one.query_id, encoder_version=one.encoder_version, k=one.k, hits=(), silos=())
            for one in requests
        ]


@pytest.fixture
def bundler():
    made = []

    def make(send):
        made.append(Bundler(send))
        return made[-1]

    yield make
    for one in made:
        one.close()


def at_once(bundler, requests):
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(bundler.ask, requests))


def test_one_alone_goes_alone_on_its_callers_thread(bundler, request_of):
    way = Way(0)
    before = set(threading.enumerate())
    one = bundler(way)
    for _ in range(3):
        request = request_of()
        assert one.ask(request).query_id == request.query_id
    assert [len(sent) for sent in way.sent] == [1, 1, 1]
    assert set(way.threads) == {threading.current_thread()}
    assert set(threading.enumerate()) <= before  # other tests' threads may end meanwhile


def test_many_at_once_share_messages_and_each_gets_its_own_result(bundler, request_of):
    way = Way()
    requests = [request_of(budget_ms=20_000) for _ in range(120)]
    results = at_once(bundler(way), requests)
    assert [result.query_id for result in results] == [request.query_id for request in requests]
    assert sum(map(len, way.sent)) == 120
    assert len(way.sent) < 60
    assert max(map(len, way.sent)) <= MAX_BUNDLED


def test_a_bundle_is_of_one_budget_one_encoder_and_narrowed_or_not(bundler, request_of):
    way = Way()
    kinds = [{}, {"budget_ms": 700}, {"encoder_version": "cd" * 16}, {"filters": {"sexes": ("F",)}}]
    requests = [request_of(**kinds[number % 4]) for number in range(40)]
    results = at_once(bundler(way), requests)
    assert [result.query_id for result in results] == [request.query_id for request in requests]
    for sent in way.sent:
        assert len({(one.budget_ms, one.encoder_version, bool(one.filters)) for one in sent}) == 1


def test_many_hits_are_asked_for_in_several_messages(bundler, request_of):
    way = Way()
    at_once(bundler(way), [request_of(k=200, budget_ms=20_000) for _ in range(12)])
    assert max(map(len, way.sent)) <= 2


def test_what_is_left_of_the_budget_goes_with_it(bundler, request_of):
    way = Way(0.1)
    at_once(bundler(way), [request_of(budget_ms=1000) for _ in range(8)])
    assert way.within[0] in range(950, 1001)
    assert max(way.within[1:]) < 1001
    assert min(way.within) > 0


def test_an_error_is_heard_by_all_that_shared_the_message(bundler, request_of):
    def gone(_requests, _within_ms):
        time.sleep(0.02)
        raise BrokerUnreachable("gone", remedy="none")

    one, heard = bundler(gone), []

    def ask():
        try:
            one.ask(request_of())
        except BrokerUnreachable as error:
            heard.append(error.problem)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == ["gone"] * 10


def test_a_message_that_hangs_holds_up_no_other(bundler, request_of):
    release, way = threading.Event(), Way(0)

    def send(requests, within_ms):
        if any(one.purpose == "hangs" for one in requests):
            release.wait(10)
        return way(requests, within_ms)

    one = bundler(send)
    hanging = threading.Thread(target=one.ask, args=(request_of(purpose="hangs"),))
    hanging.start()
    time.sleep(0.05)
    start = time.monotonic()
    for _ in range(5):
        one.ask(request_of())
    assert time.monotonic() - start < 2
    release.set()
    hanging.join()
