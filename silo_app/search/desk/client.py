"""The way to a silo's asking process, for the hospital's own programs: its web pages, and `silo search`."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from silo_app.config import SiloHome
from silo_app.errors import ConfigInvalid, ImageUnsupported, MessageInvalid, ProcessFailed, SiloscopeError
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
from silo_app.search.local import Connections, NobodyListens
from silo_app.search.wire import decode, encode

__all__ = ["Desk", "find_soonest"]

_AT_ONCE_S = 1.0
_STATE_S = 10.0
"""While it loads a network it may be slow to say anything."""
_MAY_BE_ASKED = "Hospitals may have been asked: see `asking` in the silo's audit log. To ask again is a search of its own."


class _Declined(Exception):
    """The desk did not take a search on; nobody was asked."""

    def __init__(self, why: SiloscopeError) -> None:
        super().__init__()
        self.why = why


class Desk:
    """A silo's asking process, as others see it; keeps its connections, for many threads."""

    def __init__(self, socket: Path) -> None:
        self._connections = Connections(socket, largest=MAX_SEARCH_BYTES, once=True)

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
        try:
            return self._searched(wanted)
        except _Declined as declined:
            raise declined.why from None

    def search_if_free(self, wanted: Wanted) -> Found | None:
        """Have it find something; None if it does not take that on: it does not run, is busy, or it is too large for it.

        Raises as `search` does for what it has taken on.
        """
        try:
            return self._searched(wanted)
        except _Declined:
            return None

    def _searched(self, wanted: Wanted) -> Found:
        question = _question(_loaded(wanted))
        reply = self._reply(encode(question), question.patience_s)
        if isinstance(reply, DeskError):
            error = reply.error()
            if isinstance(error, ImageUnsupported):
                error.where = _files(wanted).get(error.where, error.where)
            raise error if reply.taken else _Declined(error)
        return reply.found()

    def _reply(self, frame: bytes, within_s: float) -> DeskFound | DeskError:
        try:
            self._connections.require_fits(frame)
        except MessageInvalid as error:
            raise _Declined(error) from None
        try:
            return decode(self._connections.exchange(frame, within_s), DeskFound, DeskError)
        except NobodyListens as error:
            raise _Declined(error) from None
        except (ProcessFailed, MessageInvalid) as error:
            problem = f"the desk has the search and gave no result: {error.problem}"
            raise type(error)(problem, where=error.where, remedy=_MAY_BE_ASKED) from None

    def close(self) -> None:
        """End its connections; a later question makes one anew."""
        self._connections.close()


def find_soonest(home: SiloHome, wanted: Wanted) -> Found:
    """Have the silo's asking process find it; find it here if that does not take it on. Raises as `find` and it do.

    What it has taken on is not asked again: that would cost the hospitals' budgets twice.
    """
    with contextlib.closing(Desk.at(home)) as desk:
        found = desk.search_if_free(wanted) if desk.runs else None
    return find(home, wanted) if found is None else found


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
