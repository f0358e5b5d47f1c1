"""`silo listen`: let the archive send images to the silo."""

import signal
import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from silo_app.cli.edge import SiloOption, people
from silo_app.config import ListenSource, load
from silo_app.errors import NotReady


def listen(
    silo: SiloOption,
    only: Annotated[
        list[str] | None, typer.Option(help="The name of a `listen` source, instead of all; may be given again.")
    ] = None,
) -> None:
    """Take the images that an archive routes to this silo (DICOM C-STORE) into its inbox, until it is ended.

    An image is on disk before the archive is told so. `silo ingest` reads the inbox, at any time.

    Example:
        silo listen --silo kits/st-anna
    """
    from silo_app.imaging.sources.listener import listening

    home = load(silo)
    sources = [source for source in home.config.sources if isinstance(source, ListenSource)]
    chosen = [source for source in sources if not only or source.name in only]
    if not chosen:
        raise NotReady(
            "there is no source of kind `listen` to run",
            where=str(home.kit / "local" / "silo.yaml"),
            remedy="Add one under `sources`: see docs/how-to-connect-a-pacs.md.",
        )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ExitStack() as stack:
        for source in chosen:
            port = stack.enter_context(listening(home, source))
            people.print(f"{source.name}: {source.ae_title} listens at {source.host}:{port}", highlight=False)
        ended.wait()
