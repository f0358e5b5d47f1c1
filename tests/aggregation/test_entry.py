"""A silo that was not in a training enters it when it is resumed, and comes to the same weights by itself."""

import dataclasses

import msgpack
import numpy as np
import pytest

from silo_app.aggregation import entry
from silo_app.aggregation.cipher import new_secret
from silo_app.aggregation.entry import Entry, admitted, require_entrant
from silo_app.aggregation.progress import EarlierJob, entering
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.settings import AggregationSettings
from silo_app.errors import KeyRefused, ProtocolError, SignatureInvalid
from tests.aggregation.conftest import INITIAL, LAYOUT, Federation, Root

COUNTS = (10, 20, 30)
ONE, NEW = "silo-01", "silo-03"
EARLIER = (EarlierJob("job-1", b"roster", ("a", "b"), b"secret"), EarlierJob("job-2", b"other", ("a",), b""))


@pytest.fixture
def member(root):
    return root.identity(ONE)


@pytest.fixture
def newcomer(root):
    return Entry("job-2", root.identity(NEW))


def test_a_member_hands_over_the_keys_of_all_jobs(member, newcomer):
    assert require_entrant(newcomer.request(), job="job-2", silo=NEW, trust=member.trust)
    assert newcomer.open(admitted(newcomer.request(), job="job-2", silo=NEW, own=member, earlier=EARLIER)) == EARLIER


def test_nobody_else_opens_it(root, member, newcomer):
    sealed = admitted(newcomer.request(), job="job-2", silo=NEW, own=member, earlier=EARLIER)
    assert b"secret" not in sealed
    with pytest.raises(KeyRefused, match="does not open"):
        Entry("job-2", newcomer.identity).open(sealed)
    with pytest.raises(KeyRefused, match="not from a silo for this one"):
        Entry("job-2", root.identity("silo-04")).open(sealed)
    with pytest.raises(KeyRefused, match="of job job-2"):
        Entry("job-3", newcomer.identity).open(sealed)


@pytest.mark.parametrize(("job", "silo"), [("job-3", NEW), ("job-2", "silo-04")])
def test_a_request_is_for_one_job_and_of_one_silo(member, newcomer, job, silo):
    with pytest.raises(KeyRefused):
        admitted(newcomer.request(), job=job, silo=silo, own=member, earlier=EARLIER)


def test_strangers_and_servers_are_not_admitted_and_admit_nobody(root, member, newcomer):
    stranger = Root("another federation")
    with pytest.raises(SignatureInvalid):
        admitted(Entry("job-2", stranger.identity(NEW)).request(), job="job-2", silo=NEW, own=member, earlier=EARLIER)
    outside = dataclasses.replace(stranger.identity(ONE), trust=member.trust)
    with pytest.raises(SignatureInvalid):
        newcomer.open(admitted(newcomer.request(), job="job-2", silo=NEW, own=outside, earlier=EARLIER))
    server = root.identity("server", servers=frozenset({"server"}))
    with pytest.raises(KeyRefused):
        own = dataclasses.replace(member, trust=server.trust)
        admitted(Entry("job-2", server).request(), job="job-2", silo="server", own=own, earlier=EARLIER)
    aware = Entry("job-2", dataclasses.replace(newcomer.identity, trust=server.trust))
    with pytest.raises(KeyRefused):
        aware.open(admitted(aware.request(), job="job-2", silo=NEW, own=server, earlier=EARLIER))


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x80"])
def test_junk_is_refused(member, newcomer, junk):
    with pytest.raises(ProtocolError):
        newcomer.open(junk)
    with pytest.raises(ProtocolError):
        admitted(junk, job="job-2", silo=NEW, own=member, earlier=EARLIER)


@pytest.mark.parametrize("content", [7, [7], [["job"]], [["job", b"r", "names", b"s"]], [["job", b"r", [], 7]], {"a": 1}])
def test_what_holds_no_jobs_is_refused(monkeypatch, member, newcomer, content):
    pack = msgpack.packb
    monkeypatch.setattr(entry.msgpack, "packb", lambda what: pack(content if what == [] else what))
    sealed = admitted(newcomer.request(), job="job-2", silo=NEW, own=member, earlier=())
    with pytest.raises(KeyRefused, match="holds no jobs"):
        newcomer.open(sealed)


@pytest.mark.parametrize("encryption", ["bfv", "none"])
def test_a_silo_that_enters_replays_all_sums_and_then_weighs_as_the_others(make, root, encryption):
    """Its first weights are everybody's; the sums it opens with the old key, the new statistics count it."""
    stopped = make(COUNTS, encryption=encryption).exchange()
    closed = {0: _closed(stopped, 0, None)}
    for number in (1, 2):
        closed[number] = _closed(stopped, number, stopped.updates(number))
    states = {name: session.export_state() for name, session in stopped.sessions.items()}

    again = make(COUNTS, job="job-2", states=states, encryption=encryption)
    for session in again.sessions.values():
        assert session.next_round == 3
    asking = Entry("job-2", root.identity(NEW, servers=frozenset({"server"})))
    own = again.sessions[ONE]
    sealed = admitted(asking.request(), job="job-2", silo=NEW, own=own._identity, earlier=own.earlier)
    settings = AggregationSettings(encryption=encryption)
    new = SiloSession(
        "job-2",
        asking.identity,
        LAYOUT,
        initial=INITIAL,
        samples=40,
        settings=settings,
        state=entering(NEW, LAYOUT, INITIAL, settings, samples=40, earlier=asking.open(sealed)),
    )
    for number, (parts, bundles) in closed.items():
        new.open_sum(number, *parts, bundles)
    assert new._progress.basis == own._progress.basis

    joined = Federation(root, again.sessions | {NEW: _renewed(new, asking.identity)}, job="job-2").exchange()
    joined.statistics(3)
    assert {session._progress.total for session in joined.sessions.values()} == {100}
    updates = joined.updates(4)
    for opened in joined.round(4, updates).values():
        np.testing.assert_allclose(opened, joined.mean(updates), atol=2e-4)


def _renewed(session, identity):
    """The session that announces itself, made when the rounds so far are closed (`Participation.join`)."""
    return SiloSession(
        session.job,
        identity,
        session.layout,
        initial=INITIAL,
        samples=session.samples,
        settings=session.settings,
        state=session.export_state(),
    )


def _closed(federation, number, updates):
    """Run a round and let all silos open it; return what a silo that was away is sent."""
    if updates is None:
        federation.begin(number)
        messages = {name: session.encrypt_statistics(number) for name, session in federation.sessions.items()}
        result, names = federation.add(number, messages)
        parts = result, names, federation.reveal(number, names)
    else:
        parts = federation.sum(number, updates)
    for session in federation.sessions.values():
        session.open_sum(number, *parts)
    return parts, federation.bundles[number]


def test_a_silo_that_was_given_other_keys_opens_nothing(make, root):
    stopped = make(COUNTS).exchange()
    parts, bundles = _closed(stopped, 0, None)
    wrong = EarlierJob("job-1", b"x" * 32, tuple(stopped.sessions), new_secret())
    session = SiloSession(
        "job-2",
        root.identity(NEW),
        LAYOUT,
        initial=INITIAL,
        samples=40,
        state=entering(NEW, LAYOUT, INITIAL, AggregationSettings(), samples=40, earlier=(wrong,)),
    )
    with pytest.raises(ProtocolError):
        session.open_sum(0, *parts, bundles)
    assert session.next_round == 0
