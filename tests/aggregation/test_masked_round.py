"""Bundles, signatures and reveals that are wrong: noticed, named after their author, and without effect."""

import re
from dataclasses import asdict, replace

import msgpack
import numpy as np
import pytest

from silo_app.aggregation import survivors
from silo_app.aggregation.bundle import BUNDLE, PAIR, SELF, private_key, read_bundle
from silo_app.aggregation.masked_round import MaskedRound
from silo_app.aggregation.place import Place
from silo_app.aggregation.unmasking import remaining
from silo_app.errors import KeyRefused, MessageInvalid, RoundRefused, SignatureInvalid, UpdateRefused

ONE, TWO, LAST = "silo-01", "silo-02", "silo-03"


@pytest.fixture
def federation(make):
    return make((1,) * 4).exchange()


def forged(federation, name, **changes):
    """Return the bundle of `name` with something changed, signed by it again."""
    session = federation.sessions[name]
    payload = session._identity.trust.verify(session.share_secrets(0), context=BUNDLE).payload
    return session._identity.sign(msgpack.packb({**msgpack.unpackb(payload), **changes}), context=BUNDLE)


def others(federation, name, content):
    return {other: content for other in federation.sessions if other != name}


BUNDLES = {
    "another round": (lambda f: forged(f, ONE, number=1), KeyRefused, "round 1 of job job-1"),
    "another job": (lambda f: forged(f, ONE, job="job-9"), KeyRefused, "of job job-9"),
    "another list of silos": (lambda f: forged(f, ONE, roster=bytes(32)), KeyRefused, "another list of silos"),
    "another silo": (lambda f: forged(f, ONE, silo=TWO), KeyRefused, "signed by silo-01 and speaks of silo-02"),
    "another's": (lambda f: f.sessions[TWO].share_secrets(0), KeyRefused, "signed by silo-02"),
    "threshold of one": (lambda f: forged(f, ONE, threshold=1), KeyRefused, "its threshold is 1 of 4"),
    "too few shares": (lambda f: forged(f, ONE, sealed={TWO: b""}), KeyRefused, "a share for every other silo"),
    "shares of numbers": (lambda f: forged(f, ONE, digests=others(f, ONE, 7)), KeyRefused, "its shares are no bytes"),
    "no key": (lambda f: forged(f, ONE, public=bytes(32)), KeyRefused, "its X25519 key is none"),
    "other fields": (lambda f: forged(f, ONE, extra=1), KeyRefused, "damaged"),
    "another purpose": (lambda f: f.sessions[ONE].announce(), SignatureInvalid, "not of this content"),
    "junk": (lambda f: b"junk", MessageInvalid, "damaged"),
}


@pytest.mark.parametrize("case", BUNDLES)
def test_a_bundle_that_is_not_this_rounds_is_refused_before_training(federation, case):
    change, error, problem = BUNDLES[case]
    bundles = {name: session.share_secrets(0) for name, session in federation.sessions.items()}
    with pytest.raises(error, match=problem):
        federation.sessions[TWO].begin_round(0, {**bundles, ONE: change(federation)})
    federation.sessions[TWO].begin_round(0, bundles)  # the refusal changed nothing


def test_a_round_without_this_processs_masks_is_refused(federation, make):
    bundles = {name: session.share_secrets(0) for name, session in federation.sessions.items()}
    with pytest.raises(KeyRefused, match="does not have this process's masks"):
        federation.sessions[TWO].begin_round(0, {**bundles, TWO: forged(federation, TWO, threshold=2)})


def test_a_round_begins_with_one_set_of_masks(federation):
    bundles = federation.begin(0)
    federation.sessions[TWO].begin_round(0, bundles)  # the server may ask again
    with pytest.raises(RoundRefused, match="began with other masks before"):
        federation.sessions[TWO].begin_round(0, {name: bundles[name] for name in (ONE, TWO)})


def test_secrets_are_fresh_in_every_round_and_may_run_ahead(federation):
    session = federation.sessions[ONE]
    first, second = session.share_secrets(0), session.share_secrets(1)
    assert first != second
    assert first == session.share_secrets(0)
    kept = [session._rounds[number]._secrets for number in (0, 1)]
    assert len({secret for one in kept for secret in asdict(one).values()}) == 4
    assert kept[0].self_seed.hex() not in repr(kept[0])
    for number in range(2, 8):
        session.share_secrets(number)
    with pytest.raises(RoundRefused, match="makes no masks for it"):
        session.share_secrets(8)


def test_silos_with_other_masks_are_not_added(federation):
    """A server that shows silos different bundles gets no sum; it is noticed before anything is opened."""
    bundles = {name: session.share_secrets(0) for name, session in federation.sessions.items()}
    for name, shown in ((ONE, bundles), (TWO, {key: bundles[key] for key in bundles if key != LAST})):
        federation.sessions[name].begin_round(0, shown)
    update = federation.updates()[ONE]
    messages = {name: federation.encrypt(0, name, update) for name in (ONE, TWO)}
    with pytest.raises(UpdateRefused, match=r"silo-02: it differs from the others in masks"):
        federation.add(0, messages)


def test_a_wrong_share_costs_no_round_and_names_its_dealer(federation, caplog):
    wrong = others(federation, ONE, bytes(60))
    session = federation.sessions[ONE]
    bundles = {name: one.share_secrets(0) for name, one in federation.sessions.items()}
    bundles[ONE] = session._rounds[0]._bundle = forged(federation, ONE, sealed=wrong)
    for one in federation.sessions.values():
        one.begin_round(0, bundles)
    assert "silo-01 sealed a wrong share for this silo" in caplog.text
    updates = federation.updates()
    messages = {name: federation.encrypt(0, name, update) for name, update in updates.items()}
    message, names = federation.add(0, messages)
    federation.bundles[0] = bundles
    federation.sessions[TWO].open_sum(0, message, names, federation.reveal(0, names))


@pytest.fixture(scope="module")
def closed(make):
    """Return a round that silo-03 dropped out of: federation, message, contributors, reveals."""
    federation = make((1,) * 4).exchange()
    updates = federation.updates()
    federation.begin(0)
    arrived = {name: federation.encrypt(0, name, updates[name]) for name in federation.sessions if name != LAST}
    message, names = federation.add(0, arrived)
    return federation, message, names, federation.reveal(0, names)


def resigned(federation, reveals, name, change):
    """Return `reveals` with what `name` revealed changed, and signed by it again."""
    identity = federation.sessions[name]._identity
    payload = msgpack.unpackb(identity.trust.verify(reveals[name], context=survivors.REVEAL).payload)
    change(payload)
    return {**reveals, name: identity.sign(msgpack.packb(payload), context=survivors.REVEAL)}


REVEALS = {
    "wrong share": (lambda p: p["shares"].update({LAST: bytes(16)}), "silo-01 revealed a wrong share of silo-03's secret"),
    "short share": (lambda p: p["shares"].update({LAST: b""}), "silo-01 revealed a wrong share of silo-03's secret"),
    "share of no bytes": (lambda p: p["shares"].update({LAST: 7}), "silo-01 revealed a wrong share of silo-03's"),
    "wrong seed": (lambda p: p.update(seed=bytes(16)), "silo-01 revealed another seed than it committed to"),
    "no seed": (lambda p: p.update(seed=b""), "silo-01 revealed another seed than it committed to"),
    "other survivors": (lambda p: p.update(survivors=[ONE, TWO]), "revealed by silo-01 is not used: .*other survivors"),
    "another round": (lambda p: p.update(number=1), "revealed by silo-01 is not used: .*another round"),
    "another job": (lambda p: p.update(job="job-2"), "revealed by silo-01 is not used: .*another round"),
    "another silo": (lambda p: p.update(silo=TWO), "revealed by silo-01 is not used: .*is of silo-01"),
    "other fields": (lambda p: p.update(extra=1), "revealed by silo-01 is not used: .*damaged"),
}


@pytest.mark.parametrize("case", REVEALS)
def test_what_was_revealed_wrong_names_its_author_and_is_not_used(closed, caplog, case):
    """Three shares are needed of silo-03; without those of silo-01 there are two."""
    federation, message, names, reveals = closed
    change, problem = REVEALS[case]
    wrong = resigned(federation, reveals, ONE, change)
    session = federation.sessions[TWO]
    if "seed" in case:  # others' shares replace it
        masks = remaining(session._rounds[0].place, session._rounds[0].bundles, names, wrong)
        assert len(masks._minus) + len(masks._plus) == 3 + 3
    else:
        with pytest.raises(RoundRefused, match=r"silo-03, job job-1, round 0: .*2 of the 3 shares are there"):
            session.open_sum(0, message, names, wrong)
        assert session.next_round == 0
    assert re.search(problem, caplog.text)


def test_a_reveal_in_anothers_name_is_not_used(closed, caplog):
    federation, message, names, reveals = closed
    with pytest.raises(RoundRefused, match="2 of the 3 shares are there"):
        federation.sessions[TWO].open_sum(0, message, names, {**reveals, ONE: reveals[TWO]})
    assert "revealed by silo-01 is not used: what came as revealed by silo-01 is of silo-02" in caplog.text


def test_too_few_reveals_say_whose_masks_stay(closed):
    federation, message, names, reveals = closed
    few = {name: reveals[name] for name in ("silo-00", ONE)}
    with pytest.raises(RoundRefused, match=r"silo-02, job job-1, round 0: .*2 of the 3 shares are there"):
        federation.sessions[TWO].open_sum(0, message, names, few)


def test_shares_that_make_another_secret_are_their_dealers_fault(make):
    federation = make((1,) * 4).exchange()
    session = federation.sessions[LAST]
    place = Place(session._members(), 0)
    rounds = session._rounds[0] = MaskedRound(place, session._identity, session._exchange.private, 3)
    genuine = read_bundle(LAST, rounds.share(), place)
    other = replace(genuine, public=private_key(bytes(16)).public_key().public_bytes_raw())
    rounds._bundle = session._identity.sign(msgpack.packb(asdict(other)), context=BUNDLE)
    federation.begin(0)
    updates = federation.updates()
    message, names = federation.add(
        0, {name: federation.encrypt(0, name, updates[name]) for name in federation.sessions if name != LAST}
    )
    reveals = federation.reveal(0, names, signers=names)
    with pytest.raises(RoundRefused, match=r"silo-03, job job-1, round 0: .*do not make its secret"):
        federation.sessions[ONE].open_sum(0, message, names, reveals)


def test_a_reveal_has_of_every_silo_one_secret_and_never_both(closed):
    federation, _, names, reveals = closed
    for name, signed in reveals.items():
        payload = msgpack.unpackb(msgpack.unpackb(signed)["payload"])
        held = federation.sessions[name]._rounds[0]._shares
        assert payload["shares"] == {other: both[SELF if other in names else PAIR] for other, both in held.items()}
        for other, both in held.items():
            assert both[PAIR if other in names else SELF] not in signed
        assert (payload["seed"] != b"") == (name in names)


def test_a_silo_signs_one_set_and_reveals_what_it_revealed(federation):
    federation.begin(0)
    names = tuple(federation.sessions)
    session = federation.sessions[ONE]
    with pytest.raises(RoundRefused, match="has not signed who arrived"):
        session.reveal(0, {})
    with pytest.raises(RoundRefused, match="not all that arrived are of the round"):
        session.sign_survivors(0, (*names, "stranger"))
    signatures = {name: federation.sessions[name].sign_survivors(0, names) for name in names}
    with pytest.raises(RoundRefused, match="2 silos signed who arrived; this silo reveals nothing below 3"):
        session.reveal(0, {name: signatures[name] for name in names[:2]})
    with pytest.raises(RoundRefused, match="that came as that of silo-00 is of silo-02"):
        session.reveal(0, {**signatures, "silo-00": signatures[TWO]})
    first = session.reveal(0, {name: signatures[name] for name in names[:3]})
    assert session.reveal(0, signatures) == first


def test_signatures_of_another_round_do_not_count(federation):
    federation.begin(0)
    names = tuple(federation.sessions)
    old = {name: federation.sessions[name].sign_survivors(0, names) for name in names}
    for session in federation.sessions.values():
        session.void_round(0)
    federation.begin(1)
    for session in federation.sessions.values():
        session.sign_survivors(1, names)
    with pytest.raises(RoundRefused, match="or of another round"):
        federation.sessions[ONE].reveal(1, old)


def test_a_replayed_message_of_another_round_is_not_added(federation):
    updates = federation.updates()
    federation.begin(0)
    old = {name: federation.encrypt(0, name, update) for name, update in updates.items()}
    for session in federation.sessions.values():
        session.void_round(0)
    with pytest.raises(RoundRefused, match="it is for round 0"):
        federation.add(1, old)


def test_a_silo_that_comes_back_takes_part_again(make):
    """It missed two rounds, catches up with what the server kept, and its masks are in the next."""
    federation = make((10, 20, 30, 40)).ready()
    away = federation.sessions.pop(TWO)
    kept = []
    for number in (1, 2):
        closed = federation.sum(number, federation.updates(number)), federation.bundles[number]
        kept.append(closed)
        for session in federation.sessions.values():
            session.open_sum(number, *closed[0])
    federation.sessions[TWO] = away
    federation.sessions = dict(sorted(federation.sessions.items()))
    ahead = away.share_secrets(3)  # dealt before it caught up
    for number, (closed, bundles) in enumerate(kept, start=1):
        with pytest.raises(UpdateRefused, match="not those of the bundles"):
            away.open_sum(number, *closed)
        away.open_sum(number, *closed, bundles)
    updates = federation.updates(3)
    opened = federation.round(3, updates)
    assert federation.bundles[3][TWO] == ahead
    np.testing.assert_allclose(opened[TWO], federation.mean(updates), atol=2e-6)
    np.testing.assert_array_equal(opened[TWO], opened[ONE])
