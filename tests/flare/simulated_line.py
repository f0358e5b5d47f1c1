"""The server's line to silos whose messages are real, without a network between."""

from types import SimpleNamespace

import numpy as np
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply

from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.vetting import Vetting
from silo_app.encoder.ledger import NUMBERS, STATISTICS, UPDATE, ClosedRound
from silo_app.encoder.roll import Roll
from silo_app.errors import SiloscopeError
from silo_app.flare import words
from silo_app.flare.line import Line
from silo_app.flare.round_trip import Answers


class SimulatedLine:
    """`Line` in front of sessions: `faults` maps (silo, task) to an error, "late" or a function of the reply."""

    def __init__(self, federation):
        self.federation, self.roll, self.job = federation, Roll(), federation.job
        self.others, self.before = {}, {}
        """By task: what a silo answers that its session knows nothing of."""
        self.faults, self.gone, self.absent, self.told, self.aborted = {}, set(), set(), [], False
        self.patience = {}
        """By task: how long was waited for its answers."""
        self.vetting = Vetting(federation.job, federation.root.identity("coordinator").trust)

    @classmethod
    def begun(cls, federation):
        """Return the line of a job whose silos have their keys and have sent their masks for the first round."""
        line = cls(federation)
        assert line.vetting.muster({silo: session.announce() for silo, session in federation.sessions.items()}) == {}
        line.roll.enrol(federation.sessions, 0)
        for silo, session in federation.sessions.items():
            line.roll.heard(silo, 0, (0, session.share_secrets(0)))
        return line

    note = Line.note

    def is_gone(self, silo):
        return silo in self.gone

    def is_absent(self, silo):
        return silo in self.gone | self.absent

    def tell(self, text):
        self.told.append(text)

    def cancel(self, task):
        task.completion_status = "cancelled"

    def post(self, name, data, silo, *, deadline_s, done):
        reply = self._reply(name, data, silo)
        done(reply)
        return SimpleNamespace(completion_status="done" if reply is not None else None)

    def ask(self, name, data, silos, patience, *, take=None, meanwhile=lambda: None):
        answers, self.patience[name] = Answers(), patience
        meanwhile()
        for silo in silos:
            reply = self._reply(name, data, silo)
            if reply is None:
                answers.missing[silo] = "gone" if silo in self.gone else "late"
                continue
            if reply.get_return_code() != ReturnCode.OK:
                answers.refused[silo] = reply[words.REFUSAL]
                continue
            try:
                if take is not None:
                    take(silo, reply)
                answers.accepted[silo] = reply
            except SiloscopeError as error:
                answers.refused[silo] = {"code": error.code, "public": error.public}
        return answers

    def _reply(self, name, data, silo):
        fault = self.faults.get((silo, name))
        if silo in self.gone or fault == "late":
            return None
        session, reply = self.federation.sessions[silo], make_reply(ReturnCode.OK)
        try:
            if isinstance(fault, SiloscopeError):
                raise fault
            self._answer(session, name, data, reply)
            if callable(fault):
                fault(reply)
        except SiloscopeError as error:
            reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
            reply[words.REFUSAL] = {"code": error.code, "public": error.public}
        reply.setdefault(words.NEXT_ROUND, session.next_round)
        self.note(silo, reply)
        return reply

    def _joining(self, session):
        """Return the session, or another one if this one has fixed who is in the job (as `Participation` does)."""
        if session._exchange.roster is not None:
            session = self.federation.sessions[session.silo] = SiloSession(
                session.job,
                session._identity,
                session.layout,
                initial=session._exchange.initial,
                samples=session.samples,
                settings=session.settings,
                min_silos=session.min_silos,
            )
        return session

    def _begin(self, session, name, data, reply):
        if name == words.TASK_JOIN:
            reply[words.ANNOUNCEMENT] = self._joining(session).announce()
        elif name == words.TASK_AGREE:
            reply[words.WRAPPED_KEYS] = session.receive_roster(data[words.ROSTER])
        elif session.silo in data.get(words.WRAPPED_KEYS, ()) and session._exchange.cipher is None:
            session.receive_key(data[words.WRAPPED_KEYS][session.silo])

    def _answer(self, session, name, data, reply):
        if words.CLOSED in data:
            close(session, data[words.CLOSED], self.before)
        if name in self.others:
            self.others[name](session.silo, data, reply)
        elif name in {words.TASK_JOIN, words.TASK_AGREE, words.TASK_CATCH_UP}:
            self._begin(session, name, data, reply)
        elif name == words.TASK_ROUND:
            session.begin_round(data[words.ROUND], data[words.BUNDLES])
            number, update = data[words.ROUND], np.full(session.layout.size, 1e-3, dtype=np.float32)
            message = {
                STATISTICS: lambda: session.encrypt_statistics(number),
                NUMBERS: lambda: session.encrypt_numbers(number, {}),
            }.get(data[words.CONTENT], lambda: session.encrypt_update(number, update))()
            reply[words.UPDATE] = message.tobytes()
        elif name == words.TASK_SIGN:
            reply[words.SIGNATURE] = session.sign_survivors(data[words.ROUND], data[words.SURVIVORS])
        elif name == words.TASK_REVEAL:
            reply[words.REVEAL] = session.reveal(data[words.ROUND], data[words.SIGNATURES])
        if words.BUNDLE_ROUND in data:
            reply[words.BUNDLE_ROUND] = data[words.BUNDLE_ROUND]
            reply[words.BUNDLE] = session.share_secrets(data[words.BUNDLE_ROUND])


def close(session, packed, before):
    """Close a round; `before` is what each silo had before its last sum of updates."""
    closed = ClosedRound.unpacked(packed)
    if closed.number < session.next_round:
        return
    if closed.void:
        session.void_round(closed.number, None if closed.undoes is None else before[session.silo])
    else:
        if closed.content == UPDATE:
            before[session.silo] = session.export_state()
        session.open_sum(closed.number, closed.message, closed.contributors, closed.reveals, closed.bundles)
