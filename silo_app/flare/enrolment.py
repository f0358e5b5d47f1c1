"""The beginning of a training job on the server: who takes part, and the key that they agree on without the server.

A resumed job begins a step earlier: silos take up what they kept, and are sent the closed rounds that they missed.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nvflare.apis.shareable import Shareable

from silo_app.encoder.job_record import JobRecord, Quarantined
from silo_app.encoder.ledger import Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import ProtocolError, RoundRefused, UpdateRefused
from silo_app.flare import words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.line import Line, octets, quarantined, take_back
from silo_app.flare.presence import LONG
from silo_app.flare.round_trip import Patience

__all__ = ["Enrolment"]

_DEADLINE_S = 600.0
_STRAGGLER_S = 60.0
_ATTEMPTS = 3
"""If the silo that makes the key is gone before it has sent it, or sends others, the others begin again without it."""
_POLL_S = 0.1
_MOST_SEALED_BYTES = 1024 * 1024


@dataclass
class Enrolment:
    """Fixes the silos of a job and gets them their key."""

    line: Line
    ledger: Ledger
    plan: TrainingPlan
    record: JobRecord
    catch_up: CatchUp

    def run(self, silos: list[str]) -> dict[str, bytes]:
        """Return the wrapped key of every silo. Raises `RoundRefused` with fewer than `min_silos` silos."""
        if self.plan.resume is not None:
            silos = self._restored(silos)
        for _ in range(_ATTEMPTS):
            roster = self._join(silos)
            agreed, absent, wrapped = self._agree(roster)
            begins = self._opens(roster, agreed, wrapped) if wrapped else not self.line.roll.masked
            if begins:
                self._require(agreed, "agreed on a key", absent)
                self.catch_up.introduction = {words.ROSTER: roster, words.WRAPPED_KEYS: wrapped}
                return wrapped
            silos = sorted(set(silos) - {min(roster)})
        raise RoundRefused("no silo made the job's key", remedy="Look at the silos' logs, then submit the job again.")

    def _restored(self, silos: list[str]) -> list[str]:
        """Let silos take up what they kept, and bring them to the ledger's end."""
        content = {words.PLAN: self._plan_text(), words.JOBS: list(self.ledger.jobs[:-1])}
        answers = self.line.ask(words.TASK_RESTORE, content, silos, self._patience_to_begin())
        asking = {silo: reply[words.ENTRY] for silo, reply in answers.accepted.items() if words.ENTRY in reply}
        members = sorted(set(answers.accepted) - set(asking), key=lambda silo: _newest_first(silo, answers.accepted[silo]))
        absent = quarantined(answers, "restore")
        self.record.step("restore", members, absent)
        self._require(members, "kept their state of the job", absent)
        entries = {silo: entry for silo, entry in asking.items() if self._may_ask(silo, entry)}
        entered = self._admitted(entries, members) if entries else ()
        self.line.roll.enrol([*members, *entered], 0)
        for silo in members:
            self.line.note(silo, answers.accepted[silo])
        self._bring_up()
        self.catch_up.close()
        behind = self._behind()
        return [silo for silo in self.line.roll.members if silo not in behind]

    def _bring_up(self) -> None:
        """Send silos what they missed, until all that are there have it or refuse it again and again."""
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end and not self.line.aborted and self._behind():
            self.catch_up.bring(self._behind())
            given_up = {silo for silo, count in self.catch_up.refusals.items() if count >= _ATTEMPTS}
            if all(silo in given_up or self.line.is_gone(silo) for silo in self._behind()) and not self._takes_back():
                break
            time.sleep(_POLL_S)

    def _takes_back(self) -> bool:
        """Void the last sum if enough silos refuse it and none has opened it: the job ended before they could say so."""
        roll, number = self.line.roll, self.ledger.next_round - 1
        refused = [silo for silo, code in self.catch_up.codes.items() if code == UpdateRefused.code]
        unopened = [silo for silo in refused if roll.position(silo) == number]
        opened = any(roll.position(silo) > number for silo in roll.members)
        if opened or len(unopened) < self.plan.min_silos or self.ledger.read(number).void:
            return False
        take_back(self.line, self.ledger, number)
        self.catch_up.forgive()
        return True

    def _may_ask(self, silo: str, entry: Any) -> bool:
        """Return whether a silo's request can be passed on: the members would refuse all for one that cannot."""
        try:
            if silo in self.plan.admit and isinstance(entry, bytes):
                self.line.vetting.entry(silo, entry)
                return True
        except ProtocolError as error:
            self.line.tell(f"{silo} may not enter: {error.problem}")
        return False

    def _admitted(self, entries: Mapping[str, bytes], members: Sequence[str]) -> tuple[str, ...]:
        """Let the first member that will give the earlier jobs' keys to who asks to enter; return who has begun with them.

        The first are those that opened the most rounds: one that was away for a job does not have its key.
        """
        sealed: dict[str, bytes] = {}

        def take(silo: str, reply: Shareable) -> None:
            sealed.update(_for_each(entries, reply[words.ADMISSIONS], silo))

        for member in members:
            self.line.ask(words.TASK_ADMIT, {words.ENTRIES: dict(entries)}, [member], self._patience(), take=take)
            if sealed or self.line.aborted:
                break
        answers = self.line.ask(words.TASK_ENTER, {words.ADMISSIONS: sealed}, entries, self._patience())
        self.record.step("enter", answers.accepted, quarantined(answers, "enter"))
        self.line.tell(f"entered: {', '.join(sorted(answers.accepted)) or 'nobody'}")
        return tuple(answers.accepted)

    def _behind(self) -> list[str]:
        roll = self.line.roll
        return [silo for silo in roll.members if roll.position(silo) < self.ledger.next_round]

    def _join(self, silos: list[str]) -> dict[str, bytes]:
        content = {words.PLAN: self._plan_text()}
        roster: dict[str, bytes] = {}

        def take(silo: str, reply: Shareable) -> None:
            roster[silo] = octets(reply, words.ANNOUNCEMENT, silo)

        answers = self.line.ask(words.TASK_JOIN, content, silos, self._patience_to_begin(), take=take)
        unfit = self.line.vetting.muster(roster)
        roster = {silo: announcement for silo, announcement in roster.items() if silo not in unfit}
        absent = quarantined(answers, "join") | {silo: Quarantined.of(error, "join") for silo, error in unfit.items()}
        self.record.step("join", roster, absent)
        for silo, error in unfit.items():
            self.line.tell(f"{silo} is not in the job: {error.problem}")
        without = "; ".join(f"{silo}: {why.code}" for silo, why in sorted(absent.items()))
        self.line.tell(f"joined: {', '.join(sorted(roster)) or 'nobody'}" + (f"; without {without}" if without else ""))
        self._require(roster, "joined the job", absent)
        return roster

    def _agree(self, roster: dict[str, bytes]) -> tuple[set[str], dict[str, Quarantined], dict[str, bytes]]:
        """Return who agreed, who did not, and the wrapped keys that one of them made."""
        number = self.ledger.next_round
        self.line.roll.enrol(roster, number)
        content = {words.ROSTER: roster, words.BUNDLE_ROUND: number}
        wrapped: dict[str, bytes] = {}

        def take(silo: str, reply: Shareable) -> None:
            if silo == min(roster):  # nobody else makes keys
                wrapped.update(_for_each(roster, reply[words.WRAPPED_KEYS], silo))

        answers = self.line.ask(words.TASK_AGREE, content, roster, self._patience(), take=take)
        absent = quarantined(answers, "agree")
        self.record.step("agree", answers.accepted, absent)
        return set(answers.accepted), absent, wrapped

    def _opens(self, roster: Mapping[str, bytes], agreed: Collection[str], wrapped: Mapping[str, bytes]) -> bool:
        """Give the silos their keys; return whether they open for half at least. Else the others begin without the maker."""
        maker = min(roster)
        content = {words.ROSTER: dict(roster), words.WRAPPED_KEYS: dict(wrapped)}
        answers = self.line.ask(words.TASK_CATCH_UP, content, set(agreed) - {maker}, self._patience())
        if len(answers.refused) <= len(answers.accepted):
            return True
        self.line.tell(f"{maker} is not in the job: the keys that it made do not open")
        return False

    def _plan_text(self) -> str:
        return json.dumps(self.plan.model_dump(mode="json"))

    def _patience_to_begin(self) -> Patience:
        """Return how long a silo has to join, or to take up what it kept: one that has not is out for the whole job.

        It reads all its images for that. One that is not reached has its while, and after that as long as the others.
        """
        straggler_s = min(_DEADLINE_S, self._straggler_s())
        return Patience(self.plan.min_silos, _DEADLINE_S, straggler_s, unreached=LONG, held=True)

    def _patience(self) -> Patience:
        """Return how long another step may take: it is short, and who is late catches up."""
        return Patience(self.plan.min_silos, _DEADLINE_S, min(_STRAGGLER_S, self._straggler_s()))

    def _straggler_s(self) -> float:
        return max(self.plan.straggler_wait_s, 1.0)

    def _require(self, silos: Collection[Any], what: str, absent: Mapping[str, Quarantined]) -> None:
        if self.line.aborted or len(silos) < self.plan.min_silos:
            why = "; ".join(f"{silo}: {one.code}" for silo, one in sorted(absent.items()))
            raise RoundRefused(
                f"only {len(silos)} silos {what}, {self.plan.min_silos} are needed" + (f" ({why})" if why else ""),
                remedy="Look at the silos named in rounds.json and their logs, then submit the job again.",
            )


def _newest_first(silo: str, reply: Shareable) -> tuple[int, str]:
    position = reply.get(words.NEXT_ROUND)
    return -position if isinstance(position, int) else 0, silo


def _for_each(silos: Collection[str], given: Any, maker: str) -> dict[str, bytes]:
    """Return what a silo made for others, by silo. Raises `UpdateRefused` for anything else."""
    if not isinstance(given, dict) or any(
        silo not in silos or not isinstance(sealed, bytes) or len(sealed) > _MOST_SEALED_BYTES
        for silo, sealed in given.items()
    ):
        raise UpdateRefused("this is nothing for the silos of the job", where=maker, remedy="The job goes on without it.")
    return given
