"""The contract that NVFlare's messaging core must keep, with two real cells on loopback."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.net_agent import NetAgent

from silo_app.flare import cells

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def pair():
    from nvflare.fuel.utils.network_utils import get_open_ports

    url = f"tcp://localhost:{get_open_ports(1)[0]}"
    server = CoreCell(fqcn="server", root_url=url, secure=False, credentials={}, create_internal_listener=False)
    agents = [NetAgent(server)]
    server.start()
    site = CoreCell(fqcn="site-1", root_url=url, secure=False, credentials={}, create_internal_listener=False)
    agents.append(NetAgent(site))
    site.start()
    pool = ThreadPoolExecutor(8)
    end = time.monotonic() + 20
    while not server.is_cell_reachable("site-1") and time.monotonic() < end:
        time.sleep(0.05)
    yield server, site, pool
    pool.shutdown(wait=False)
    site.stop()
    server.stop()


def test_bytes_go_there_and_come_back(pair):
    server, site, pool = pair
    cells.listen(site, "echo", lambda origin, payload: origin.encode() + b":" + payload, pool)
    assert cells.request(server, "echo", "site-1", b"hello", 5) == b"server:hello"
    assert cells.request(server, "echo", "site-1", b"", 5) == b"server:"


def test_every_process_of_nvflare_says_something(pair):
    server, _, _ = pair
    cells.echo(server, "site-1", 5)
    with pytest.raises(cells.CellUnreachable):
        cells.echo(server, "site-2", 5)


def test_a_handler_that_fails_is_unreachable_at_once(pair):
    server, site, pool = pair

    def fail(_origin, _payload):
        raise OSError

    cells.listen(site, "fail", fail, pool)
    start = time.monotonic()
    with pytest.raises(cells.CellUnreachable):
        cells.request(server, "fail", "site-1", b"x", 10)
    assert time.monotonic() - start < 5


def test_a_handler_that_sleeps_times_out(pair):
    server, site, pool = pair
    cells.listen(site, "sleep", lambda _origin, _payload: time.sleep(2) or b"", pool)
    with pytest.raises(cells.CellTimeout):
        cells.request(server, "sleep", "site-1", b"x", 0.3)


def test_nobody_of_that_name(pair):
    server, _, _ = pair
    with pytest.raises(cells.CellUnreachable):
        cells.request(server, "echo", "site-2", b"x", 2)


def test_a_message_that_would_close_the_connection_is_not_sent(pair):
    server, _, _ = pair
    with pytest.raises(ValueError, match="more than"):
        cells.request(server, "echo", "site-1", bytes(cells.MAX_REQUEST_BYTES + 1), 5)


def test_replies_leave_no_threads_behind(pair):
    server, site, pool = pair
    cells.listen(site, "count", lambda _origin, payload: payload, pool)
    for _ in range(20):
        cells.request(server, "count", "site-1", b"x", 5)
    before = threading.active_count()
    for _ in range(200):
        cells.request(server, "count", "site-1", b"x", 5)
    assert threading.active_count() <= before + 5
