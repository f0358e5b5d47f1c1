"""The way to a silo's asking process, for the hospital's own programs: its web pages, and `silo search`."""

from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from silo_app.config import SiloHome
from silo_app.errors import Busy, ConfigInvalid, ImageUnsupported, MessageInvalid, ProcessFailed
from silo_app.imaging.content import read_bytes
from silo_app.search.desk.messages import (
    MAX_SEARCH_BYTES,
    DeskAsked,
    DeskError,
    DeskFound,
    DeskSearch,
    DeskState,
)
from silo_app.search.examples import Example
from silo_app.search.find import Found, Wanted, find
from silo_app.search.local import Connections
from silo_app.search.wire import decode, encode

__all__ = ["Desk", "find_soonest"]

_AT_ONCE_S = 1.0
_STATE_S = 10.0
"""While it loads a network it may be slow to say anything."""
_PREPARING_S = 60.0
"""How long reading, loading and embedding may take beside the silos' time."""
_USUAL_MS = 30_000
"""At least what silos may take where that is left to the desk."""


class Desk:
    """A silo's asking process, as others see it; keeps its connections, for many threads."""

    def __init__(self, socket: Path) -> None:
        self._connections = Connections(socket, largest=MAX_SEARCH_BYTES)

    @classmethod
    def at(cls, home: SiloHome) -> Self:
        """Return the way to this silo's, whether it runs or not."""
        return cls(home.desk_socket)

    @property
    def runs(self) -> bool:
        """Whether it runs and says so at once."""
        try:
            self.state(_AT_ONCE_S)
        except (ProcessFailed, MessageInvalid):
            return False
        return True

    def state(self, within_s: float = _STATE_S) -> DeskState:
        """Return how it is. Raises `ProcessFailed` if it does not run, or does not say so in time."""
        reply = decode(self._connections.exchange(encode(DeskAsked()), within_s), DeskState, DeskError)
        if isinstance(reply, DeskError):
            raise reply.error()
        return reply

    def search(self, wanted: Wanted) -> Found:
        """Have it find something; files are read here and sent to it.

        Raises what `search.find.find` raises, and `Busy`, `ProcessFailed` if it does not run or ends meanwhile,
        `MessageInvalid` for more than `MAX_SEARCH_BYTES`, `ConfigInvalid` for what cannot be asked.
        """
        frame = encode(_question(_loaded(wanted)))
        patience_s = 2 * (wanted.budget_ms or _USUAL_MS) / 1000 + _PREPARING_S  # a private search asks twice
        reply = decode(self._connections.exchange(frame, patience_s), DeskFound, DeskError)
        if isinstance(reply, DeskError):
            error = reply.error()
            if isinstance(error, ImageUnsupported):
                error.where = _files(wanted).get(error.where, error.where)
            raise error
        return reply.found()

    def close(self) -> None:
        """End its connections; a later question makes one anew."""
        self._connections.close()


def find_soonest(home: SiloHome, wanted: Wanted) -> Found:
    """Have the silo's asking process find it; find it here if that does not run, or is busy. Raises as `find` does."""
    desk = Desk.at(home)
    try:
        if desk.runs:
            return desk.search(wanted)
    except (Busy, ProcessFailed, MessageInvalid):
        pass  # it ended meanwhile, is of another version, or does not take on so much
    finally:
        desk.close()
    return find(home, wanted)


def _loaded(wanted: Wanted) -> Wanted:
    """Read what is named by files. Raises `ImageUnsupported`."""
    refinement = replace(
        wanted.refinement,
        more=[_content(example) for example in wanted.refinement.more],
        less=[_content(example) for example in wanted.refinement.less],
    )
    return replace(wanted, example=_content(wanted.example), refinement=refinement)


def _content(example: Example) -> Example:
    return example if example.file is None else Example(content=_bytes(example.file))


def _bytes(file: Path) -> bytes:
    try:
        return read_bytes(file)
    except ImageUnsupported as error:
        error.where = str(file)
        raise


def _question(wanted: Wanted) -> DeskSearch:
    try:
        return DeskSearch.of(wanted)
    except ValidationError as error:
        problems = sorted({f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()})
        raise ConfigInvalid("; ".join(problems), where="search", remedy="Change what you ask for.") from None


def _files(wanted: Wanted) -> dict[str, str]:
    """Return the files by what the desk calls their contents."""
    question = {"image": wanted.example}
    question |= {f"more-like image {number}": one for number, one in enumerate(wanted.refinement.more, 1)}
    question |= {f"less-like image {number}": one for number, one in enumerate(wanted.refinement.less, 1)}
    return {name: str(example.file) for name, example in question.items() if example.file is not None}
