"""Who is let in at the server: the members of the federation, and nobody else whose certificate is still valid.

NVFlare 2.9 lets in whoever the root certified, for as long as the certificate holds: a hospital that left would go on asking
the others, a researcher who left would go on submitting jobs. These are internals of NVFlare; tests/flare/test_door.py is
the contract that they keep.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, IdentityChallengeKey, ReturnCode
from nvflare.fuel.f3.cellnet.registry import Callback
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import AUTH_CLIENT_NAME_FOR_SJ, CellMessageHeaderKeys
from nvflare.private.fed.utils.identity_utils import load_crt_chain_bytes

from silo_app.errors import SiloscopeError
from silo_app.flare.consortium_file import FILE_NAME, Members, read_members
from silo_app.flare.site import kit_of

__all__ = ["Door", "Guests"]

_log = logging.getLogger(__name__)


_SERVERS_OWN = (AUTH_CLIENT_NAME_FOR_SJ, "server")
"""Names under which the server's processes send; the server signs for them, and certifies nobody with one of them."""


class Door(FLComponent):  # type: ignore[misc]
    """In the server's parent process, through which everything passes: turns away who is no member, at every message."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Stand before NVFlare's own check of a message, which takes the name away, and before its registration."""
        if event_type != EventType.SYSTEM_START:
            return
        server = fl_ctx.get_engine().server
        guests = Guests(kit_of(fl_ctx), lambda name: _show_out(server, name))

        def pass_on(message: Message) -> Message | None:
            return _refused(guests.no_member(message))

        def register(request: Message) -> Any:
            return _refused(guests.wrong_certificate(request)) or server.register_client(request)

        filters = server.cell.core_cell.in_filter_reg
        filters.set("*", "*", [Callback(pass_on, (), {}), *(filters.find("*", "*") or ())])
        server.cell.register_request_cb(CellChannel.SERVER_MAIN, CellChannelTopic.Register, register)


def _show_out(server: Any, name: str) -> None:
    """Have NVFlare forget a site that is registered, on a thread of its own: else it would wait for its answers."""
    tokens = [token for token, client in list(server.client_manager.get_clients().items()) if client.name == name]
    for token in tokens:
        threading.Thread(target=server.logout_client, args=(token,), name="door", daemon=True).start()


class Guests:
    """What `local/consortium.json` of the kit says now: it is read again when provisioning has written another."""

    def __init__(self, kit: Path, show_out: Callable[[str], None]) -> None:
        self._kit = kit
        self._show_out = show_out
        self._read = (0, 0)
        self._members = Members((), "")
        self._turned_away: set[str] = set()

    def no_member(self, message: Message) -> str:
        """Return why a message is not from a member, or "": whether it is from whom it says, and says, NVFlare looks."""
        name = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        if name is None or name in _SERVERS_OWN or self._now().has(name):
            return ""
        if name not in self._turned_away:
            self._turned_away.add(name)
            _log.warning("turned away: %s, which is not in this federation", name)
            self._show_out(name)
        return "not in this federation"

    def wrong_certificate(self, request: Message) -> str:
        """Return why nobody is registered with the certificate in this request, or "": NVFlare looks at the rest."""
        payload = request.payload
        content = payload.get(IdentityChallengeKey.CERT) if isinstance(payload, Shareable) else None
        if not content:
            return ""
        try:
            serial = load_crt_chain_bytes(content)[0].serial_number
        except Exception:  # noqa: BLE001  (a stranger's bytes)
            return "not a certificate"
        if serial not in self._now().revoked:
            return ""
        _log.warning("turned away: %s, with a revoked certificate", request.get_header(CellMessageHeaderKeys.CLIENT_NAME))
        return "a revoked certificate"

    def _now(self) -> Members:
        try:
            found = (self._kit / "local" / FILE_NAME).stat()
            if self._read != (found.st_mtime_ns, found.st_ino):
                self._read = (found.st_mtime_ns, found.st_ino)
                self._members = read_members(self._kit)
                self._turned_away.clear()
        except (OSError, SiloscopeError) as error:
            _log.error("members as they were before, if any: %s", error)
        return self._members


def _refused(why: str) -> Message | None:
    return make_reply(ReturnCode.UNAUTHENTICATED, error=why) if why else None
