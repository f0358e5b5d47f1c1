"""The files of an ingest, brought here one by one as the decoders ask for them, and put away when they are read.

So the spool holds a few files, however many an archive has, and fetching goes on while others are decoded.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from silo_app.durable import private_folder
from silo_app.errors import ImageUnsupported, SiloscopeError, SourceUnreachable
from silo_app.imaging.sources import Fetch, Source, SourceFile
from silo_app.imaging.worker import Request

__all__ = ["Arriving", "arriving"]

_NOWHERE = "/nonexistent"


class Arriving(Sequence[Request]):
    """The requests to the decoders; each item is fetched when it is first asked for."""

    def __init__(
        self,
        todo: Sequence[tuple[Source, SourceFile]],
        request: Callable[[int, Path], Request],
        fetches: Callable[[Source], Fetch],
        spool: Path,
    ) -> None:
        self._todo, self._request, self._fetches, self._spool = todo, request, fetches, spool
        self._requests: dict[int, Request] = {}
        self._failures: dict[int, dict[str, Any]] = {}
        self.unreachable: dict[str, SiloscopeError] = {}
        """Sources that stopped answering, by name; their remaining files wait for the next ingest."""

    def __len__(self) -> int:
        """How many files there are to read."""
        return len(self._todo)

    def __getitem__(self, index: Any) -> Any:
        """Return a request, fetching its file."""
        if index not in self._requests:
            self._requests[index] = self._request(index, self._fetched(index))
        return self._requests[index]

    def settled(self, index: int, reply: dict[str, Any]) -> dict[str, Any] | None:
        """Put a file away; return the decoder's reply, why it could not be fetched, or None if its source is away."""
        path = Path(self._requests.pop(index).path)
        if path.parent == self._spool:
            path.unlink(missing_ok=True)
        if index in self._failures:
            return self._failures.pop(index) or None
        return reply

    def _fetched(self, index: int) -> Path:
        source, file = self._todo[index]
        if source.name in self.unreachable:
            self._failures[index] = {}
            return Path(_NOWHERE)
        try:
            return self._fetches(source)(file)
        except ImageUnsupported as error:
            self._failures[index] = {"reason": error.reason, "detail": error.problem}
        except SiloscopeError as error:
            self._failures[index] = {}
            self.unreachable[source.name] = error
        except OSError as error:  # no room in the spool, or a disk that went away
            self._failures[index] = {}
            self.unreachable[source.name] = SourceUnreachable(
                f"a file cannot be brought here: {error.strerror}",
                where=source.name,
                remedy="Make room on the disk of the silo's folder, and run `silo ingest` again: it goes on from here.",
            )
        return Path(_NOWHERE)


@contextmanager
def arriving(
    todo: Sequence[tuple[Source, SourceFile]], request: Callable[[int, Path], Request], spool: Path
) -> Iterator[Arriving]:
    """Open a source when a file of it is asked for, and close the one before; empty the spool when the block ends.

    One at a time: two archives that send by C-MOVE may call us back at the same port.
    """
    with suppress(FileNotFoundError):
        shutil.rmtree(spool)  # what a killed ingest left
    private_folder(spool)
    opened: dict[str, Fetch] = {}
    try:
        with ExitStack() as stack:

            def fetches(source: Source) -> Fetch:
                if source.name not in opened:
                    opened.clear()
                    stack.close()
                    opened[source.name] = stack.enter_context(source.fetching(spool))
                return opened[source.name]

            yield Arriving(todo, request, fetches, spool)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
