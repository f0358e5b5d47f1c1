"""The release policy: an allow-list, and a stricter setting never lets out more."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import CaseId, Finding, PatientKey, Sex, Split, View, ViewPosition
from silo_app.config import ReleaseSettings
from silo_app.policy.refusal import PUBLIC, RefusalCode
from silo_app.policy.release import (
    MOST_KEPT_BACK,
    Candidate,
    Card,
    candidates_for,
    card_of,
    refusal,
    release,
    shows_same_patient,
)

FIELDS = ("position", "sex", "age_band", "study_year", "findings")


def a_view(**fields) -> View:
    known = {
        "digest": "0" * 64,
        "case": CaseId("c" * 32),
        "patient": PatientKey("secret-patient"),
        "split": Split.TRAIN,
        "position": ViewPosition.PA,
        "sex": Sex.FEMALE,
        "age": 47,
        "study_year": 2019,
        "device": "secret-device",
        "findings": {Finding.PNEUMONIA: True, Finding.MASS: False},
    }
    return View(**(known | fields))


def test_a_card_has_the_allowed_fields_and_nothing_else():
    card = card_of(ReleaseSettings(fields=FIELDS), a_view())
    assert card.model_dump(mode="json") == {
        "position": "PA",
        "sex": "F",
        "age_band": "40-49",
        "study_year": 2019,
        "findings": {"Pneumonia": True, "Mass": False},
    }
    assert "secret" not in repr(card)


def test_nothing_allowed_is_an_empty_card():
    assert card_of(ReleaseSettings(fields=()), a_view()) == Card()


@pytest.mark.parametrize("field", FIELDS)
def test_one_allowed_field_is_released_alone(field):
    card = card_of(ReleaseSettings(fields=(field,)), a_view())
    assert set(card.model_dump(exclude_defaults=True)) == {field}


@pytest.mark.parametrize("age", [90, 104, None, 0])
def test_every_age_becomes_a_valid_band(age):
    band = card_of(ReleaseSettings(fields=("age_band",)), a_view(age=age)).age_band
    assert band == {90: "90+", 104: "90+", None: "", 0: "0-9"}[age]


REFUSED = {
    "not answering": ({"answer_queries": False}, RefusalCode.NOT_ANSWERING),
    "a purpose that is not on the list": ({"purposes": ("teaching",)}, RefusalCode.PURPOSE),
    "no purpose at all": ({"purposes": ()}, RefusalCode.PURPOSE),
    "an asker who is not on the list": ({"askers": ("south",)}, RefusalCode.ASKER),
    "too few cases": ({"min_gallery": 12}, RefusalCode.GALLERY_TOO_SMALL),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_policy_refuses(kind):
    change, code = REFUSED[kind]
    assert refusal(ReleaseSettings(**change), asker="north", purpose="care", cases=11) is code


def test_what_the_policy_allows():
    assert refusal(ReleaseSettings(), asker="north", purpose="care", cases=11) is None
    named = ReleaseSettings(askers=("north", "south"))
    assert refusal(named, asker="north", purpose="care", cases=11) is None


def test_every_code_has_a_public_sentence():
    assert set(PUBLIC) == set(RefusalCode)


SAME_PATIENT = ("withhold", "coarsen", "show")
policies = st.builds(
    ReleaseSettings,
    answer_queries=st.booleans(),
    fields=st.lists(st.sampled_from(FIELDS), unique=True).map(tuple),
    max_hits=st.integers(1, 8),
    min_similarity=st.sampled_from([-1.0, 0.0, 0.25, 0.5]),
    min_gallery=st.integers(1, 12),
    min_cases=st.integers(1, 6),
    same_patient=st.sampled_from(SAME_PATIENT),
    same_patient_purposes=st.lists(st.sampled_from(["care", "research"]), unique=True).map(tuple),
    purposes=st.lists(st.sampled_from(["care", "research"]), unique=True).map(tuple),
    askers=st.sampled_from([(), ("north",), ("south",), ("north", "south")]),
)


def stricter(draw, loose: ReleaseSettings) -> ReleaseSettings:
    """Draw a policy that is at least as strict in every setting."""
    askers = loose.askers or ("north", "south")
    return ReleaseSettings(
        answer_queries=loose.answer_queries and draw(st.booleans()),
        fields=tuple(field for field in loose.fields if draw(st.booleans())),
        max_hits=draw(st.integers(1, loose.max_hits)),
        min_similarity=draw(st.sampled_from([s for s in (-1.0, 0.0, 0.25, 0.5) if s >= loose.min_similarity])),
        min_gallery=draw(st.integers(loose.min_gallery, 13)),
        min_cases=draw(st.integers(loose.min_cases, 7)),
        same_patient=draw(st.sampled_from(SAME_PATIENT[: SAME_PATIENT.index(loose.same_patient) + 1])),
        same_patient_purposes=tuple(purpose for purpose in loose.same_patient_purposes if draw(st.booleans())),
        purposes=tuple(purpose for purpose in loose.purposes if draw(st.booleans())),
        askers=draw(st.sampled_from([loose.askers, askers[:1]])),
    )


LIMIT = 0.75


def released(policy: ReleaseSettings, candidates, k, asker, cases) -> list[set[tuple[str, str, str]]]:
    """Return every single fact that leaves the silo, hit by hit."""
    if refusal(policy, asker=asker, purpose="care", cases=cases):
        return []
    limit = None if shows_same_patient(policy, "care") else LIMIT
    return [
        {(hit.case, name, str(value)) for name, value in {"score": hit.score, **_card(hit)}.items()}
        for hit in release(policy, k, candidates, limit=limit).hits
    ]


def _card(hit):
    return hit.card.model_dump(exclude_defaults=True)


def some_candidates(data):
    scores = sorted(data.draw(st.lists(st.floats(-1, 1), max_size=12)), reverse=True)
    return [
        Candidate(CaseId(f"{i:032x}"), score, a_view(age=i, patient=PatientKey(f"p{data.draw(st.integers(0, 6))}")))
        for i, score in enumerate(scores)
    ]


@settings(max_examples=300, deadline=None)
@given(st.data(), policies)
def test_a_stricter_policy_never_releases_more(data, loose):
    """Never more hits, never more of a case, and no case that the looser one would keep from whoever asks for more."""
    strict = stricter(data.draw, loose)
    candidates, k = some_candidates(data), data.draw(st.integers(1, 10))
    asker, cases = data.draw(st.sampled_from(["north", "south"])), data.draw(st.integers(1, 13))
    less = released(strict, candidates, k, asker, cases)
    assert len(less) <= len(released(loose, candidates, k, asker, cases))
    asking_more = loose.model_copy(update={"max_hits": 1000})
    more = released(asking_more, candidates, 1000, asker, cases)
    assert set().union(*less) <= set().union(*more)


@settings(max_examples=200, deadline=None)
@given(st.data(), policies)
def test_no_case_of_a_patient_who_may_be_the_querys_own_is_released_unless_policy_and_purpose_allow(data, policy):
    candidates = some_candidates(data)
    alike = {c.view.patient for c in candidates if c.score >= max(LIMIT, policy.min_similarity)}
    hits = release(policy, 12, candidates, limit=LIMIT).hits
    patients = {c.case: c.view.patient for c in candidates}
    assert not alike & {patients[hit.case] for hit in hits}


def many_candidates(seed, count, patients, alike):
    """Candidates of which so many are alike enough to be kept back; a patient has cases anywhere."""
    rng = np.random.default_rng(seed)
    scores = np.sort(np.concatenate([rng.uniform(LIMIT, 1, alike), rng.uniform(-0.2, LIMIT - 1e-3, count - alike)]))[::-1]
    owners = rng.integers(0, patients, count)
    views = [a_view(patient=PatientKey(f"p{owner}")) for owner in owners]
    return [Candidate(CaseId(f"{i:032x}"), float(s), view) for i, (s, view) in enumerate(zip(scores, views, strict=True))]


galleries = st.builds(
    many_candidates,
    seed=st.integers(0, 2**32),
    count=st.integers(150, 300),
    patients=st.sampled_from([4, 20, 100, 1000]),
    alike=st.sampled_from([0, 1, 2, 20, 64, 100]),
)
patients_or_none = st.sampled_from([frozenset(), frozenset({PatientKey("p1"), PatientKey("p3")})])


@settings(max_examples=100, deadline=None)
@given(galleries, policies, st.integers(1, 30), patients_or_none)
def test_nothing_that_is_said_depends_on_who_is_kept_back(candidates, policy, k, also):
    found = release(policy, k, candidates, limit=LIMIT, also=also)
    for patient in [*sorted(found.withheld)[:20], *sorted(also)]:
        without = [candidate for candidate in candidates if candidate.view.patient != patient]
        other = release(policy, k, without, limit=LIMIT, also=also)
        assert (other.hits, other.nearest, other.enough) == (found.hits, found.nearest, found.enough)
        assert other.withheld == found.withheld - {patient}


@settings(max_examples=100, deadline=None)
@given(galleries, policies, st.integers(1, 30), patients_or_none, st.sampled_from([None, LIMIT]))
def test_what_comes_behind_changes_nothing_where_there_is_enough(candidates, policy, k, also, limit):
    whole = release(policy, k, candidates, limit=limit, also=also)
    lengths = [n for n in range(0, len(candidates), 7) if release(policy, k, candidates[:n], limit=limit, also=also).final]
    assert lengths == list(range(min(lengths, default=len(candidates)), len(candidates), 7)), "more is enough, too"
    for length in lengths[:4]:
        part = release(policy, k, candidates[:length], limit=limit, also=also)
        assert part == replace(whole, final=True)


def test_enough_is_looked_at_at_once_where_as_many_are_kept_back_as_expected():
    policy = ReleaseSettings()
    for limit, alike in ((None, 0), (LIMIT, 0), (LIMIT, 1), (LIMIT, 64)):
        candidates = many_candidates(0, 300, 1000, alike)
        first = candidates_for(policy, 10, None if limit is None else alike)
        assert release(policy, 10, candidates[:first], limit=limit).final
        assert first < 150


def test_of_a_gallery_that_is_all_alike_no_more_than_the_most_are_kept_back():
    policy = ReleaseSettings(min_cases=1)
    candidates = many_candidates(0, MOST_KEPT_BACK + 200, 10**6, MOST_KEPT_BACK + 200)
    first = candidates_for(policy, 10, 1e6)
    assert not release(policy, 10, candidates[: MOST_KEPT_BACK - 1], limit=LIMIT).final
    found = release(policy, 10, candidates[:first], limit=LIMIT)
    assert found.final
    shown = [candidate.case for candidate in candidates[MOST_KEPT_BACK:] if candidate.view.patient not in found.withheld]
    assert [hit.case for hit in found.hits] == shown[:10]


@pytest.mark.parametrize(
    ("policy", "purpose", "shown"),
    [
        ({}, "care", False),
        ({"same_patient": "coarsen"}, "care", False),
        ({"same_patient": "show"}, "care", True),
        ({"same_patient": "show"}, "research", False),
        ({"same_patient": "show", "same_patient_purposes": ("research",)}, "research", True),
    ],
)
def test_policy_and_purpose_must_both_allow_it(policy, purpose, shown):
    assert shows_same_patient(ReleaseSettings(**policy), purpose) is shown


def test_others_take_the_place_of_those_who_are_kept_back():
    candidates = [
        Candidate(CaseId(f"{i:032x}"), s, a_view(patient=PatientKey(f"p{i}"))) for i, s in enumerate([0.9, 0.5, 0.4])
    ]
    policy = ReleaseSettings(min_cases=1)
    full, kept = (release(policy, 2, candidates, limit=limit) for limit in (None, LIMIT))
    assert [hit.score for hit in full.hits] == [0.9, 0.5]
    assert ([hit.score for hit in kept.hits], kept.withheld) == ([0.5, 0.4], {"p0"})
    assert [found.nearest for found in (full, kept)] == [candidates[0].case, candidates[1].case]


def test_who_is_kept_back_already_is_so_whatever_is_left_of_the_cases():
    candidates = [
        Candidate(CaseId(f"{i:032x}"), s, a_view(patient=PatientKey(f"p{i}"))) for i, s in enumerate([0.7, 0.5, 0.4])
    ]
    policy = ReleaseSettings(min_cases=1)
    kept = release(policy, 2, candidates, limit=LIMIT, also=frozenset({PatientKey("p1"), PatientKey("elsewhere")}))
    assert ([hit.score for hit in kept.hits], kept.withheld) == ([0.7, 0.4], {"p1"})


def test_too_few_patients_is_no_answer_at_all():
    one = PatientKey("one")
    candidates = [Candidate(CaseId(f"{i:032x}"), 0.5, a_view(patient=one)) for i in range(9)]
    found = release(ReleaseSettings(min_cases=2), 5, candidates, limit=LIMIT)
    assert (found.hits, found.enough) == ((), False)
