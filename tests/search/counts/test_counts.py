"""Counts over real index processes: exact before the noise, refused as a search is, summed with what stays open."""

import json

import numpy as np
import pytest

from silo_app.audit.log import verify
from silo_app.catalogue import Catalogue
from silo_app.config import load
from silo_app.index.gallery import exact_scores
from silo_app.index.generations import open_current
from silo_app.index.likeness import sense_of
from silo_app.policy.canaries import write_canaries
from silo_app.policy.counts import ALL, count_subject, counted, told_counts
from silo_app.policy.filters import Filters
from silo_app.policy.noise import load_secret
from silo_app.policy.refusal import RefusalCode
from silo_app.search import local
from silo_app.search.ask import Asker
from silo_app.search.broker import Broker
from silo_app.search.counts.ask import count_embedding
from silo_app.search.counts.messages import CountAnswer, CountRequest
from silo_app.search.counts.service import alike_cases
from silo_app.search.envelope import open_reply, seal, seal_reply
from silo_app.search.messages import Refusal, SiloState, unit_embedding
from silo_app.search.server import IndexProcess

ENCODER = "ab" * 32
SICK = Filters(present=("Pneumonia",))


@pytest.fixture
def counting(stocked, request_of):
    """Start a silo with a configuration; ask it for counts as `north`."""
    opened = []

    def start(config="name: south\n", cases=120, studies=2):
        silo = stocked("south", cases=cases, studies=studies, config=config)
        silo.index()
        process = IndexProcess(load(silo.home.kit))
        opened.append(process)
        north = stocked.federation.identity("north")

        def ask(vector=None, asker=north, **fields):
            shared = request_of(vector).model_dump(include={"issued_at_ms", "budget_ms", "encoder_version", "vector"})
            asked = {"purpose": "care", "asker": asker.name, "alike": 0.0} | shared | fields
            frame = seal(asker, CountRequest(**asked))
            return open_reply(north, "south", frame, process.answer_frame(frame), CountAnswer, Refusal)

        return silo, ask

    yield start
    for process in opened:
        process.close()


def records(silo):
    return [json.loads(line) for line in silo.home.audit.read_text().splitlines()]


def by_definition(silo, vector, threshold, filters=None):
    """The cards of all cases whose nearest view is so similar, from catalogue and vectors alone."""
    query = np.frombuffer(unit_embedding(vector), "<f4")
    with Catalogue.open(silo.home.catalogue) as catalogue:
        best: dict[str, float] = {}
        for view in catalogue.views():
            stored = silo.vectors[view.digest].astype(np.float16).astype(np.float32)
            score = float(exact_scores(stored[None, :], query)[0])
            best[view.case] = max(score, best.get(view.case, -2.0))
        cards = [catalogue.card(case) for case, score in best.items() if score >= threshold]
    return [card for card in cards if filters is None or filters.holds(card)]


def expected(silo, vector, *, alike, similarity=-1.0, filters=None, by_finding=False):
    """What the silo has to tell: the exact number by definition, with the noise of its secret."""
    generation = open_current(silo.home.index)
    curve = sense_of(generation.gallery, generation.info.likeness).likeness
    filters = filters or Filters()
    views = by_definition(silo, vector, max(similarity, curve.similarity_at(alike)), filters)
    everybody = by_definition(silo, vector, -1.0, filters)
    query = np.frombuffer(unit_embedding(vector), "<f4")
    nearest = max(everybody, key=lambda view: float(exact_scores(_stored(silo, view.case), query).max()))
    subject = count_subject(
        nearest.patient, generation=generation.info.generation, alike=alike, similarity=similarity, filters=filters
    )
    release = silo.home.config.release
    exact = counted(release, views, by_finding=by_finding)
    secret = load_secret(silo.home.release_key)
    return told_counts(release, exact, secret=secret, subject=subject, most=generation.info.cases)


def _stored(silo, case):
    with Catalogue.open(silo.home.catalogue) as catalogue:
        digests = [view.digest for view in catalogue.views_of(case)]
    return np.stack([silo.vectors[digest].astype(np.float16).astype(np.float32) for digest in digests])


QUESTIONS = [
    {"alike": 0.0},
    {"alike": 50.0},
    {"alike": 90.0, "by_finding": True},
    {"alike": 30.0, "similarity": 0.1},
    {"alike": 20.0, "filters": SICK, "by_finding": True},
    {"alike": 99.9},
]


def test_a_count_is_brute_force_with_the_noise_of_the_silos_secret(counting):
    silo, ask = counting("release: {count: {min_count: 1, user_numbers_per_day: 100}}\n")
    for seed, question in enumerate(QUESTIONS):
        vector = list(silo.vectors.values())[7 * seed]
        reply = ask(vector, **question)
        told = expected(silo, vector, **question)
        assert reply.patients == told.pop(ALL)
        assert {finding.value: number for finding, number in reply.findings.items()} == told
        assert (reply.indexed, reply.min_count, reply.epsilon) == (120, 1, 1.0)


def test_every_view_at_the_threshold_is_found_whatever_the_blocks(counting, monkeypatch):
    silo, _ = counting()
    monkeypatch.setattr("silo_app.search.counts.service._BLOCK", 7)
    gallery = open_current(silo.home.index).gallery
    query = next(iter(silo.vectors.values()))
    scores = exact_scores(gallery.vectors(np.arange(gallery.views)), query)
    for threshold in np.sort(scores)[[0, 17, 60, 119]]:
        found = list(alike_cases(gallery, query, np.arange(gallery.views), float(threshold)))
        assert sorted(found) == sorted(gallery.case_of(row) for row in np.flatnonzero(scores >= threshold))


def test_the_same_question_has_the_same_answer_and_so_has_one_that_is_a_hair_beside_it(counting):
    silo, ask = counting()
    for vector in list(silo.vectors.values())[:4]:
        told = {ask(vector + hair).patients for hair in (0, 1e-6, -1e-6, 1e-5, 2e-4)}
        assert len(told) == 1
        assert told != {None}
    assert len({ask(vector).patients for vector in list(silo.vectors.values())[::8]}) > 1


def test_a_recalled_patient_is_counted_no_more(counting):
    silo, ask = counting("release: {count: {min_count: 1}}\n", cases=60, studies=1)
    vector = list(silo.vectors.values())[3]
    assert ask(vector, alike=20.0).patients == expected(silo, vector, alike=20.0)[ALL]
    counted_before = len(by_definition(silo, vector, -1.0))
    for digest in list(silo.vectors)[10:40]:  # not the nearest: the noise stays
        silo.recall(digest)
    assert len(by_definition(silo, vector, -1.0)) == counted_before - 30
    assert ask(vector, alike=20.0).patients == expected(silo, vector, alike=20.0)[ALL]


def test_few_are_told_as_fewer_than(counting):
    silo, ask = counting()
    reply = ask(next(iter(silo.vectors.values())), alike=99.9, by_finding=True)
    assert reply.patients is None
    assert set(reply.findings.values()) == {None}


REFUSED = {
    "not answering": ("release: {answer_queries: false}\n", {}, RefusalCode.NOT_ANSWERING),
    "no counts": ("release: {count: {answer: false}}\n", {}, RefusalCode.COUNT),
    "another asker": ("release: {askers: [west]}\n", {}, RefusalCode.ASKER),
    "another purpose": ("release: {purposes: [teaching]}\n", {}, RefusalCode.PURPOSE),
    "a field that is not released": ("release: {fields: [sex]}\n", {"filters": SICK}, RefusalCode.FILTER),
    "a small gallery": ("release: {min_gallery: 121}\n", {}, RefusalCode.GALLERY_TOO_SMALL),
    "too few such cases": ("release: {min_gallery: 61}\n", {"filters": SICK}, RefusalCode.GALLERY_TOO_SMALL),
    "another encoder": ("name: south\n", {"encoder_version": "cd" * 32}, RefusalCode.OTHER_ENCODER),
    "an old question": ("name: south\n", {"issued_at_ms": 1}, RefusalCode.STALE),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_it_refuses_as_a_search_does(counting, kind):
    config, asked, code = REFUSED[kind]
    silo, ask = counting(config)
    assert ask(**asked).code is code
    assert (records(silo)[-1]["event"], records(silo)[-1]["mode"]) == ("refusal", "count")


def test_similar_cases_that_no_search_shows_are_not_counted(counting):
    _, ask = counting("release: {min_similarity: 1.0}\n")
    assert ask(alike=0.0).patients is None


def test_a_count_by_finding_costs_a_number_for_each(counting):
    _, ask = counting("release: {count: {numbers_per_day: 23, user_numbers_per_day: 1000}}\n")
    assert isinstance(ask(by_finding=True), CountAnswer)
    assert [isinstance(ask(user=f"u{turn}"), CountAnswer) for turn in range(4)] == [True, True, True, False]
    assert ask(by_finding=True).code is RefusalCode.BUDGET


def test_one_user_has_a_smaller_budget(counting):
    _, ask = counting("release: {count: {user_numbers_per_day: 1}}\n")
    assert isinstance(ask(user="a"), CountAnswer)
    assert ask(user="a").code is RefusalCode.BUDGET
    assert isinstance(ask(user="b"), CountAnswer)


def test_counts_around_one_patient_are_counted_with_the_searches(counting):
    silo, ask = counting("release: {similar_queries_per_day: 2}\n")
    vector = next(iter(silo.vectors.values()))
    assert [isinstance(ask(vector, alike=99.9), CountAnswer) for _ in range(3)] == [True, True, False]
    assert ask(vector).code is RefusalCode.REPEATED


def test_a_planted_case_near_a_count_gives_an_alert(counting):
    silo, ask = counting()
    digest, vector = next(iter(silo.vectors.items()))
    with Catalogue.open(silo.home.catalogue) as catalogue:
        case = catalogue.case_of_digest(digest)
    write_canaries(silo.home.canaries, [case])
    ask(vector, alike=99.9)
    assert [record["cases"] for record in records(silo) if record["event"] == "canary"] == [[case]]


def test_an_answer_is_in_the_audit_log_as_it_was_told(counting):
    silo, ask = counting()
    reply = ask(alike=10.0, user="dr.x@north", filters=Filters(positions=("PA",)))
    record = records(silo)[0]
    assert (record["event"], record["mode"], record["user"], record["alike"]) == ("count", "count", "dr.x@north", 10.0)
    assert (record["told"], record["filters"]) == ([f"patients: {reply.patients}"], ["position"])
    assert verify(silo.home.audit).lines == 1


def test_a_replayed_count_is_refused(counting):
    _, ask = counting()
    assert isinstance(ask(query_id="a" * 32), CountAnswer)
    assert ask(query_id="a" * 32).code is RefusalCode.REPLAYED


def test_without_time_it_is_busy(counting, monkeypatch):
    _, ask = counting()
    monkeypatch.setattr("silo_app.search.underway.Case.left_s", lambda *_: 0.0)
    assert ask().code is RefusalCode.BUSY


class SocketTransport:
    """What the gateways do, without NVFlare; `handlers` stand in for silos that misbehave."""

    def __init__(self, silos):
        self.silos, self.handlers = silos, {}

    def ask(self, silo, message, budget_s):
        if silo in self.handlers:
            return self.handlers[silo](message)
        return local.exchange(self.silos[silo].home.index_socket, message, budget_s)


@pytest.fixture
def federation(stocked):
    """Three silos with index processes, a broker, and `north`'s gateway; `westward` holds few of them."""
    configs = {"north": "release: {min_gallery: 1}\n", "south": "release: {}\n", "westward": "release: {fields: [sex]}\n"}
    silos = {name: stocked(name, cases=60, config=config) for name, config in configs.items()}
    processes = []
    for silo in silos.values():
        silo.index()
        processes.append(IndexProcess(silo.home))
        processes[-1].start()
    transport = SocketTransport(silos)
    broker = Broker(transport, tuple(silos), budget_ms=20_000)  # however busy the machine is
    gateway = local.FrameServer(silos["north"].home.gateway_socket, broker.search)
    gateway.start()
    yield silos, transport
    gateway.close()
    broker.close()
    for process in processes:
        process.close()


def test_all_silos_are_summed_and_named(federation):
    silos, _ = federation
    vector = next(iter(silos["south"].vectors.values()))
    result = count_embedding(Asker.of(silos["north"].home), vector, encoder_version=ENCODER, alike=10.0, by_finding=True)
    told = [expected(silo, vector, alike=10.0, by_finding=True) for silo in silos.values()]
    assert [silo.report.state for silo in result.silos] == [SiloState.ANSWERED] * 3
    assert (result.patients.least, result.patients.most) == (sum(one[ALL] for one in told),) * 2
    assert (result.patients.silos, result.patients.few) == (3, ())
    assert 0 < result.patients.noise < 10
    pneumonia, hernia = (result.findings[finding] for finding in ("Pneumonia", "Hernia"))
    assert (pneumonia.least, pneumonia.silos) == (sum(one["Pneumonia"] for one in told[:2]), 2)
    assert (hernia.least, hernia.most, hernia.few, hernia.noise) == (0, 20, ("north", "south"), 0)
    assert next(iter(result.findings)) == "Pneumonia"
    asked = records(silos["north"])[-1]
    assert (asked["event"], asked["mode"], asked["asked_query"]) == ("asked", "count", result.query_id)
    assert f"westward:patients: {told[2][ALL]}" in asked["told"]


def test_silos_that_refuse_fail_or_lie_are_named_and_not_summed(federation, stocked):
    silos, transport = federation
    south = stocked.federation.identity("south")

    def lie(message, **changes):
        """Answer as `south` would, signed by it, but wrong."""
        fields = {"query_id": "a" * 32, "silo": "south", "encoder_version": ENCODER, "generation": "1", "indexed": 99}
        answer = CountAnswer(**fields | {"min_count": 1, "epsilon": 1.0, "patients": 99} | changes)
        return seal_reply(south, message, answer)

    def ask(**fields):
        result = count_embedding(
            Asker.of(silos["north"].home), next(iter(silos["south"].vectors.values())), encoder_version=ENCODER, **fields
        )
        return result, {silo.report.silo: silo.report for silo in result.silos}

    transport.handlers["south"] = lie
    result, reports = ask(alike=0.0)
    assert (reports["south"].state, result.patients.silos) == (SiloState.INVALID, 2)
    transport.handlers["south"] = lambda message: lie(message, silo="westward")
    assert ask()[1]["south"].state is SiloState.INVALID
    transport.handlers["south"] = lambda _: b"noise"
    assert ask()[1]["south"].state is SiloState.INVALID
    del transport.handlers["south"]
    result, reports = ask(filters=SICK, alike=0.0)
    assert (reports["westward"].state, reports["westward"].code) == (SiloState.DENIED, "filter-not-allowed")
    assert result.patients.silos == 2
