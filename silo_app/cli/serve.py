"""`silo serve`: the silo's index process."""

import logging
import signal
import threading

from silo_app.cli.edge import SiloOption, people
from silo_app.collector import settle
from silo_app.config import load


def serve(silo: SiloOption) -> None:
    """Answer other hospitals' queries from this silo's index, as its release policy allows, until it is ended.

    It listens on a private socket for the gateway in the silo's NVFlare process, verifies who asks, and writes every
    answer and refusal to the audit log. A new generation of the index is taken by itself; a changed silo.yaml is read
    at the next start.

    Examples:
        silo serve --silo kits/st-anna
    """
    from silo_app.search.server import IndexProcess

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which instruction sets it tried
    home = load(silo)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    process = IndexProcess(home)
    process.start()
    settle()
    people.print(f"{home.config.name} answers at {home.index_socket}", highlight=False, soft_wrap=True)
    try:
        ended.wait()
    finally:
        process.close()
