"""What leaves a silo: nobody who may be the query's own patient, nothing too often, no word of canaries, all sealed."""

import json
from hashlib import sha256

import numpy as np
import pytest

from silo_app.config import load
from silo_app.index.generations import open_current
from silo_app.index.likeness import CROWD, MIN_PATIENTS, estimate, sense_of
from silo_app.policy.canaries import write_canaries
from silo_app.policy.likeness import Likeness
from silo_app.policy.refusal import RefusalCode
from silo_app.search.envelope import open_reply, peek_request, seal, seal_reply
from silo_app.search.messages import (
    Bundle,
    BundleReply,
    Refusal,
    Sealed,
    SearchResult,
    SiloAnswer,
    SiloReport,
    SiloState,
)
from silo_app.search.server import IndexProcess
from silo_app.search.verified import verified, verified_bundle
from silo_app.search.wire import encode
from tests.search.conftest import BruteForceGallery

ENCODER = "ab" * 32


def two_of_each(patients, spread=0.3, dimension=16, seed=0):
    """Two cases a patient: alike to each other, unlike everybody else."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((patients, 1, dimension))
    vectors = (own + spread * rng.standard_normal((patients, 2, dimension))).reshape(-1, dimension)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors, [f"{i:032x}" for i in range(2 * patients)], [f"p{i // 2}" for i in range(2 * patients)]


def test_the_evidence_is_the_share_within_which_patients_are():
    likeness = estimate(*two_of_each(200, spread=0.1))
    assert likeness.patients == 200
    assert likeness.evidence < 0.01
    assert likeness.share == likeness.evidence
    assert list(likeness.similar) == sorted(likeness.similar)
    assert likeness.similarity_at(30) == pytest.approx(likeness.similar[5])


def test_where_patients_are_no_nearer_than_strangers_a_tenth_is_kept_back_and_no_more():
    vague = estimate(*two_of_each(200, spread=20.0))
    assert vague.evidence > 0.1
    assert vague.share == 0.1


def test_with_too_few_patients_a_tenth_is_kept_back():
    likeness = estimate(*two_of_each(MIN_PATIENTS - 1))
    assert likeness.evidence is None
    assert likeness.share == 0.1


def test_of_a_generation_that_was_estimated_otherwise_a_tenth_is_kept_back():
    known = estimate(*two_of_each(200, spread=0.1))
    before = {"patients": 200, "evidence": 3.03, "standing": known.similar, "similar": known.similar}
    likeness = Likeness.model_validate_json(json.dumps(before))
    assert (likeness.patients, likeness.share, likeness.similar) == (0, 0.1, known.similar)


def test_one_patient_with_many_pairs_counts_as_one():
    """Of 40 patients 39 are near themselves; the last has as many pairs as all others, and none that is near."""
    vectors, _, patients = two_of_each(39, spread=0.05, dimension=32)
    rng = np.random.default_rng(3)
    far = rng.standard_normal((30, 32))
    vectors = np.concatenate([vectors, (far / np.linalg.norm(far, axis=1, keepdims=True)).astype(np.float32)])
    likeness = estimate(vectors, [f"{i:032x}" for i in range(len(vectors))], [*patients, *["far"] * 30])
    assert likeness.evidence < 0.02


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_gallery_of_nobody_or_of_one_patient_knows_no_pairs(count):
    vectors = np.eye(16, dtype=np.float32)[:count]
    likeness = estimate(vectors, [f"{i:032x}" for i in range(count)], ["p"] * count)
    assert (likeness.share, set(likeness.similar)) == (0.1, {-1.0})


def some_views(count, dimension=32):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((count + 1, dimension))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors[0], vectors[1:], [f"{i:032x}" for i in range(count)]


@pytest.mark.parametrize(
    ("views", "share", "kept_back"),
    [
        (100, 0.1, 10),
        (1000, 0.1, 100),
        (1000, 0.02, 20),
        (1000, 0.0, 1),
        (4000, 0.1, CROWD),
        (4000, 0.01, 40),
        (60_000, 0.1, CROWD),
    ],
)
def test_the_nearest_share_is_kept_back_and_no_more_than_a_crowd(views, share, kept_back):
    query, vectors, cases = some_views(views)
    gallery = BruteForceGallery(vectors, cases)
    curve = sense_of(gallery, None).likeness
    sense = sense_of(gallery, curve.model_copy(update={"evidence": share}))
    bound = sense.bound_for(query)
    assert bound.alike == pytest.approx(kept_back, rel=0.05)
    above = sum(hit.score >= bound.limit for hit in gallery.search(query, views))
    assert above == pytest.approx(kept_back, rel=0.5) if views > 1024 else above == kept_back
    assert sense.nearest == kept_back


def test_as_many_are_kept_back_of_a_query_like_half_of_all_as_of_any_other():
    """Where all images of one finding are alike, nothing stands out by its similarity, and the patient is nearest still."""
    rng = np.random.default_rng(2)
    sides = np.where(np.arange(1000)[:, None] % 4, 1.0, -1.0) * np.eye(1, 32) * 8
    vectors = sides + rng.standard_normal((1000, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    sense = sense_of(BruteForceGallery(vectors, [f"{i:032x}" for i in range(1000)]), None)
    for query in vectors[:40]:
        assert np.count_nonzero(vectors @ query >= sense.bound_for(query).limit) in range(98, 103)


def test_a_gallery_without_views_keeps_nothing_back():
    sense = sense_of(BruteForceGallery(np.empty((0, 32), np.float32), []), None)
    assert sense.bound_for(np.ones(32, np.float32)).alike == 0


def test_a_query_is_judged_once_among_those_that_came_together():
    query, vectors, cases = some_views(400)
    sense = sense_of(BruteForceGallery(vectors, cases), None)
    together = sense.remembering()
    assert together.bound_for(query) == sense.bound_for(query)
    assert together.bound_for(query) is together.bound_for(query.copy())
    assert sense.remembering().known == {}


@pytest.fixture
def asking(stocked, request_of):
    """Start a silo with a configuration; ask it as `north` about one of its own images."""
    opened = []

    def start(config, name="south"):
        silo = stocked(name, cases=60, studies=2, config=config)
        silo.index()
        write_canaries(silo.home.canaries, ())
        process = IndexProcess(load(silo.home.kit))
        opened.append(process)
        north = stocked.federation.identity("north")

        def ask(vector, asker=north, **fields):
            frame = seal(asker, request_of(vector, asker=asker.name, **fields))
            return open_reply(asker, name, frame, process.answer_frame(frame), SiloAnswer, Refusal)

        return silo, ask

    yield start
    for process in opened:
        process.close()


def test_the_querys_own_patient_is_withheld_unless_policy_and_purpose_allow(asking, stocked):
    silo, ask = asking("release: {min_cases: 1}\n")
    vector = next(iter(silo.vectors.values()))
    generation = open_current(silo.home.index)
    assert generation.info.likeness.patients >= MIN_PATIENTS
    nearest = generation.gallery.search(vector, 1)[0].case
    reply = ask(vector, k=5)
    assert nearest not in {hit.case for hit in reply.hits}
    assert len(reply.hits) == 5
    own = ask(vector, asker=stocked.federation.identity("south"), k=5)
    assert own.hits[0].case == nearest  # no border is crossed
    kept = next(json.loads(line) for line in silo.home.audit.read_text().splitlines())
    assert kept["kept_back"] >= 1


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("release: {queries_per_day: 2}\n", RefusalCode.BUDGET),
        ("release: {user_queries_per_day: 2}\n", RefusalCode.BUDGET),
        ("release: {similar_queries_per_day: 2}\n", RefusalCode.REPEATED),
    ],
)
def test_budgets_end_and_outlive_the_process(config, code, asking, stocked, request_of):
    silo, ask = asking(config)
    vector = next(iter(silo.vectors.values()))
    replies = [ask(vector + 1e-3 * np.float32(i)) for i in range(3)]
    assert [isinstance(reply, SiloAnswer) for reply in replies] == [True, True, False]
    assert replies[2].code is code
    again = IndexProcess(load(silo.home.kit))
    frame = seal(stocked.federation.identity("north"), request_of(vector))
    reply = open_reply(stocked.federation.identity("north"), "south", frame, again.answer_frame(frame), SiloAnswer, Refusal)
    again.close()
    assert reply.code is code
    assert "refusal" in silo.home.audit.read_text()


def test_a_canary_alerts_and_looks_like_any_other_case(asking):
    silo, ask = asking("release: {same_patient: show, min_cases: 1}\n")
    vector = next(iter(silo.vectors.values()))
    before = ask(vector, k=3)
    write_canaries(silo.home.canaries, [before.hits[0].case])
    after = ask(vector, k=3)
    assert after.hits == before.hits
    records = [json.loads(line) for line in silo.home.audit.read_text().splitlines()]
    assert [record["event"] for record in records] == ["answer", "answer", "canary"]
    assert (records[2]["cases"], records[2]["asker"]) == ([before.hits[0].case], "north")


def test_too_few_similar_patients_is_a_refusal(asking):
    silo, ask = asking("release: {min_similarity: 0.99, same_patient: show, min_cases: 5}\n")
    assert ask(next(iter(silo.vectors.values()))).code is RefusalCode.TOO_FEW_SIMILAR


class TestSealed:
    """A broker that lies: what it makes up, keeps or exchanges is `invalid`, and what it hides is missing."""

    @pytest.fixture
    def told(self, silos, sealed, authority):
        """Return a query's frame, and what an asker believes of given (silo, state, content)."""
        frame = sealed(k=5)
        request = peek_request(frame)

        def result(*replies):
            reports = tuple(SiloReport(silo=silo, state=state, released=9) for silo, state, _ in replies)
            signed = tuple(Sealed(silo=silo, content=content) for silo, _, content in replies if content)
            come = SearchResult(
                query_id=request.query_id,
                encoder_version=request.encoder_version,
                k=5,
                hits=(),
                silos=reports,
                sealed=signed,
            )
            return verified(authority.identity("north"), request, frame, come)

        return frame, result

    def test_true_answers_are_merged(self, told, silos):
        frame, result = told
        found = result(*((name, SiloState.ANSWERED, silo.handle(frame)) for name, silo in silos.items()))
        assert [report.state.value for report in found.silos] == ["answered"] * 3
        assert len(found.hits) == 5

    def test_forged_replayed_and_exchanged_answers_are_invalid(self, told, silos, sealed, authority):
        frame, result = told
        south = silos["south"]
        true = south.handle(frame)
        peeked = open_reply(authority.identity("north"), "south", frame, true, SiloAnswer, Refusal)
        lies = {
            "nothing": b"",
            "noise": b"noise",
            "changed": true[:-40] + b"\0" + true[-39:],
            "of another query": south.handle(sealed(k=5)),
            "of another silo": silos["west"].handle(frame),
            "sealed by another silo": seal_reply(silos["west"].identity, frame, peeked),
            "signed in the open": south.identity.session.sign(
                encode(peeked), context=b"siloscope search reply 2\0" + sha256(frame).digest()
            ),
            "too many hits": seal_reply(south.identity, frame, peeked.model_copy(update={"hits": peeked.hits * 2})),
            "out of order": seal_reply(south.identity, frame, peeked.model_copy(update={"hits": peeked.hits[::-1]})),
        }
        for kind, content in lies.items():
            found = result(("south", SiloState.ANSWERED, content))
            assert (found.silos[0].state, found.hits) == (SiloState.INVALID, ()), kind
            assert found.silos[0].released == 0

    @pytest.fixture
    def bundled(self, authority, silos, request_of):
        """Return three requests, the true replies of `south`, and what an asker believes of given ones."""
        north, south = authority.identity("north"), silos["south"]
        requests = [request_of(south.gallery.stored[row], k=3) for row in range(3)]
        bundle = Bundle(budget_ms=1000, asker="north", encoder_version=ENCODER, k=3, requests=tuple(map(encode, requests)))
        frame = seal(north, bundle)
        true = tuple(encode(south.answered(request)) for request in requests)

        def believed(replies, silo=south, name="south"):
            content = seal_reply(silo.identity, frame, replies if isinstance(replies, Refusal) else said(replies, name))
            return of(Sealed(silo="south", content=content))

        def said(replies, name):
            return BundleReply(silo=name, replies=replies)

        def of(*sealed, state=SiloState.ANSWERED):
            reports = (SiloReport(silo="south", state=state),)
            common = {"query_id": bundle.query_id, "encoder_version": ENCODER, "k": 3, "hits": ()}
            return verified_bundle(north, requests, frame, SearchResult(**common, silos=reports, sealed=sealed))

        return requests, true, believed, of

    def test_each_request_of_a_bundle_has_its_own_result(self, bundled):
        requests, true, believed, _ = bundled
        results = believed(true)
        assert [result.query_id for result in results] == [request.query_id for request in requests]
        assert [result.hits[0].score for result in results] == pytest.approx([1, 1, 1], abs=1e-3)
        assert {result.silos[0].state for result in results} == {SiloState.ANSWERED}

    def test_what_is_wrong_with_one_reply_of_a_bundle_is_wrong_for_that_one(self, bundled):
        requests, true, believed, _ = bundled
        busy = encode(Refusal.of("south", RefusalCode.BUSY, query_id=requests[0].query_id))
        for first, state in ((b"", "error"), (b"noise", "invalid"), (true[1], "invalid"), (busy, "busy")):
            results = believed((first, *true[1:]))
            assert [result.silos[0].state.value for result in results] == [state, "answered", "answered"]
            assert not results[0].hits

    def test_what_is_wrong_with_the_whole_reply_is_wrong_for_all(self, bundled, silos):
        _, true, believed, of = bundled
        refused = Refusal.of("south", RefusalCode.MESSAGE_INVALID)
        lies = {
            "fewer": (believed(true[:2]), "invalid"),
            "more": (believed((*true, true[0])), "invalid"),
            "another silo": (believed(true, silos["west"]), "invalid"),
            "in another's name": (believed(true, name="west"), "invalid"),
            "refused": (believed(refused), "denied"),
            "noise": (of(Sealed(silo="south", content=b"noise")), "invalid"),
            "nothing": (of(), "invalid"),
            "late": (of(state=SiloState.LATE), "late"),
        }
        for kind, (results, state) in lies.items():
            assert [result.silos[0].state.value for result in results] == [state] * 3, kind
            assert not any(result.hits for result in results)

    def test_a_refusal_needs_the_silos_own_word(self, told):
        _, result = told
        assert result(("south", SiloState.DENIED, b"")).silos[0].state is SiloState.INVALID
        assert result(("south", SiloState.LATE, b"")).silos[0].state is SiloState.LATE
