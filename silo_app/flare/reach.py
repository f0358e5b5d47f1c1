"""Does the server answer at all? Asked before NVFlare logs in, which waits long for one that does not, or for ever.

Over `tcp` NVFlare 2.9 begins TLS without a time limit: at a server that is stopped or hangs, whose system goes on taking
connections, the login never returns.
"""

import contextlib
import socket
import ssl
import time
from pathlib import Path

from silo_app.errors import ServerUnreachable

__all__ = ["require_answer"]

_LISTENS_WITHIN_S = 4.0
"""So long is waited for somebody to listen at the server's port: one that has just been started does soon."""
_ANSWERS_WITHIN_S = 10.0
"""TLS takes two or three ways there and back, beside what else the server does."""
_ASK_AGAIN_S = 0.1


def require_answer(host: str, port: int, kit: Path) -> None:
    """Raise `ServerUnreachable` if nobody listens at the server's port, its name leads nowhere, or it says nothing there."""
    end = time.monotonic() + _LISTENS_WITHIN_S
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic()))
        except OSError as error:
            if time.monotonic() + _ASK_AGAIN_S > end:
                raise ServerUnreachable(
                    f"nobody answers at {host}:{port} ({error.strerror or error})",
                    where=str(kit),
                    remedy="Is the server running (`consortium status`), and does this machine reach it?",
                ) from None
            time.sleep(_ASK_AGAIN_S)
        else:
            with connection:
                return _require_tls(connection, kit, f"{host}:{port}")


def _require_tls(connection: socket.socket, kit: Path, where: str) -> None:
    """Raise `ServerUnreachable` if nothing comes back; what is wrong with what does is for the login to say."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    startup = kit / "startup"
    with contextlib.suppress(OSError):  # the login says what is wrong with them
        context.load_verify_locations(startup / "rootCA.pem")
        context.load_cert_chain(startup / "client.crt", startup / "client.key")
    connection.settimeout(_ANSWERS_WITHIN_S)
    try:
        context.wrap_socket(connection).close()
    except TimeoutError:
        raise ServerUnreachable(
            f"a server takes connections at {where}, and has said nothing for {_ANSWERS_WITHIN_S:.0f} s",
            where=str(kit),
            remedy="It hangs, or something between does: ask whoever runs the server (`consortium status` there).",
        ) from None
    except OSError:  # it answered
        return
