"""Requests over NVFlare's messaging core: bytes out, bytes back, with our own deadline.

`core_cell` and not the channels above it: those keep a timer thread of 60 s for every reply (NVFlare 2.9.0), and put numpy
arrays on a download service. These are internals of NVFlare; tests/flare/test_cells.py is the contract that they keep.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply, new_cell_message
from nvflare.fuel.f3.message import Message

from silo_app.flare import words

MAX_REQUEST_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""A larger request closes the other side's connection on the default driver (4 MiB with its headers)."""


class CellTimeout(Exception):
    """No reply within the deadline."""


class CellUnreachable(Exception):
    """The other side is not connected, or has no listener for the topic."""


def core_of(engine: Any) -> Any:
    """Return the messaging core of a server job process or of a site's parent process."""
    return engine.get_cell().core_cell


_NET_CHANNEL, _ECHO = "_net_manager", "echo"
"""What every process of NVFlare listens to by itself (`net_agent.py`)."""


def echo(core: Any, target: str, timeout_s: float) -> None:
    """Have the process `target` say anything. Raises `CellTimeout` or `CellUnreachable`."""
    _sent(core, _NET_CHANNEL, _ECHO, target, b"", timeout_s)


def request(core: Any, topic: str, target: str, payload: bytes, timeout_s: float) -> bytes:
    """Send `payload` and return the reply's. Raises `CellTimeout` or `CellUnreachable`, `ValueError` if too large."""
    if len(payload) > MAX_REQUEST_BYTES:
        raise ValueError(f"{len(payload)} bytes are more than the {MAX_REQUEST_BYTES} that one message may have")
    reply = _sent(core, words.CHANNEL, topic, target, payload, timeout_s)
    if not isinstance(reply.payload, bytes | bytearray | memoryview):
        raise CellUnreachable(f"{target}: no bytes")
    return bytes(reply.payload)


def _sent(core: Any, channel: str, topic: str, target: str, payload: bytes, timeout_s: float) -> Message:
    reply: Message = core.send_request(
        channel, topic, target, new_cell_message({}, payload), timeout=timeout_s, optional=True
    )
    code = reply.get_header(MessageHeaderKey.RETURN_CODE, ReturnCode.OK)
    if code == ReturnCode.TIMEOUT:
        raise CellTimeout(target)
    if code != ReturnCode.OK:
        raise CellUnreachable(f"{target}: {code}")
    return reply


Reply = Callable[[bytes], None]
"""Takes the reply to a request; called once, from any thread."""


def listen(core: Any, topic: str, handler: Callable[[str, bytes], bytes], pool: ThreadPoolExecutor) -> None:
    """Answer requests on `topic` with `handler(origin, payload)`, each on a thread of `pool`."""
    serve(core, topic, lambda origin, payload, reply: reply(handler(origin, payload)), pool)


def serve(core: Any, topic: str, start: Callable[[str, bytes, Reply], None], pool: ThreadPoolExecutor) -> None:
    """Have requests on `topic` answered by `start(origin, payload, reply)`, which may return before there is a reply.

    The callback itself returns at once: it runs on the thread that reads the connection.
    """

    def received(message: Message) -> None:
        origin = message.get_header(MessageHeaderKey.ORIGIN)
        request_id = message.get_header(MessageHeaderKey.REQ_ID)
        payload = message.payload if message.payload is not None else b""  # empty bytes arrive as None
        if isinstance(payload, bytes | bytearray | memoryview):
            pool.submit(begin, origin, request_id, bytes(payload))

    def begin(origin: str, request_id: str, payload: bytes) -> None:
        try:
            start(origin, payload, lambda body: send(origin, request_id, make_reply(ReturnCode.OK, body=body)))
        except Exception:  # noqa: BLE001  (the sender must hear that we failed, not wait for its deadline)
            send(origin, request_id, make_reply(ReturnCode.PROCESS_EXCEPTION))

    def send(origin: str, request_id: str, reply: Message) -> None:
        reply.add_headers({MessageHeaderKey.CHANNEL: words.CHANNEL, MessageHeaderKey.TOPIC: topic})
        core.send_reply(reply, origin, [request_id], optional=True)

    core.register_request_cb(words.CHANNEL, topic, received)
