"""The merge: as if all silos' vectors lay in one exact index."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import CaseId
from silo_app.config import ReleaseSettings
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.policy.release import Card
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.merge import first, merge, ranking
from silo_app.search.messages import ReleasedHit, SearchRequest, SiloAnswer, unit_embedding

OPEN = ReleaseSettings(min_gallery=1, min_cases=1, max_hits=1000, same_patient="show")
ENCODER = "ab" * 16

scores = st.one_of(st.sampled_from([0.5, 0.25, 0.0]), st.floats(-1, 1).map(lambda score: round(score, 6)))


@st.composite
def answers(draw):
    made = []
    for silo in draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True)):
        cases = draw(st.lists(st.integers(0, 20), unique=True, max_size=8))
        hits = [ReleasedHit(case=f"{case:032x}", score=draw(scores), card=Card()) for case in cases]
        hits.sort(key=lambda hit: (-hit.score, hit.case))
        made.append(
            SiloAnswer(
                query_id="0" * 32,
                silo=silo,
                encoder_version=ENCODER,
                generation="000001",
                indexed=100,
                hits=tuple(hits),
            )
        )
    return made


@settings(max_examples=100, deadline=None)
@given(answers(), st.integers(1, 12), st.randoms())
def test_the_order_of_answers_does_not_matter(given_answers, k, random):
    shuffled = list(given_answers)
    random.shuffle(shuffled)
    assert merge(shuffled, k) == merge(given_answers, k)


@settings(max_examples=100, deadline=None)
@given(answers(), st.integers(1, 12), st.data())
def test_an_answer_that_comes_twice_counts_once(given_answers, k, data):
    again = [reply for reply in given_answers if data.draw(st.booleans())]
    assert merge(given_answers + again, k) == merge(given_answers, k)


@settings(max_examples=100, deadline=None)
@given(answers(), st.integers(1, 12))
def test_it_is_the_sorted_union(given_answers, k):
    union = [(-hit.score, reply.silo, hit.case) for reply in given_answers for hit in reply.hits]
    assert [(-hit.score, hit.silo, hit.case) for hit in merge(given_answers, k)] == sorted(union)[:k]


def test_ties_are_settled_by_silo_and_then_by_case():
    def reply(silo, *cases):
        hits = tuple(ReleasedHit(case=case * 32, score=0.5, card=Card()) for case in cases)
        return SiloAnswer(query_id="0" * 32, silo=silo, encoder_version=ENCODER, generation="1", indexed=9, hits=hits)

    merged = merge([reply("b", "0"), reply("a", "1", "2")], 10)
    assert [(hit.silo, hit.case[0]) for hit in merged] == [("a", "1"), ("a", "2"), ("b", "0")]


def test_answers_of_two_encoders_are_never_mixed():
    replies = [
        SiloAnswer(query_id="0" * 32, silo=silo, encoder_version=version, generation="1", indexed=0, hits=())
        for silo, version in (("a", "ab" * 16), ("b", "cd" * 16))
    ]
    with pytest.raises(ValueError, match="2 encoder versions"):
        merge(replies, 10)


def faiss_gallery(folder, vectors, names):
    write_faiss(folder / "gallery.faiss", vectors)
    rows = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)
    return FaissGallery.open(folder / "gallery.faiss", rows)


def pooled_top(parts, query, k, tmp_path_factory):
    """Return the top k of all silos' vectors in one exact index; a case there is named by silo and case."""
    folder = tmp_path_factory.mktemp("pooled")
    owners = sorted({(silo, name) for silo, (_, names) in parts.items() for name in names})
    number = {owner: CaseId(f"{i:032x}") for i, owner in enumerate(owners)}  # in the order that ties are settled in
    vectors = np.concatenate([vectors for vectors, _ in parts.values()])
    names = [number[silo, name] for silo, (_, own) in parts.items() for name in own]
    hits = faiss_gallery(folder, vectors, names).search(query, k)
    return [(hit.score, *owners[int(hit.case, 16)]) for hit in hits]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_federated_search_is_the_search_of_one_pooled_exact_index(data, tmp_path_factory, a_view):
    """Also with duplicate vectors across silos, several views a case, and more hits asked for than there are."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dimension = data.draw(st.sampled_from([8, 64, 256]))
    common = rng.standard_normal((3, dimension))
    parts = {}
    for silo in ("north", "south", "west"):
        count = data.draw(st.integers(1, 40))
        own = rng.standard_normal((count, dimension))
        duplicated = rng.random(count) < data.draw(st.sampled_from([0.0, 0.3, 0.9]))
        own[duplicated] = common[rng.integers(0, 3, duplicated.sum())]
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        pool = [CaseId(rng.bytes(16).hex()) for _ in range(max(1, count // 2))]
        parts[silo] = (own.astype(np.float32), [pool[i] for i in rng.integers(0, len(pool), count)])
    request = SearchRequest(
        issued_at_ms=0,
        budget_ms=1000,
        encoder_version=ENCODER,
        vector=unit_embedding(common[0] if data.draw(st.booleans()) else rng.standard_normal(dimension)),
        k=data.draw(st.integers(1, 60)),
        purpose="care",
        asker="north",
    )
    replies = [
        answer(
            request,
            SearchableCases("000001", ENCODER, faiss_gallery(tmp_path_factory.mktemp(silo), vectors, names)),
            silo=silo,
            view_of=a_view,
            settings=OPEN,
        )
        for silo, (vectors, names) in parts.items()
    ]
    merged = [(hit.score, hit.silo, hit.case) for hit in merge(replies, request.k)]
    assert merged == pooled_top(parts, request.embedding, request.k, tmp_path_factory)


@settings(max_examples=100, deadline=None)
@given(answers(), st.integers(1, 12), st.sampled_from(["", "a", "b"]))
def test_behind_the_first_come_as_many_of_other_silos_as_are_the_askers(given_answers, k, own):
    hits, elsewhere = ranking(given_answers, k, own)
    assert hits == merge(given_answers, k)
    everything = merge(given_answers, 1000)
    assert first(everything, k, own) == (hits, elsewhere)
    others = [hit for hit in everything if hit.silo != own]
    shown = [hit for hit in (*hits, *elsewhere) if hit.silo != own]
    assert shown == others[:k]
