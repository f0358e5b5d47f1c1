"""The server names whose messages all silos would refuse, and nobody else's; it has no key for any of it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.aggregation import keys
from silo_app.aggregation.vetting import Vetting, most_of
from silo_app.errors import ProtocolError, RoundRefused
from tests.aggregation.conftest import Root

NAMES = tuple(f"silo-{index:02}" for index in range(5))
A, B, C, D, E = NAMES
ARRIVED = NAMES[:4]


@given(st.lists(st.sampled_from("xyz"), max_size=9))
def test_most_is_more_than_half(values):
    having = [one for one in "xyz" if 2 * values.count(one) > len(values)]
    assert most_of(values) == (having[0] if having else None)


@pytest.fixture
def federation(make):
    return make((1,) * 5, min_silos=3)


def announcements_of(federation):
    return {name: session.announce() for name, session in federation.sessions.items()}


def trust_of(federation):
    return federation.root.identity("coordinator").trust


def vetting_of(federation):
    vetting = Vetting(federation.job, trust_of(federation))
    assert vetting.muster(announcements_of(federation)) == {}
    return vetting


def announced(federation, of, **changed):
    """Return an announcement of a silo with other content, rightly signed."""
    exchange = federation.sessions[of]._exchange
    return keys.announce(dataclasses.replace(exchange._announcement(), **changed), exchange.identity)


UNFIT = {
    "another job": lambda f: announced(f, B, job="job-2"),
    "another's name": lambda f: announced(f, B, silo=C),
    "another's announcement": lambda f: f.sessions[C].announce(),
    "no key": lambda f: announced(f, B, public=bytes(32)),
    "a short key": lambda f: announced(f, B, public=b"x"),
    "other weights": lambda f: announced(f, B, initial=bytes(32)),
    "other tensors": lambda f: announced(f, B, layout=bytes(32)),
    "other settings": lambda f: announced(f, B, settings=bytes(32)),
    "another first job": lambda f: announced(f, B, first_job="job-0"),
    "other rounds": lambda f: announced(f, B, basis=bytes(32)),
    "junk": lambda _: b"junk",
    "nothing": lambda _: b"",
    "cut": lambda f: f.sessions[B].announce()[:-1],
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_silo_that_all_others_would_refuse_is_left_out_and_they_agree(federation, case):
    announcements = announcements_of(federation) | {B: UNFIT[case](federation)}
    with pytest.raises(ProtocolError):
        federation.sessions[A].receive_roster(announcements)
    refused = Vetting(federation.job, trust_of(federation)).muster(announcements)
    assert set(refused) == {B}
    rest = {name: signed for name, signed in announcements.items() if name != B}
    wrapped = federation.sessions[A].receive_roster(rest)
    assert set(wrapped) == {C, D, E}
    for name, key in wrapped.items():
        federation.sessions[name].receive_roster(rest)
        federation.sessions[name].receive_key(key)


def test_a_key_that_two_silos_claim_is_neithers(federation):
    stolen = federation.sessions[C]._exchange._announcement().public
    announcements = announcements_of(federation) | {B: announced(federation, B, public=stolen)}
    assert set(Vetting(federation.job, trust_of(federation)).muster(announcements)) == {B, C}


def test_a_stranger_is_left_out(federation):
    own = federation.sessions[B]._exchange._announcement()
    announcements = announcements_of(federation) | {B: keys.announce(own, Root("another federation").identity(B))}
    assert set(Vetting(federation.job, trust_of(federation)).muster(announcements)) == {B}


def test_without_a_majority_the_silos_decide(federation):
    announcements = {A: federation.sessions[A].announce(), B: announced(federation, B, initial=bytes(32))}
    assert Vetting(federation.job, trust_of(federation)).muster(announcements) == {}


def test_who_missed_rounds_may_come_along(federation):
    behind = announced(federation, B, next_round=3, basis=bytes(32))
    assert Vetting(federation.job, trust_of(federation)).muster(announcements_of(federation) | {B: behind}) == {}


@pytest.fixture
def material(federation):
    """A round that the last of five silos dropped out of."""
    vetting = vetting_of(federation)
    federation.exchange()
    bundles = federation.begin(0)
    signatures = {name: federation.sessions[name].sign_survivors(0, ARRIVED) for name in NAMES}
    reveals = {name: federation.sessions[name].reveal(0, signatures) for name in NAMES}
    return vetting, bundles, signatures, reveals


def test_what_is_of_the_round_passes(material):
    vetting, bundles, signatures, reveals = material
    for name in NAMES:
        vetting.bundle(name, 0, bundles[name])
        vetting.signature(name, 0, ARRIVED, signatures[name])
        vetting.reveal(name, 0, ARRIVED, reveals[name])


def test_what_is_of_another_round_or_silo_is_refused(material):
    vetting, bundles, signatures, reveals = material
    for silo, number, arrived in ((A, 1, ARRIVED), (B, 0, ARRIVED), ("stranger", 0, ARRIVED), (A, 0, ARRIVED[:3])):
        with pytest.raises(ProtocolError):
            vetting.signature(silo, number, arrived, signatures[A])
        with pytest.raises(ProtocolError):
            vetting.reveal(silo, number, arrived, reveals[A])
        if arrived == ARRIVED:
            with pytest.raises(ProtocolError):
                vetting.bundle(silo, number, bundles[A])


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x80"])
def test_junk_is_refused(material, junk):
    vetting = material[0]
    for look in (
        lambda: vetting.bundle(A, 0, junk),
        lambda: vetting.signature(A, 0, ARRIVED, junk),
        lambda: vetting.reveal(A, 0, ARRIVED, junk),
    ):
        with pytest.raises(ProtocolError):
            look()


def test_nothing_passes_before_the_silos_are_fixed(federation):
    with pytest.raises(RoundRefused, match="not fixed yet"):
        Vetting(federation.job, trust_of(federation)).bundle(A, 0, b"")
