"""What a count tells: exact sets, noise that is drawn once, nothing of few, and never more under a stricter policy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import CaseId, Finding, PatientKey, Split, View
from silo_app.config import CountSettings, ReleaseSettings
from silo_app.policy.counts import ALL, count_subject, counted, noise_within, numbers_of, told_counts
from silo_app.policy.filters import Filters
from silo_app.policy.noise import keyed_noise

SECRET = b"s" * 32


def a_view(patient, case="c", **findings) -> View:
    known = {Finding[name]: present for name, present in findings.items()}
    return View(digest="0" * 64, case=CaseId(case), patient=PatientKey(patient), split=Split.TRAIN, findings=known)


def policy(**count) -> ReleaseSettings:
    return ReleaseSettings(count=CountSettings(**count))


def test_the_unit_is_the_patient():
    views = [a_view("p1", MASS=True), a_view("p1", "d", MASS=True, EDEMA=True), a_view("p2", MASS=False)]
    numbers = counted(ReleaseSettings(), views, by_finding=True)
    assert (numbers[ALL], numbers["Mass"], numbers["Edema"], numbers["Hernia"]) == (2, 1, 1, 0)
    assert len(numbers) == numbers_of(ReleaseSettings(), by_finding=True) == 1 + len(Finding)


@pytest.mark.parametrize(("fields", "by_finding"), [(("sex",), True), (("findings",), False)])
def test_findings_are_told_where_they_are_released_and_asked_for(fields, by_finding):
    rules = ReleaseSettings(fields=fields)
    assert counted(rules, [a_view("p1", MASS=True)], by_finding=by_finding) == {ALL: 1}
    assert numbers_of(rules, by_finding=by_finding) == 1


@settings(deadline=None)
@given(
    exact=st.dictionaries(st.sampled_from([ALL, "Mass", "Edema"]), st.integers(0, 400)),
    least=st.integers(1, 60),
    more=st.integers(0, 60),
    secret=st.binary(min_size=32, max_size=32),
)
def test_a_stricter_minimum_never_tells_more(exact, least, more, secret):
    open_told, strict_told = (
        told_counts(policy(min_count=count), exact, secret=secret, subject="q", most=500) for count in (least, least + more)
    )
    for name in exact:
        assert strict_told[name] in {None, open_told[name]}
        assert open_told[name] is None or least <= open_told[name] <= 500
        assert strict_told[name] is None or strict_told[name] >= least + more


def test_one_patient_changes_a_number_by_its_noise_only():
    """What is told of n and of n + 1 patients differs in its odds by at most exp(epsilon), over many secrets."""
    rounds, epsilon = 20_000, 1.0
    told = [
        np.bincount(
            [
                told_counts(policy(epsilon=epsilon), {ALL: count}, secret=SECRET, subject=str(turn), most=100)[ALL] or 0
                for turn in range(rounds)
            ],
            minlength=40,
        )
        for count in (12, 13)
    ]
    for one, other in zip(*told, strict=False):
        if min(one, other) > 200:
            assert abs(math.log(one / other)) < epsilon + 0.25  # 200 of 20,000: a standard error of at most 0.1


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_the_noise_is_two_sided_geometric(epsilon):
    drawn = np.array([keyed_noise(SECRET, "count", str(turn), epsilon) for turn in range(20_000)])
    ratio = math.exp(-epsilon)
    for size in range(-3, 4):
        share = (1 - ratio) / (1 + ratio) * ratio ** abs(size)
        assert np.mean(drawn == size) == pytest.approx(share, abs=0.016)  # at least 4.5 standard errors
    assert np.var(drawn) == pytest.approx(2 * ratio / (1 - ratio) ** 2, rel=0.1)


@pytest.mark.parametrize("epsilons", [(1.0,), (0.3,), (1.0, 1.0, 0.5)])
def test_the_noise_of_a_sum_stays_within_what_is_said(epsilons):
    sums = sum(
        np.array([keyed_noise(SECRET, str(silo), str(turn), epsilon) for turn in range(20_000)])
        for silo, epsilon in enumerate(epsilons)
    )
    within = noise_within(epsilons)
    assert np.mean(np.abs(sums) <= within) >= 0.94
    assert np.mean(np.abs(sums) <= within - 1) < 0.96
    assert noise_within(()) == 0


def test_much_noise_of_many_silos_is_said_in_no_time():
    assert noise_within([0.01] * 1000) == pytest.approx(1.96 * math.sqrt(2000) / 0.01, rel=0.01)


def test_few_are_not_told():
    told = [
        told_counts(policy(), {ALL: count}, secret=SECRET, subject=f"{count}{turn}", most=100)[ALL]
        for count in (0, 1, 5)
        for turn in range(300)
    ]
    assert np.mean([number is not None for number in told]) < 0.01  # 5 patients need noise of 6 or more: 0.002
    assert all(number >= 11 for number in told if number is not None)


SUBJECT = {"generation": "000001", "alike": 95.0, "similarity": -1.0, "filters": Filters()}


def test_the_noise_belongs_to_the_nearest_patient_and_to_what_is_counted():
    base = count_subject(PatientKey("p1"), **SUBJECT)
    again = count_subject(PatientKey("p1"), **SUBJECT | {"filters": Filters(sexes=())})
    assert again == base
    changes = [
        {"generation": "000002"},
        {"alike": 95.1},
        {"similarity": 0.5},
        {"filters": Filters(sexes=("F",))},
    ]
    others = [count_subject(PatientKey("p1"), **SUBJECT | change) for change in changes]
    assert len({base, count_subject(PatientKey("p2"), **SUBJECT), *others}) == 6


def test_the_order_of_words_and_how_often_they_are_said_is_no_other_question():
    asked = ((("F", "M"), ("Mass", "Edema")), (("M", "F"), ("Edema", "Mass")), (("F", "M", "F"), ("Mass", "Edema", "Edema")))
    subjects = {
        count_subject(PatientKey("p1"), **SUBJECT | {"filters": Filters(sexes=sexes, present=present)})
        for sexes, present in asked
    }
    assert len(subjects) == 1
    zeros = {count_subject(PatientKey("p1"), **SUBJECT | {"alike": zero, "similarity": zero}) for zero in (0.0, -0.0)}
    assert len(zeros) == 1
