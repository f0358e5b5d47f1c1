"""Rounds of a whole small federation: the sums are right, and what must be refused is refused without a trace."""

import logging

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation import wire
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.sums import RoundSum
from silo_app.errors import ConfigInvalid, KeyRefused, ProtocolError, RoundRefused, UpdateRefused

ONE = "silo-01"


def changed(message, body=None, **fields):
    """Return `message` with header fields changed, its body digest made right again."""
    header, old = wire.split(message)
    new = old if body is None else body
    values = {slot: getattr(header, slot) for slot in type(header).__slots__}
    return wire.join(type(header)(**{**values, "body": wire.body_digest(new), **fields}), new)


@pytest.mark.parametrize("bits", [10, 12, 16, 25])
def test_every_silo_opens_the_weighted_mean(make, bits):
    federation = make(bits=bits).ready()
    for number in range(1, 4):
        updates = federation.updates(number)
        opened = federation.round(number, updates)
        resolution = 2.0**-22 + (16e-3 / 2 ** (bits - 1) if number > 1 else 0)  # the first round is carried over too
        error = np.abs(opened[ONE] - federation.mean(updates)).max()
        assert error < 3 * (number + 1) * resolution
        for update in opened.values():
            np.testing.assert_array_equal(update, opened[ONE])


@pytest.mark.parametrize("silos", [2, 5, 32])
def test_sums_of_few_and_many_silos_are_exact(make, silos):
    federation = make(range(1, silos + 1), layout=Layout(("w",), ((64,),))).ready()
    updates = {name: np.full(64, np.float32(0.5)) for name in federation.sessions}
    opened = federation.round(1, updates)
    np.testing.assert_allclose(opened["silo-00"], 0.5, atol=silos * 2**-23)


@pytest.mark.parametrize("value", [1.0, -1.0, 1e6, -1e6])
def test_updates_at_and_beyond_the_clip_do_not_overflow(make, value):
    federation = make((1, 1, 5)).ready()
    updates = {name: np.full(federation.layout.size, np.float32(value)) for name in federation.sessions}
    opened = federation.round(1, updates)[ONE]
    np.testing.assert_allclose(opened, np.sign(value), rtol=1e-5)


@pytest.mark.parametrize("bits", [10, 12])
def test_error_feedback_makes_the_running_mean_converge(make, bits):
    federation = make((1, 2), layout=Layout(("w",), ((500,),)), bits=bits).ready()
    updates = federation.updates(0)
    updates["silo-01"][:50] += 0.02  # beyond what the scales of later rounds carry at once
    total, errors = 0.0, []
    for number in range(12):
        total = total + federation.round(number + 1, updates)[ONE].astype(np.float64)
        errors.append(np.abs(total / (number + 1) - federation.mean(updates)).max())
    assert errors[-1] < errors[1] / 3
    assert errors[-1] < 0.1 * np.abs(federation.mean(updates)).mean()


@pytest.mark.parametrize(("persistence", "follows"), [(0.9, True), (0.0, False)])
def test_after_rounds_that_cancelled_a_change_is_still_carried(make, persistence, follows):
    """Where silos disagree the mean stands still; a scale that followed it down would clip what comes next."""
    federation = make((1, 2), layout=Layout(("w",), ((200,),)), persistence=persistence).ready()
    pull = federation.updates(0)["silo-00"]
    federation.round(1, {"silo-00": pull, ONE: pull})
    for number in range(2, 8):
        opened = federation.round(number, {"silo-00": 2 * pull, ONE: -pull})[ONE]
        assert np.abs(opened).max() < 0.1 * np.abs(pull).max()
    change = federation.round(8, {"silo-00": pull, ONE: pull})[ONE]
    assert np.allclose(change, pull, atol=0.01 * np.abs(pull).max()) is follows


def test_silos_that_do_not_arrive_cost_only_their_own_weight(make):
    federation = make((10, 20, 30)).ready()
    updates = federation.updates()
    opened = federation.round(1, updates, contributors=("silo-00", "silo-02"))
    expected = federation.mean({name: updates[name] for name in ("silo-00", "silo-02")})
    for name in federation.sessions:  # the late silo opens the sum too
        np.testing.assert_allclose(opened[name], expected, atol=1e-6)
    federation.round(2, federation.updates(1))


def test_an_update_that_did_not_arrive_is_not_sent_again(make):
    federation = make((1, 1, 1)).exchange()
    big = {name: np.full(federation.layout.size, np.float32(5)) for name in federation.sessions}
    federation.round(0, big, contributors=("silo-00", "silo-02"))
    assert federation.sessions[ONE]._progress.residual is None
    assert federation.sessions["silo-00"]._progress.residual.max() > 3.9


def test_a_silo_that_missed_rounds_catches_up_in_order(make):
    federation = make((1, 1, 1)).exchange()
    absent = federation.sessions.pop(ONE)
    kept = []
    for number in range(2):
        kept.append((*federation.sum(number, federation.updates(number)), federation.bundles[number]))
        for session in federation.sessions.values():
            session.open_sum(number, *kept[-1])
    with pytest.raises(RoundRefused, match=r"(?s)this silo is at round 0.*Send the sums of rounds 0 to 1 first"):
        absent.begin_round(2, {})
    with pytest.raises(RoundRefused, match="this silo is at round 0"):
        absent.open_sum(1, *kept[1])
    for number, closed in enumerate(kept):
        absent.open_sum(number, *closed)
    federation.sessions[ONE] = absent
    federation.round(2, federation.updates(2))


def test_a_round_without_a_sum_is_closed_at_all_silos_alike(make):
    federation = make().exchange()
    updates = federation.updates()
    federation.statistics()
    federation.begin(1)
    federation.encrypt(1, ONE, updates[ONE])
    for session in federation.sessions.values():
        session.void_round(1)
    opened = federation.round(2, updates)
    np.testing.assert_allclose(opened[ONE], federation.mean(updates), atol=1e-6)


def test_a_silo_with_another_history_is_not_added(make):
    federation = make().exchange()
    closed = federation.sum(0, federation.updates())
    federation.sessions["silo-00"].void_round(0)
    for name in (ONE, "silo-02"):
        federation.sessions[name].open_sum(0, *closed)
    federation.begin(1)
    total = RoundSum("job-1", 1)
    updates = federation.updates()
    total.add(federation.encrypt(1, ONE, updates[ONE]))
    with pytest.raises(UpdateRefused, match=r"(?s)silo-00: it differs from the others in .*basis"):
        total.add(federation.encrypt(1, "silo-00", updates["silo-00"]))


def test_plain_sums_are_the_mean_and_are_loud(make, caplog):
    with caplog.at_level(logging.WARNING):
        federation = make(encryption="none").ready()
    assert "ENCRYPTION IS OFF" in caplog.text
    for number in range(1, 3):
        updates = federation.updates(number)
        np.testing.assert_allclose(federation.round(number, updates)[ONE], federation.mean(updates), atol=1e-8)
    assert len(federation.messages[-1]) < 4 * federation.layout.size + 600


# --- refusals ---


@pytest.fixture(scope="module")
def foreign(make):
    """Return the sum of round 0 of another job with the same silos, and of a plain job."""
    other = make(job="job-2").exchange()
    plain = make(encryption="none").exchange()
    return {"other": other.sum(0, other.updates())[0], "plain": plain.sum(0, plain.updates())[0]}


SUMS = {
    "another key": (lambda message, _: changed(message, key=bytes(16)), KeyRefused, "under another key"),
    "another job": (lambda message, _: changed(message, job="job-9"), RoundRefused, "says round 0 of job job-9"),
    "another round": (lambda message, _: changed(message, round_number=1), RoundRefused, "says round 1"),
    "another layout": (lambda message, _: changed(message, layout=bytes(32)), UpdateRefused, "layout, width"),
    "another size": (lambda message, _: changed(message, size=3), UpdateRefused, "layout, width"),
    "another width": (lambda message, _: changed(message, bits=16), UpdateRefused, "layout, width"),
    "another history": (lambda message, _: changed(message, basis=bytes(32)), UpdateRefused, "earlier sums"),
    "other participants": (
        lambda message, _: changed(message, participants=("silo-00", "silo-01", "silo-02", "silo-03")),
        UpdateRefused,
        "participants",
    ),
    "an update": (lambda message, _: changed(message, kind="update"), UpdateRefused, "it is an update"),
    "one silo": (lambda message, _: changed(message, silos=(ONE,)), UpdateRefused, "other silos than the server names"),
    "short body": (lambda message, _: changed(message, wire.split(message)[1][:-1].copy()), UpdateRefused, "bytes for"),
    "large words": (
        lambda message, _: changed(message, np.full_like(wire.split(message)[1], 255)),
        UpdateRefused,
        "ciphertext modulus",
    ),
    "noise": (
        lambda message, _: changed(message, np.roll(wire.split(message)[1], 15)),
        UpdateRefused,
        "decrypts to noise",
    ),
    "a foreign sum": (lambda _, foreign: foreign["other"], KeyRefused, "under another key"),
    "a plain sum": (lambda _, foreign: foreign["plain"], UpdateRefused, "encryption none"),
    "a cut message": (lambda message, _: message[:-5], UpdateRefused, "its body is not"),
    "nothing": (lambda message, _: message[:0], UpdateRefused, "it has 0 bytes"),
    "another array": (lambda message, _: message.astype(np.int32), UpdateRefused, "array int32"),
}


@pytest.fixture(scope="module")
def opening(make):
    """Return a federation with an unopened sum of round 0; refusals must leave it as it is."""
    federation = make().exchange()
    return federation, federation.sum(0, federation.updates())


@pytest.mark.parametrize("case", SUMS)
def test_a_sum_that_is_not_this_rounds_is_refused(opening, foreign, case):
    federation, (message, names, reveals) = opening
    change, error, problem = SUMS[case]
    session = federation.sessions[ONE]
    before = (session.next_round, session._progress.basis, session._progress.scales.tolist())
    with pytest.raises(error, match=problem) as caught:
        session.open_sum(0, change(message, foreign), names, reveals)
    assert caught.value.remedy
    assert before == (session.next_round, session._progress.basis, session._progress.scales.tolist())


def test_a_plain_session_refuses_an_encrypted_sum(make, opening):
    federation = make(encryption="none").exchange()
    with pytest.raises(UpdateRefused, match="encryption bfv"):
        federation.sessions[ONE].open_sum(0, *opening[1])


def test_the_contributors_that_the_server_names_must_be_those_of_the_sum(opening):
    federation, (message, names, reveals) = opening
    with pytest.raises(UpdateRefused, match="other silos than the server names"):
        federation.sessions[ONE].open_sum(0, message, names[:2], reveals)


def test_a_round_is_answered_and_opened_once(make):
    federation = make().exchange()
    updates = federation.updates()
    closed = federation.sum(0, updates)
    session = federation.sessions[ONE]
    with pytest.raises(RoundRefused, match="answered it before"):
        session.encrypt_update(0, updates[ONE])
    session.open_sum(0, *closed)
    for again in (
        lambda: session.open_sum(0, *closed),
        lambda: session.encrypt_update(0, updates[ONE]),
        lambda: session.begin_round(0, federation.bundles[0]),
        lambda: session.void_round(0),
    ):
        with pytest.raises(RoundRefused, match="it is over; this silo is at round 1"):
            again()
    with pytest.raises(RoundRefused, match="this silo is at round 1"):
        session.open_sum(2, *closed)


def test_a_sum_of_too_few_silos_is_not_opened(make):
    federation = make(min_silos=3).exchange()
    federation.begin(0)
    updates = federation.updates()
    messages = {name: federation.encrypt(0, name, updates[name]) for name in ("silo-00", ONE)}
    message, names = federation.add(0, messages)
    with pytest.raises(RoundRefused, match=r"2 silos arrived; this silo needs 3 \(training.min_silos\)"):
        federation.sessions[ONE].sign_survivors(0, names)
    with pytest.raises(RoundRefused, match=r"2 silos in its sum; this silo needs 3 \(training.min_silos\)"):
        federation.sessions[ONE].open_sum(0, message, names)


def test_a_silo_never_opens_the_update_of_one_silo(make):
    federation = make(min_silos=1).exchange()
    federation.begin(0)
    single = RoundSum("job-1", 0, min_silos=1)
    single.add(federation.encrypt(0, ONE, federation.updates()[ONE]))
    with pytest.raises(RoundRefused, match="this silo needs 2"):
        federation.sessions["silo-00"].sign_survivors(0, single.contributors)
    with pytest.raises(RoundRefused, match="this silo needs 2"):
        federation.sessions["silo-00"].open_sum(0, single.result(), single.contributors)


@pytest.mark.parametrize(
    ("participants", "problem"),
    [
        (("silo-00", "silo-02"), "this silo is not among its participants"),
        ((ONE,), "1 participants; this silo needs 2"),
        ((ONE, "stranger"), "1 of its participants are not in the job"),
    ],
)
def test_participants_that_cannot_be_are_refused(make, participants, problem):
    federation = make().exchange()
    with pytest.raises(RoundRefused, match=problem):
        federation.sessions[ONE].begin_round(0, dict.fromkeys(participants, b""))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_stays_at_home(make, bad):
    federation = make().exchange()
    federation.begin(0)
    update = federation.updates()[ONE]
    update[3] = bad
    with pytest.raises(UpdateRefused, match="not 142 finite values"):
        federation.encrypt(0, ONE, update)
    with pytest.raises(UpdateRefused, match="not 142 finite values"):
        federation.encrypt(0, ONE, update[:5])


def test_a_plain_sum_that_is_not_finite_is_refused(make):
    federation = make(encryption="none").exchange()
    message, names, _ = federation.sum(0, federation.updates())
    body = wire.split(message)[1].copy()
    body[:4] = np.float32([np.inf]).view(np.uint8)
    with pytest.raises(UpdateRefused, match="not finite"):
        federation.sessions[ONE].open_sum(0, changed(message, body), names)


def test_settings_that_no_silo_can_work_with_are_all_named(make):
    with pytest.raises(ConfigInvalid) as caught:
        make(bits=11, first_clip=0.0, encryption="rot13")
    assert [line.split(":")[0] for line in caught.value.problem.splitlines()] == ["encryption", "bits", "first_clip"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_sums_are_refused_and_never_crash(opening, data):
    federation, (message, names, reveals) = opening
    where = data.draw(st.integers(0, 400) | st.integers(0, len(message) - 1))
    if data.draw(st.booleans()):
        damaged = message[:where]
    else:
        damaged = message.copy()
        damaged[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        federation.sessions[ONE].open_sum(0, damaged, names, reveals)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(wire.TYPES)) | st.text(max_size=3),
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.lists(st.text()),
    )
)
def test_any_header_is_refused_or_read(fields):
    packed = msgpack.packb(fields)
    message = wire.PREFIX.pack(wire.MAGIC, wire.VERSION, len(packed), wire.sha256(packed).digest()) + packed
    with pytest.raises(UpdateRefused):
        wire.split(message)


def test_a_sum_whose_values_were_all_clipped_is_no_noise(make):
    """A network's first rounds can grow tenfold at once: what does not fit is carried over, and the sum is genuine."""
    layout = Layout(("kernel",), ((80, 80),))
    federation = make(layout=layout).exchange()
    small = np.full(layout.size, 1e-5, np.float32)
    federation.round(0, dict.fromkeys(federation.sessions, small))
    opened = federation.round(1, dict.fromkeys(federation.sessions, 1000 * small))
    assert all((update > 0).all() for update in opened.values())
