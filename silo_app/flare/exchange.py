"""One round on the server: send the order, add what arrives, let the silos agree on who arrived, collect what unmasks it.

Whatever happens the round ends: with a sum, or void. Who did not contribute is named with a code, and costs nobody else.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nvflare.apis.shareable import Shareable

from silo_app.aggregation.settings import threshold
from silo_app.aggregation.sums import RoundSums
from silo_app.encoder.job_record import REJECTED, Quarantined, RoundRecord
from silo_app.encoder.ledger import UPDATE, ClosedRound, Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.roll import drawn
from silo_app.errors import RoundRefused, SumRejected
from silo_app.flare import words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.line import Line, octets, quarantined, take_back
from silo_app.flare.round_trip import Patience

__all__ = ["Exchanges"]

_SHORT_S = 120.0
_SHORT_STRAGGLER_S = 15.0
"""Signing and revealing take milliseconds; who is stopped there is not waited for as a trainer is."""
_RETURN_S = 5.0
"""How long a round waits with its start for silos that are just catching up."""
_POLL_S = 0.1
_UNOPENED = frozenset({"update-refused", "round-refused", "key-refused"})


class _Void(Exception):
    """No error: it ends a round, and says why."""


@dataclass
class Exchanges:
    """The rounds of one job, one after the other."""

    line: Line
    ledger: Ledger
    plan: TrainingPlan
    catch_up: CatchUp
    wrapped_keys: Mapping[str, bytes] = field(default_factory=dict)
    """The job's key for every silo, sent with each order until a round has closed."""

    @property
    def needed(self) -> int:
        """How many silos a round needs."""
        return threshold(len(self.line.roll.members), self.plan.min_silos) if self._masked else self.plan.min_silos

    @property
    def _masked(self) -> bool:
        return self.line.roll.masked

    def run(self, content: str, training_round: int | None) -> RoundRecord:
        """Run the next round and close it in the ledger. Raises `RoundRefused` when the job was aborted meanwhile."""
        number = self.ledger.next_round
        record = RoundRecord(number=number, content=content, round=training_round)
        start = time.monotonic()
        try:
            closed = self._sum(record)
        except _Void as why:
            record.void, record.contributors = str(why), ()
            closed = ClosedRound(number=number, job=self.line.job, content=content)
            if self.take_back(number - 1, record.quarantined, "update"):
                record.takes_back = number - 1
                record.void = f"no silo can open the sum of exchange {number - 1}"
            undoes = self.rejected(record.quarantined, "update", asked=len(record.participants), needed=self.needed)
            if undoes is not None and record.takes_back is None:
                closed, record.undoes, record.void = replace(closed, undoes=undoes), undoes, self._undone(undoes)
        if self.line.aborted:
            raise RoundRefused("the job was aborted", remedy="Submit it again, or with --resume to go on from here.")
        self.ledger.close(closed)
        record.seconds = time.monotonic() - start
        self.line.tell(record.sentence())
        self.line.tell(record.as_line())
        return record

    def bring_up(self, number: int) -> None:
        """Give silos that catch up a moment to do so, and wait longer only for those that the job cannot do without."""
        roll, start = self.line.roll, time.monotonic()
        while not self.line.aborted:
            behind = [silo for silo in roll.members if roll.position(silo) < number - 1 and not self.line.is_gone(silo)]
            self.catch_up.bring(behind, self.catch_up.introduction)
            waited, there = time.monotonic() - start, len(roll.members) - len(behind)
            if not behind or waited > (_RETURN_S if there >= self.plan.min_silos else self.plan.straggler_wait_s):
                return
            time.sleep(_POLL_S)

    def last(self) -> dict[str, Any]:
        """Return what an order says of the round before."""
        number = self.ledger.next_round
        return {words.CLOSED: self.ledger.read(number - 1).packed()} if number else {}

    def _sum(self, record: RoundRecord) -> ClosedRound:
        record.participants = self._gather(record)
        total = self._collect(record)
        try:
            message = total.result()
        except RoundRefused as error:
            raise _Void(error.problem) from None
        record.contributors = total.contributors
        record.quarantine({silo: Quarantined.of(error, "update") for silo, error in total.others.items()})
        record.download_bytes = int(message.nbytes)
        reveals = self._unmask(record) if self._masked else {}
        return ClosedRound(
            number=record.number,
            job=self.line.job,
            content=record.content,
            message=message,
            contributors=record.contributors,
            reveals=reveals,
            bundles=self.line.roll.bundles(record.number, record.participants),
        )

    def _gather(self, record: RoundRecord) -> tuple[str, ...]:
        """Wait until enough silos can take part; who catches up meanwhile gets a moment more."""
        roll, number, start = self.line.roll, record.number, time.monotonic()
        while not self.line.aborted:
            self.catch_up.tend(number)
            ready, waited = roll.participants(number), time.monotonic() - start
            if len(ready) >= self.needed and (not self.catch_up.pending or waited > _RETURN_S):
                break
            if len(ready) < self.needed and waited > min(self.plan.straggler_wait_s, self.plan.round_deadline_s):
                self._name_absent(record, ready)
                raise _Void(f"{len(ready)} silos can take part, {self.needed} are needed")
            time.sleep(_POLL_S)
        ready = roll.participants(number)
        self._name_absent(record, ready)
        return self._drawn(ready, record.round)

    def _drawn(self, ready: tuple[str, ...], training_round: int | None) -> tuple[str, ...]:
        """Return who of those that can take part does: all, unless the plan samples silos for rounds of training."""
        if training_round is None or self.plan.sample == 1:
            return ready
        of, seed = len(self.line.roll.members), self.plan.seed
        return drawn(ready, of=of, sample=self.plan.sample, least=self.needed, seed=seed, training_round=training_round)

    def _name_absent(self, record: RoundRecord, ready: tuple[str, ...]) -> None:
        absent = set(self.line.roll.members) - set(ready)
        gone = {silo for silo in absent if self.line.is_absent(silo)}
        record.quarantine({s: Quarantined.absence("gone" if s in gone else "behind", "order") for s in absent})

    def _collect(self, record: RoundRecord) -> RoundSums:
        roll, number = self.line.roll, record.number
        total = RoundSums(self.line.job, number, min_silos=self.plan.min_silos)
        order = {
            words.ROUND: number,
            words.CONTENT: record.content,
            words.TRAINING_ROUND: record.round,
            words.PARTICIPANTS: list(record.participants),
            words.BUNDLES: roll.bundles(number, record.participants),
            words.WRAPPED_KEYS: dict(self.wrapped_keys),
            **self.last(),
        }

        def take(silo: str, reply: Shareable) -> None:
            update = octets(reply, words.UPDATE, silo)
            if reply.get(words.STOP):
                record.enough.add(silo)
            record.upload_bytes[silo] = len(update)
            total.add(update, silo=silo)

        patience = Patience(self.needed, self.plan.round_deadline_s, self.plan.straggler_wait_s)
        with _Timed(record, "update"):
            answers = self.line.ask(
                words.TASK_ROUND,
                order,
                record.participants,
                patience,
                take=take,
                meanwhile=lambda: self.catch_up.tend(number + 1, busy=record.participants),
            )
        record.quarantine(quarantined(answers, "update"))
        return total

    def take_back(self, number: int, quarantined: Mapping[str, Quarantined], step: str) -> bool:
        """Void exchange `number` too if all silos that answered the `step` after it say that they cannot open its sum.

        Return whether it is void by that: a silo's message may be nonsense, and nobody can see it before it is summed.
        """
        roll = self.line.roll
        refused = [silo for silo, why in quarantined.items() if why.step == step and why.code in _UNOPENED]
        if len(refused) < self.needed or any(roll.position(silo) != number for silo in refused if silo in roll.members):
            return False
        if self.line.aborted or number < 0 or self.ledger.read(number).void:
            return False
        take_back(self.line, self.ledger, number)
        return True

    def rejected(self, quarantined: Mapping[str, Quarantined], step: str, *, asked: int, needed: int) -> int | None:
        """Return the exchange whose sum fails the own tests of so many of the silos `asked` that too few go on; else None.

        They would stand aside for ever: no later sum can come that passes.
        """
        refused = [silo for silo, why in quarantined.items() if why.step == step and why.code == SumRejected.code]
        if self.line.aborted or not refused or asked - len(refused) >= needed:
            return None
        return self.ledger.can_be_undone

    def undo(self, number: int) -> str:
        """Close a round that undoes exchange `number`, between others; return why it does."""
        closed = ClosedRound(number=self.ledger.next_round, job=self.line.job, content=UPDATE, undoes=number)
        why = self._undone(number)
        self.ledger.close(closed)
        return why

    def _undone(self, number: int) -> str:
        self.line.tell(f"exchange {number}: {REJECTED}")
        return f"too many silos reject the sum of exchange {number}, of {', '.join(self.ledger.read(number).contributors)}"

    def _unmask(self, record: RoundRecord) -> dict[str, bytes]:
        """Let the survivors agree on who they are; return what they reveal."""
        survivors, vetting = list(record.contributors), self.line.vetting
        content: dict[str, Any] = {words.ROUND: record.number, words.SURVIVORS: survivors}
        signatures = self._short(record, words.TASK_SIGN, content, survivors, words.SIGNATURE, "sign", vetting.signature)
        self._require(signatures, "signed who arrived")
        content = {words.ROUND: record.number, words.SIGNATURES: signatures, words.BUNDLE_ROUND: record.number + 1}
        reveals = self._short(record, words.TASK_REVEAL, content, signatures, words.REVEAL, "reveal", vetting.reveal)
        self._require(reveals, "revealed their shares")
        return reveals

    def _short(
        self,
        record: RoundRecord,
        task: str,
        content: dict[str, Any],
        silos: Iterable[str],
        wanted: str,
        step: str,
        vet: Callable[[str, int, Iterable[str], bytes], None],
    ) -> dict[str, bytes]:
        """Ask for what takes milliseconds; return what is `wanted` of each reply and can be relayed."""
        given: dict[str, bytes] = {}

        def take(silo: str, reply: Shareable) -> None:
            signed = octets(reply, wanted, silo)
            vet(silo, record.number, record.contributors, signed)
            given[silo] = signed

        patience = Patience(self.needed, _SHORT_S, min(_SHORT_STRAGGLER_S, self.plan.straggler_wait_s))
        with _Timed(record, step):
            answers = self.line.ask(task, content, silos, patience, take=take)
        record.quarantine(quarantined(answers, step))
        return given

    def _require(self, silos: Mapping[str, bytes], what: str) -> None:
        if len(silos) < self.needed:
            raise _Void(f"{len(silos)} silos {what}, {self.needed} are needed")


class _Timed:
    """Writes the seconds of a step into the record."""

    def __init__(self, record: RoundRecord, step: str) -> None:
        self._record, self._step = record, step
        self._clock: Callable[[], float] = time.monotonic

    def __enter__(self) -> None:
        self._start = self._clock()

    def __exit__(self, *_: object) -> None:
        self._record.steps[self._step] = self._clock() - self._start
