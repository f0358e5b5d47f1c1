"""Whoever is kept back might as well not be there: whatever is asked, a silo says the same with and without the patient."""

import itertools
import json

import numpy as np
import pytest

from silo_app.cases import Finding
from silo_app.config import ReleaseSettings, load
from silo_app.index.likeness import CROWD, estimate, sense_of
from silo_app.policy.canaries import write_canaries
from silo_app.policy.filters import Filters
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import Candidate, candidates_for, release
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.counts.messages import CountRequest
from silo_app.search.counts.service import Counting
from silo_app.search.envelope import open_reply, seal
from silo_app.search.messages import Refusal, SiloAnswer, unit_embedding
from silo_app.search.server import IndexProcess
from silo_app.search.watch import Watch
from tests.search.conftest import ENCODER, BruteForceGallery, make_view

D = 32
PATIENTS = 80
NOW = 1_700_000_000.0
OFTEN = 4
FILTERS = (
    Filters(),
    Filters(sexes=("F",)),
    Filters(sexes=("M",)),
    Filters(age_bands=("40-49",)),
    Filters(age_bands=("60-69",)),
    Filters(present=(Finding.MASS,)),
    Filters(absent=(Finding.MASS,)),
)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Patients with two cases each, alike. Of patient 0 one case is of a woman's card, the other a man's and not alike."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.own = rng.standard_normal((PATIENTS, 1, D))
        vectors = unit(self.own + 0.35 * rng.standard_normal((PATIENTS, 2, D)))
        self.query = unit(self.own[0, 0] + 0.35 * rng.standard_normal(D))
        others = vectors[1:].reshape(-1, D)
        near = np.sort(others @ self.query)[-2]
        aside = rng.standard_normal(D)
        aside = unit(aside - (aside @ self.query) * self.query)
        vectors[0, 1] = unit(near * self.query + np.sqrt(1 - near**2) * aside)  # among the nearest, and no more than that
        self.vectors = vectors.reshape(-1, D)
        self.cases = [f"{number:032x}" for number in range(2 * PATIENTS)]
        self.views = {case: self.view(number) for number, case in enumerate(self.cases)}
        patients = [f"p{number // 2}" for number in range(2 * PATIENTS)]
        self.likeness = estimate(self.vectors, self.cases, patients)
        self.sense = sense_of(BruteForceGallery(self.vectors, self.cases), self.likeness)
        self.neighbors = self.vectors[2 + np.argsort(-(others @ self.query))[:3]]

    def view(self, number):
        patient, second = divmod(number, 2)
        is_man = second if patient == 0 else patient % 2
        return make_view(
            self.cases[number],
            patient=f"p{patient}",
            sex="M" if is_man else "F",
            age=(40, 60)[second if patient == 0 else patient // 2 % 2],
            findings={Finding.MASS: bool(second if patient == 0 else patient // 4 % 2)},
        )

    def silo(self, home, *, without=0, **release):
        """Return what asks a silo that holds all but the first `without` cases, and counts as its index process does."""
        cases = self.cases[without:]
        index = BruteForceGallery(self.vectors[without:], cases)
        gallery = SearchableCases("000001", ENCODER, index, self.sense)
        watch = Watch(home)
        policy = ReleaseSettings(**release)

        def rows_where(filters, asked):
            return asked.rows_of([case for case in cases if filters.holds(self.views[case])])

        def ask(request):
            self.found = []

            def look(found):
                self.found.append(found)
                return watch.found(request, found, NOW)

            if isinstance(request, CountRequest):
                counting = Counting("south", policy, lambda _: self.views.get, rows_where, look, b"")
                return counting.answer(request, gallery, lambda: 1.0)
            return answer(
                request, gallery, silo="south", view_of=self.views.get, settings=policy, look=look, rows_where=rows_where
            )

        return ask


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture
def twins(world, stocked):
    """Two silos, one with patient 0 and one without; every budget about one case is spent after a few questions."""
    config = f"release: {{similar_queries_per_day: {OFTEN}}}\n"
    homes = [stocked(name, cases=0, config=config).home for name in ("south", "southern")]
    return [world.silo(home, without=without) for home, without in zip(homes, (0, 2), strict=True)]


def said(reply):
    """Return all that a reply says of a query; how many cases a silo has, it says to everybody."""
    return reply.model_dump(exclude={"query_id", "indexed", "silo"})


def variants(world):
    """The image, and what more-like, less-like and another region make of it."""
    rng = np.random.default_rng(5)
    yield world.query
    for neighbor, share in itertools.product(world.neighbors, (0.1, -0.1)):
        yield unit(world.query + share * neighbor)
    for _ in range(3):
        yield unit(world.query + 0.05 * rng.standard_normal(D))


def test_no_question_tells_whether_who_is_kept_back_is_there(world, twins, request_of):
    there, away = twins
    codes = set()
    for vector, filters, k in itertools.product(variants(world), FILTERS, (1, 5, 20)):
        request = request_of(vector, filters=filters, k=k)
        first = there(request)
        assert world.found[0].kept_back or filters, "the question is about who is kept back"
        assert said(first) == said(away(request))
        codes.add(getattr(first, "code", None))
    assert codes == {None, RefusalCode.REPEATED}


class Crowd(World):
    """As many are alike to the query as are ever kept back, and more: patient 0 is one of them, and the nearest."""

    def __init__(self):
        rng = np.random.default_rng(4)
        self.query = unit(rng.standard_normal(D))
        near = unit(self.query + 0.18 * rng.standard_normal((3 * CROWD, D)))
        self.vectors = np.concatenate([near[np.argsort(-(near @ self.query))], unit(rng.standard_normal((20 * CROWD, D)))])
        self.cases = [f"{number:032x}" for number in range(len(self.vectors))]
        self.views = {case: self.view(number) for number, case in enumerate(self.cases)}
        self.sense = sense_of(BruteForceGallery(self.vectors, self.cases), None)
        self.neighbors = self.vectors[2:5]


def test_nor_where_more_are_alike_than_are_kept_back(stocked, request_of):
    crowd = Crowd()
    settings = {"min_cases": 20, "fields": ("position", "sex", "age_band", "findings")}
    homes = [stocked(name, cases=0).home for name in ("south", "southern")]
    there, away = (crowd.silo(home, without=without, **settings) for home, without in zip(homes, (0, 2), strict=True))
    kept = []
    for vector, filters, k in itertools.product(variants(crowd), FILTERS, (1, 5, 20)):
        request = request_of(vector, filters=filters, k=k)
        first = there(request)
        kept.append(crowd.found[0].kept_back)
        assert said(first) == said(away(request))
    assert 2 * max(kept) > CROWD, "not more stood out than the nearest, of whom one would be the last"


class Counted(BruteForceGallery):
    """A gallery that says how many cases it was asked for."""

    def __init__(self, vectors, cases):
        super().__init__(vectors, cases)
        self.asked = []

    def search_among(self, query, k, rows):
        self.asked.append(k)
        return super().search_among(query, k, rows)


@pytest.mark.parametrize("filters", FILTERS[1:])
@pytest.mark.parametrize("least", [-1.0, 0.6])
def test_a_narrowed_query_is_not_searched_once_more_through_all_who_are_kept_back(request_of, filters, least):
    """In lists and in Milvus that takes longer than everything else; what is said stays the same."""
    crowd, k = Crowd(), 5
    index = Counted(crowd.vectors, crowd.cases)
    settings = ReleaseSettings(
        min_similarity=least, fields=("position", "sex", "age_band", "findings"), same_patient="coarsen"
    )

    def rows_where(filters, asked):
        return asked.rows_of([case for case in crowd.cases if filters.holds(crowd.views[case])])

    gallery = SearchableCases("000001", ENCODER, index, crowd.sense)
    request = request_of(crowd.query, filters=filters, k=k)
    reply = answer(request, gallery, silo="south", view_of=crowd.views.get, settings=settings, rows_where=rows_where)

    limit = crowd.sense.bound_for(crowd.query).limit
    every = [Candidate(*hit, crowd.views[hit.case]) for hit in index.search(crowd.query, index.cases)]
    kept_back = release(settings, k, every, limit=limit).withheld
    wanted = release(settings, k, [one for one in every if filters.holds(one.view)], limit=limit, also=kept_back)
    assert [(hit.case, hit.score) for hit in reply.hits] == [(hit.case, hit.score) for hit in wanted.hits]
    assert reply.withheld == len(wanted.withheld)
    assert len(kept_back) == CROWD / 2, "two cases each"
    assert index.asked == [candidates_for(settings, k, None)]


def test_no_refusal_of_a_count_tells_it_either(world, twins, request_of):
    there, away = twins
    codes = []
    for filters in (*FILTERS, Filters(positions=("PA",))):
        common = request_of().model_dump(include={"issued_at_ms", "budget_ms", "encoder_version", "purpose", "asker"})
        request = CountRequest(**common, vector=unit_embedding(world.query), alike=50.0, filters=filters)
        replies = [ask(request) for ask in (there, away)]
        codes.append([getattr(reply, "code", None) for reply in replies])
    assert codes == [[None] * 2] * OFTEN + [[RefusalCode.REPEATED] * 2] * (len(codes) - OFTEN)


def test_questions_about_one_image_are_bounded_whatever_they_are_narrowed_to(world, twins, request_of):
    ask, _ = twins
    replies = [ask(request_of(world.query, filters=filters, k=5)) for filters in FILTERS]
    assert [getattr(reply, "code", None) for reply in replies] == [None] * OFTEN + [RefusalCode.REPEATED] * 3


def test_a_narrowed_query_keeps_back_all_cases_of_who_is_kept_back(world, stocked, request_of):
    ask = world.silo(stocked("south", cases=0).home)
    assert world.query @ world.vectors[1] < world.sense.bound_for(world.query).limit < world.query @ world.vectors[0]
    reply = ask(request_of(world.query, k=20, filters=Filters(sexes=("M",))))
    assert world.cases[1] not in {hit.case for hit in reply.hits}
    assert world.found[0].kept_back == 1


@pytest.mark.parametrize(
    ("policy", "asker", "withheld"),
    [
        ({}, "north", None),
        ({"same_patient": "show"}, "north", 0),
        ({"same_patient": "show", "same_patient_purposes": ("research",)}, "north", None),
        ({"same_patient": "coarsen"}, "north", 1),
        ({}, "south", 0),
    ],
)
def test_a_number_is_told_by_a_silo_that_chose_so_and_by_no_other(world, stocked, request_of, policy, asker, withheld):
    ask = world.silo(stocked("south", cases=0).home, **policy)
    reply = ask(request_of(world.query, asker=asker))
    assert reply.withheld == withheld
    stranger = ask(request_of(-world.query, asker=asker))
    assert (stranger.withheld is None) is (withheld is None)


def test_which_cases_are_of_one_patient_is_not_told_by_a_refusal(world, stocked, request_of):
    home = stocked("south", cases=0, config=f"release: {{same_patient: show, similar_queries_per_day: {OFTEN}}}\n").home
    ask = world.silo(home, same_patient="show")
    first, second = world.vectors[4], world.vectors[5]
    assert [isinstance(ask(request_of(first)), SiloAnswer) for _ in range(OFTEN + 1)] == [True] * OFTEN + [False]
    assert isinstance(ask(request_of(second)), SiloAnswer)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_a_planted_case_in_the_place_of_who_is_kept_back_alerts(stocked, request_of, k):
    """With every default of the guard."""
    silo = stocked("south", cases=60, studies=2, config="release: {}\n")
    silo.index()
    process = IndexProcess(load(silo.home.kit))
    north = stocked.federation.identity("north")

    def ask():
        frame = seal(north, request_of(next(iter(silo.vectors.values())), k=k))
        return open_reply(north, "south", frame, process.answer_frame(frame), SiloAnswer, Refusal)

    last = ask().hits[-1].case
    write_canaries(silo.home.canaries, [last])
    assert ask().hits[-1].case == last
    process.close()
    records = [json.loads(line) for line in silo.home.audit.read_text().splitlines()]
    assert records[0]["kept_back"] >= 1
    assert [record["cases"] for record in records if record["event"] == "canary"] == [[last]]
