"""What the server looks at before it relays: what every silo would refuse costs its author a place, not everybody the round.

The server has the root's certificate and what silos sign, and no key. Silos verify everything again: of this they need
believe nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from silo_app.aggregation.bundle import read_bundle
from silo_app.aggregation.entry import require_entrant
from silo_app.aggregation.keys import Announcement, Roster, is_usable, read_announcement
from silo_app.aggregation.place import Members, Place
from silo_app.aggregation.survivors import read_reveal, read_signature
from silo_app.errors import KeyRefused, ProtocolError, RoundRefused, UpdateRefused
from silo_app.identity import Trust

__all__ = ["Vetting", "most_of"]

REMEDY = "Nothing of it was used; the others go on without it."
T = TypeVar("T")


def most_of(values: Iterable[T]) -> T | None:
    """Return the value that more than half of `values` have; None if there is no such."""
    counts = Counter(values)
    most = counts.most_common(1)
    return most[0][0] if most and 2 * most[0][1] > counts.total() else None


class Vetting:
    """The silos of one job as the server knows them, and whether a message of one of them is what it must be."""

    def __init__(self, job: str, trust: Trust) -> None:
        """Begin without silos; `trust` is that of the server's own kit."""
        self._job = job
        self._trust = trust
        self._members: Members | None = None

    def muster(self, announcements: Mapping[str, bytes]) -> dict[str, ProtocolError]:
        """Fix who is in the job; return, by silo, why others are not.

        A silo is not if its announcement does not verify, if its key is none or another one's too, or if it starts from
        other weights, settings or rounds than most. Where there are no such, the silos themselves will say why not.
        """
        refused: dict[str, ProtocolError] = {}
        read: dict[str, Announcement] = {}
        for name, signed in sorted(announcements.items()):
            try:
                read[name] = self._read(name, signed)
            except ProtocolError as error:
                refused[name] = error
        for unlike in (_of_one_key, _of_other_start, _of_other_rounds):
            refused |= unlike(read)
            read = {name: one for name, one in read.items() if name not in refused}
        self._members = Members.of(self._job, Roster.of(read, {name: announcements[name] for name in read}), self._trust)
        return refused

    def entry(self, silo: str, request: bytes) -> None:
        """Look at a silo's request to enter the job. Raises `ProtocolError`."""
        require_entrant(request, job=self._job, silo=silo, trust=self._trust)

    def bundle(self, silo: str, number: int, signed: bytes) -> None:
        """Look at a silo's mask bundle for a round. Raises `ProtocolError`."""
        read_bundle(silo, signed, self._place(number))

    def signature(self, silo: str, number: int, survivors: Iterable[str], signed: bytes) -> None:
        """Look at a silo's signature under who arrived. Raises `ProtocolError`."""
        if read_signature(self._place(number), silo, signed) != tuple(sorted(survivors)):
            raise RoundRefused("it signed that others arrived", where=f"{silo}, {self._place(number)}", remedy=REMEDY)

    def reveal(self, silo: str, number: int, survivors: Iterable[str], signed: bytes) -> None:
        """Look at what a silo reveals; whether its shares are right, silos see. Raises `ProtocolError`."""
        read_reveal(silo, signed, self._place(number), tuple(sorted(survivors)))

    def _place(self, number: int) -> Place:
        if self._members is None:
            raise RoundRefused("the silos of the job are not fixed yet", where=self._job, remedy=REMEDY)
        return Place(self._members, number)

    def _read(self, name: str, signed: bytes) -> Announcement:
        announcement = read_announcement(name, signed, self._trust)
        if announcement.job != self._job:
            raise _refused(name, f"its announcement is of another job than {self._job}")
        if not is_usable(announcement.public):
            raise _refused(name, "its X25519 key is none")
        return announcement


def _of_one_key(read: Mapping[str, Announcement]) -> dict[str, ProtocolError]:
    counts = Counter(one.public for one in read.values())
    return {name: _refused(name, "its X25519 key is another's too") for name, one in read.items() if counts[one.public] > 1}


def _of_other_start(read: Mapping[str, Announcement]) -> dict[str, ProtocolError]:
    usual = most_of(_start(one) for one in read.values())
    return {
        name: _unlike(name, "starts from other weights, tensors or settings")
        for name, one in read.items()
        if usual not in {None, _start(one)}
    }


def _start(one: Announcement) -> tuple[bytes, bytes, bytes, str]:
    return one.layout, one.initial, one.settings, one.first_job


def _of_other_rounds(read: Mapping[str, Announcement]) -> dict[str, ProtocolError]:
    """Return who says of the same rounds that they were others than most say; one that missed rounds may catch up."""
    usual = {
        number: most_of(one.basis for one in read.values() if one.next_round == number)
        for number in {one.next_round for one in read.values()}
    }
    return {
        name: _unlike(name, f"says of the rounds before round {one.next_round} that they were others")
        for name, one in read.items()
        if usual[one.next_round] not in {None, one.basis}
    }


def _refused(silo: str, problem: str) -> KeyRefused:
    return KeyRefused(problem, where=silo, remedy=REMEDY)


def _unlike(silo: str, problem: str) -> UpdateRefused:
    return UpdateRefused(
        f"it {problem} than most silos", where=silo, remedy="Compare its versions of siloscope, torch and numpy with theirs."
    )
