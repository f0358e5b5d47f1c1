"""Sums are exact whoever drops out in whatever phase, up to the threshold; beyond it the refusal says so."""

import copy
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation.codec import WIDTHS, FieldPlan
from silo_app.aggregation.masked_round import MaskedRound
from silo_app.aggregation.place import Place
from silo_app.aggregation.ring import DEGREE, SLOT_MODULUS
from silo_app.aggregation.settings import threshold
from silo_app.aggregation.unmasking import remaining
from silo_app.errors import RoundRefused

T = SLOT_MODULUS
STAYS, NO_BUNDLE, NO_UPLOAD, LATE, NO_SIGNATURE, NO_REVEAL = FATES = (
    "stays",
    "sends no masks",
    "dies before its upload",
    "uploads too late",
    "dies before it signs",
    "dies before it reveals",
)


class Rounds:
    """Silos that dealt their masks for one round, to play through with any fates."""

    def __init__(self, make, silos, min_silos):
        federation = make((1,) * silos, min_silos=min_silos, encryption="none").exchange()
        self.min_silos, self.threshold = min_silos, threshold(silos, min_silos)
        self.dealt = {}
        for name, session in federation.sessions.items():
            place = Place(session._members(), 0)
            self.dealt[name] = MaskedRound(place, session._identity, session._exchange.private, self.threshold)
        self.place = place

    def play(self, fates, bits, seed=0):
        """Run the round; return the opened sum and the true one, each int32 (V,)."""
        by_name = dict(zip(self.dealt, fates, strict=True))
        silos = {name: copy.copy(self.dealt[name]) for name, fate in by_name.items() if fate != NO_BUNDLE}
        bundles = {name: one.share() for name, one in silos.items()}
        for one in silos.values():
            one.begin(bundles)
        arrived = [name for name in silos if by_name[name] not in {NO_UPLOAD, LATE}]
        total, expected = self._sum(silos, arrived, FieldPlan(bits), np.random.default_rng(seed))
        signers = [name for name in silos if by_name[name] not in {NO_UPLOAD, NO_SIGNATURE}]
        signatures = {name: silos[name].sign(arrived, self.min_silos) for name in signers}
        revealers = [name for name in signers if by_name[name] != NO_REVEAL]
        reveals = {name: silos[name].reveal(signatures) for name in revealers}
        anyone = next(iter(silos.values()))
        remaining(self.place, anyone.bundles, tuple(arrived), reveals).apply(total)
        return FieldPlan(bits).unpack(total), expected

    def _sum(self, silos, arrived, plan, random):
        total, expected = np.zeros(DEGREE, dtype=np.uint64), 0
        for name in arrived:
            limit = plan.limit // len(silos)
            values = random.integers(-limit, limit, plan.fields * DEGREE, dtype=np.int32, endpoint=True)
            row = plan.pack(values)
            silos[name].masks().apply(row)
            total, expected = (total + row) % np.uint64(T), expected + values
        return total, expected

    def can_open(self, fates):
        """Return whether the rules say that the sum opens."""
        arrived = sum(fate not in {NO_BUNDLE, NO_UPLOAD, LATE} for fate in fates)
        signers = sum(fate not in {NO_BUNDLE, NO_UPLOAD, NO_SIGNATURE} for fate in fates)
        revealers = sum(fate in {STAYS, LATE} for fate in fates)
        # LATE helps others but cannot help with itself; whoever fell silent or died needs the threshold of others.
        needed = all(revealers - (fate == LATE) >= self.threshold for fate in fates if fate not in {STAYS, NO_BUNDLE})
        return arrived >= self.min_silos and signers >= self.threshold and revealers > 0 and needed

    def check(self, fates, bits):
        if self.can_open(fates):
            opened, expected = self.play(fates, bits)
            np.testing.assert_array_equal(opened, expected)
        else:
            with pytest.raises(RoundRefused) as caught:
                self.play(fates, bits)
            assert caught.value.remedy
            assert "round 0" in caught.value.where


@pytest.fixture(scope="module")
def rounds(make):
    """Return a function that gives the rounds of so many silos, dealt once."""
    made = {}

    def of(silos, min_silos=2):
        if (silos, min_silos) not in made:
            made[silos, min_silos] = Rounds(make, silos, min_silos)
        return made[silos, min_silos]

    return of


@pytest.mark.parametrize("min_silos", [2, 3])
def test_every_fate_of_three_silos(rounds, min_silos):
    for number, fates in enumerate(product(FATES, repeat=3)):
        if fates != (NO_BUNDLE,) * 3:
            rounds(3, min_silos).check(fates, WIDTHS[number % len(WIDTHS)])


@pytest.mark.parametrize(("silos", "min_silos"), [(2, 2), (4, 2), (5, 3)])
def test_every_combination_of_fates_of_few_silos(rounds, silos, min_silos):
    order = np.random.default_rng(silos).permutation(silos)
    for number, drawn in enumerate(combinations_with_replacement(FATES, silos)):
        fates = tuple(drawn[(place + number) % silos] for place in order)
        if fates != (NO_BUNDLE,) * silos:
            rounds(silos, min_silos).check(fates, WIDTHS[number % len(WIDTHS)])


@settings(max_examples=12, deadline=None)
@given(data=st.data(), silos=st.sampled_from([7, 12, 32]), bits=st.sampled_from(WIDTHS))
def test_many_silos_with_some_fates(rounds, data, silos, bits):
    part = data.draw(st.integers(0, silos - threshold(silos, 2)))
    fates = data.draw(st.lists(st.sampled_from(FATES), min_size=part, max_size=part)) + [STAYS] * (silos - part)
    rounds(silos).check(tuple(data.draw(st.permutations(fates))), bits)


@pytest.mark.parametrize("silos", range(2, 33))
def test_without_dropouts_sums_of_2_to_32_silos_are_exact(rounds, silos):
    if silos in {2, 3, 4, 5, 7, 12, 32} or silos % 6 == 0:
        rounds(silos).check((STAYS,) * silos, WIDTHS[silos % 4])


@pytest.mark.parametrize("fate", [NO_UPLOAD, LATE, NO_SIGNATURE, NO_REVEAL])
def test_one_silo_too_many_is_a_clear_failure(rounds, fate):
    """Of 7 silos 4 must stay."""
    assert threshold(7, 2) == 4
    rounds(7).check((fate,) * 3 + (STAYS,) * 4, 12)
    too_many = (NO_REVEAL,) * 3 + (fate, *(STAYS,) * 3)
    with pytest.raises(RoundRefused, match=r"signed who arrived|of the 4 shares are there"):
        rounds(7).play(too_many, 12)


@pytest.mark.parametrize(
    ("silos", "min_silos", "expected"),
    [(2, 2, 2), (3, 2, 2), (3, 3, 3), (4, 2, 3), (4, 3, 3), (5, 3, 4), (10, 2, 6), (10, 5, 7), (32, 3, 17), (128, 2, 65)],
)
def test_the_threshold_is_the_documented_one(silos, min_silos, expected):
    assert threshold(silos, min_silos) == expected


@given(silos=st.integers(2, 128), data=st.data())
def test_two_survivor_sets_never_both_find_a_threshold(silos, data):
    """c = k - 2 silos sign both sets, every other silo one, so two sets find T signatures only if 2 T <= n + c."""
    min_silos = data.draw(st.integers(2, silos))
    needed = threshold(silos, min_silos)
    assert min_silos <= needed <= silos
    assert 2 * needed > silos + (min_silos - 2)
