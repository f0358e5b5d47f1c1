"""In place of a silo's index process: it searches its index and says nothing, and knows neither keys, policy nor audit log.

What a query costs with these in the silos is the least that any search costs which asks them with NVFlare's messages.
"""

import os
import sys
from pathlib import Path

from benchmarks.searching import unit_vectors
from silo_app import config
from silo_app.index.generations import open_current
from silo_app.search.local import FrameServer
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack

REPLY = os.urandom(1500)
"""As long as an answer with ten cards, and nothing that a transport could make shorter."""
_K = 10


def main(kit: Path) -> None:
    """Answer until standard input ends: with whoever started it, at the latest."""
    home = config.load(kit)
    gallery, queries = open_current(home.index).gallery, iter(unit_vectors(7, 10_000))

    def answer(frame: bytes) -> bytes:
        if not is_parcel(frame):  # asked for its keys, or its generation
            return b""
        contents = unpack(frame).contents
        for _ in contents:
            gallery.search(next(queries), _K)
        return pack(Parcel(tuple(Content(content.number, REPLY) for content in contents)))

    server = FrameServer(home.index_socket, answer)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
