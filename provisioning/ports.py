"""Ports of this machine: is one free, who has it, and which may we take."""

import contextlib
import random
import socket

import psutil

from silo_app.errors import PortTaken

__all__ = ["free_port", "is_open", "refuse_taken"]

_BELOW_EPHEMERAL = range(20000, 32768)
"""Linux gives outgoing connections ports from 32768 on: a port below stays free while nothing listens on it."""


def is_open(host: str, port: int, *, timeout: float = 0.5) -> bool:
    """Return whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=timeout):
        return True
    return False


def free_port() -> int:
    """Return a port that nothing listens on now; chosen at random, so that two who ask rarely get the same."""
    for port in random.sample(_BELOW_EPHEMERAL, 200):
        if _can_bind(port):
            return port
    raise PortTaken("200 ports tried, none is free", remedy="Name a port of the server in consortium.yaml.")


def refuse_taken(port: int) -> None:
    """Raise `PortTaken`, naming the process if it can be found, unless the port is free."""
    if _can_bind(port):
        return
    raise PortTaken(
        f"port {port} is taken{_owner(port)}",
        where="server.port",
        remedy="Stop that process, or choose another port in consortium.yaml (0: a free one) and provision again.",
    )


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that was just closed does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f" by process {process.pid} ({' '.join(process.cmdline())[:120] or process.name()})"
    return ""
