"""`silo desk`: the silo's asking process."""

import logging
import signal
import threading

from silo_app.cli.edge import SiloOption, people
from silo_app.collector import settle
from silo_app.config import load


def desk(silo: SiloOption) -> None:
    """Ask all hospitals for this hospital's own programs, with connections, encoder and index kept ready, until it is ended.

    It listens on a private socket for programs of this account: `silo search` asks through it where it runs, and so do
    programs in Python (`silo_app.search.desk.client.Desk`). Another encoder in use is taken by itself; a changed silo.yaml
    is read at the next start. It needs as much memory as PyTorch and the encoder: some hundred megabytes.

    Examples:
        silo desk --silo kits/st-anna
    """
    from silo_app.search.desk.process import DeskProcess

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which instruction sets it tried
    home = load(silo)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    process = DeskProcess(home)
    process.start()
    settle()
    people.print(f"{home.config.name} can be asked at {home.desk_socket}", highlight=False, soft_wrap=True)
    try:
        ended.wait()
    finally:
        process.close()
