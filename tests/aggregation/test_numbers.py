"""Numbers beside updates: exact sums of counts and losses, weights without telling how many images a silo has."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from silo_app.aggregation import tallies
from silo_app.aggregation.ring import SLOT_MODULUS
from silo_app.aggregation.wire import split
from silo_app.errors import RoundRefused, UpdateRefused

ONE, TWO = "silo-01", "silo-02"
FINITE = st.floats(-(2.0**57), 2.0**57) | st.integers(-(2**53), 2**53)


@settings(max_examples=200, deadline=None)
@example(values=[(1.4390614309208072e17, 0.0), (1.0, 0.0), (-1.4387095905553622e17, 0.0)], modulus=SLOT_MODULUS)
@given(
    values=st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=128),
    modulus=st.sampled_from([SLOT_MODULUS, 1 << 64]),
)
def test_sums_of_numbers_are_exact_to_the_last_fixed_digit(values, modulus):
    names = ("loss", "steps")
    encoded = [tallies.encode(dict(zip(names, pair, strict=True)), modulus) for pair in values]
    assert all((part < modulus).all() for part in encoded)
    summed = np.array([sum(int(part[slot]) for part in encoded) % modulus for slot in range(4)], dtype=np.uint64)
    decoded = tallies.decode(names, summed, modulus)
    for index, name in enumerate(names):
        exact = sum(Fraction(round(pair[index] * 2**20), 2**20) for pair in values)
        assert decoded[name] == pytest.approx(float(exact), rel=2.0**-45, abs=2.0**-10)


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=128))
def test_sums_of_counts_are_exact(counts):
    modulus = SLOT_MODULUS
    summed = sum(tallies.encode({"n": count}, modulus).astype(object) for count in counts) % modulus
    assert tallies.decode(("n",), summed, modulus) == {"n": sum(counts)}


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0**58, -(2.0**60)])
def test_a_number_that_cannot_be_summed_stays_at_home(make, bad):
    federation = make().exchange()
    federation.begin(0)
    with pytest.raises(UpdateRefused, match="its number 'loss' is"):
        federation.encrypt(0, ONE, federation.updates()[ONE], {"loss": bad})
    with pytest.raises(UpdateRefused, match="5000 numbers"):
        federation.sessions[ONE].encrypt_numbers(0, {str(index): 0 for index in range(4999)})
    federation.encrypt(0, ONE, federation.updates()[ONE], {"loss": 1.5})


@pytest.mark.parametrize("encryption", ["bfv", "none"])
def test_updates_and_their_numbers_are_summed_together(make, encryption):
    federation = make((10, 20, 30), encryption=encryption).ready()
    federation.begin(1)
    updates = federation.updates()
    numbers = {name: {"steps": 100 + index, "loss": 0.25 * index} for index, name in enumerate(updates)}
    messages = {name: federation.encrypt(1, name, updates[name], numbers[name]) for name in updates}
    message, names = federation.add(1, messages, contributors=("silo-00", TWO))
    reveals = federation.reveal(1, names)
    opened = federation.sessions[ONE].open_sum(1, message, names, reveals)
    assert opened.numbers == {"steps": 202, "loss": 0.5, "samples": 40}
    assert opened.silos == ("silo-00", TWO)
    np.testing.assert_allclose(opened.update, federation.mean({name: updates[name] for name in names}), atol=1e-6)


@pytest.mark.parametrize("encryption", ["bfv", "none"])
def test_a_silo_that_trained_a_part_of_its_round_weighs_as_much_less(make, encryption):
    federation = make((10, 20, 30), encryption=encryption).ready()
    federation.begin(1)
    updates = federation.updates()
    done = {"silo-00": 1.0, ONE: 0.25, TWO: 1e-9}
    messages = {name: federation.sessions[name].encrypt_update(1, updates[name], {}, done=done[name]) for name in updates}
    message, names = federation.add(1, messages)
    opened = federation.sessions[ONE].open_sum(1, message, names, federation.reveal(1, names))
    assert opened.numbers == {"samples": 10 + 5 + 1}
    weights = {"silo-00": 10 / 16, ONE: 5 / 16, TWO: 1 / 16}
    np.testing.assert_allclose(opened.update, sum(w * updates[name] for name, w in weights.items()), atol=1e-6)


def test_how_much_a_silo_trained_shows_in_nothing_that_the_server_sees(make):
    federation = make((10, 20, 30)).ready()
    federation.begin(1)
    update = federation.updates()[ONE]
    headers = [split(federation.sessions[ONE].encrypt_update(1, update, {}, done=0.5))[0]]
    other = make((10, 20, 30)).ready()
    other.begin(1)
    headers.append(split(other.sessions[ONE].encrypt_update(1, update, {}))[0])
    seen = [(one.size, one.bits, one.numbers, one.content, one.participants) for one in headers]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("done", [0.0, -0.5, 1.5])
def test_a_share_of_a_round_that_cannot_be_is_refused(make, done):
    federation = make().ready()
    federation.begin(1)
    with pytest.raises(UpdateRefused, match="of a round"):
        federation.sessions[ONE].encrypt_update(1, federation.updates()[ONE], {}, done=done)


@pytest.mark.parametrize("encryption", ["bfv", "none"])
def test_statistics_tell_the_total_and_nobodys_own(make, encryption):
    federation = make((10, 20, 30), encryption=encryption).exchange()
    opened = federation.statistics()
    assert opened.update is None
    assert opened.numbers == {"samples": 60}
    assert {session._progress.total for session in federation.sessions.values()} == {60}


def test_metrics_are_summed_in_a_round_of_their_own(make):
    federation = make().ready()
    federation.begin(1)
    messages = {
        name: session.encrypt_numbers(1, {"auc": 0.5 + index / 8})
        for index, (name, session) in enumerate(federation.sessions.items())
    }
    message, names = federation.add(1, messages)
    reveals = federation.reveal(1, names)
    for session in federation.sessions.values():
        assert session.open_sum(1, message, names, reveals).numbers == {"auc": 1.875, "samples": 60}
        assert session._progress.total == 60
    federation.round(2, federation.updates())


def test_silos_that_name_their_numbers_otherwise_are_not_added(make):
    federation = make().exchange()
    federation.begin(0)
    update = federation.updates()[ONE]
    messages = {ONE: federation.encrypt(0, ONE, update, {"loss": 1}), TWO: federation.encrypt(0, TWO, update, {"lost": 1})}
    with pytest.raises(UpdateRefused, match="silo-02: it differs from the others in numbers"):
        federation.add(0, messages)


def test_an_update_is_not_added_to_statistics(make):
    federation = make().exchange()
    federation.begin(0)
    messages = {
        ONE: federation.encrypt(0, ONE, federation.updates()[ONE]),
        TWO: federation.sessions[TWO].encrypt_statistics(0),
    }
    with pytest.raises(UpdateRefused, match="in content, size, bits"):
        federation.add(0, messages)


def test_without_statistics_all_silos_weigh_the_same(make):
    federation = make((10, 20, 30)).exchange()
    updates = federation.updates()
    opened = federation.round(0, updates)[ONE]
    np.testing.assert_allclose(opened, sum(updates.values()) / 3, atol=1e-6)
    opened = federation.round(1, updates, contributors=(ONE, TWO))["silo-00"]
    np.testing.assert_allclose(opened, (updates[ONE] + updates[TWO]) / 2, atol=1e-5)


def test_a_silo_that_was_not_counted_waits_for_the_next_statistics(make):
    federation = make((10, 20, 30, 40)).exchange()
    federation.begin(0)
    messages = {name: federation.sessions[name].encrypt_statistics(0) for name in federation.sessions}
    message, names = federation.add(0, messages, contributors=tuple(federation.sessions)[:3])
    reveals = federation.reveal(0, names)
    for session in federation.sessions.values():
        session.open_sum(0, message, names, reveals)
    federation.begin(1)
    with pytest.raises(RoundRefused, match="statistics do not count this silo's images"):
        federation.encrypt(1, "silo-03", federation.updates()["silo-03"])
    for session in federation.sessions.values():
        session.void_round(1)
    assert federation.statistics(2).numbers == {"samples": 100}
    updates = federation.updates()
    np.testing.assert_allclose(federation.round(3, updates)[ONE], federation.mean(updates), atol=1e-6)
