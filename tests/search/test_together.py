"""Requests that came together are answered as each would be alone, whatever was found and looked up for all at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import CaseId
from silo_app.config import ReleaseSettings
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.index.likeness import estimate, sense_of
from silo_app.policy.filters import Filters
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.messages import SearchRequest, unit_embedding
from silo_app.search.together import search_together
from tests.search.conftest import ENCODER, BruteForceGallery, make_view

D, PATIENTS, QUERIES = 16, 700, 4
FILTERS = (Filters(), Filters(sexes=("F",)), Filters(age_bands=("40-49",)))


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class Held:
    """A catalogue of these cases."""

    def __init__(self, views):
        self.views, self.read_at_once = views, []

    def as_it_is(self, ahead=()):
        self.read_at_once.append(len(list(ahead)))
        return self.views.get


class World:
    """Patients with up to three cases, and queries that are images of some of them."""

    def __init__(self, folder):
        rng = np.random.default_rng(11)
        owners = np.sort(rng.integers(0, PATIENTS, 1000))
        own = rng.standard_normal((PATIENTS, D))
        self.vectors = unit(own[owners] + 0.4 * rng.standard_normal((len(owners), D)))
        names = [CaseId(rng.bytes(16).hex()) for _ in range(len(owners) - 100)]
        self.names = names + names[-100:]  # a hundred have a second view
        self.views = {
            name: make_view(name, patient=f"p{owner}", sex="FM"[owner % 2], age=30 + int(owner) % 40)
            for name, owner in zip(self.names, owners, strict=True)
        }
        self.queries = unit(own[:QUERIES] + 0.4 * rng.standard_normal((QUERIES, D)))
        write_faiss(folder / "gallery", self.vectors)
        rows = np.frombuffer(bytes.fromhex("".join(self.names)), np.uint8).reshape(-1, 16)
        self.indexes = {
            "faiss": FaissGallery.open(folder / "gallery", rows),
            "brute": BruteForceGallery(self.vectors, self.names),
        }
        likeness = estimate(self.vectors, self.names, [f"p{owner}" for owner in owners])
        self.sense = sense_of(self.indexes["faiss"], likeness)

    def rows_where(self, filters, _index):
        return np.array([row for row, name in enumerate(self.names) if filters.holds(self.views[name])], np.int64)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def request_of(world, query, k, filters, asker):
    return SearchRequest(
        issued_at_ms=1,
        budget_ms=1000,
        encoder_version=ENCODER,
        vector=unit_embedding(world.queries[query]),
        k=k,
        purpose="care",
        asker=asker,
        filters=filters,
    )


ASKED = st.tuples(
    st.integers(0, QUERIES - 1), st.integers(1, 60), st.sampled_from(FILTERS), st.sampled_from(["north", "south"])
)


@pytest.mark.parametrize("index", ["faiss", "brute"])
@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(ASKED, min_size=1, max_size=14),
    max_hits=st.sampled_from([1, 10, 50]),
    min_cases=st.sampled_from([1, 5, 40]),
    least=st.sampled_from([-1.0, 0.5, 0.8]),
    same_patient=st.sampled_from(["withhold", "coarsen"]),
    gone=st.sampled_from([0.0, 0.3, 0.97]),
)
def test_an_answer_is_the_same_in_company(world, index, asked, max_hits, min_cases, least, same_patient, gone):
    policy = ReleaseSettings(
        max_hits=max_hits,
        min_cases=min_cases,
        min_similarity=least,
        same_patient=same_patient,
        fields=("sex", "age_band"),
    )
    left = np.random.default_rng(0).random(len(world.views)) >= gone
    held = Held({name: view for (name, view), is_held in zip(world.views.items(), left, strict=True) if is_held})
    gallery = SearchableCases("000001", ENCODER, world.indexes[index], world.sense)
    requests = [request_of(world, *one) for one in asked]
    together = search_together(gallery, requests, policy, held, silo="south")
    for request in requests:
        seen, seen_together = [], []
        alone, beside = (
            answer(
                request,
                each,
                silo="south",
                view_of=held.views.get,
                settings=policy,
                look=looks.append,
                rows_where=world.rows_where,
            )
            for each, looks in ((gallery, seen), (together.gallery, seen_together))
        )
        assert beside == alone
        assert [(one.about, one.kept_back) for one in seen_together] == [(one.about, one.kept_back) for one in seen]
        if least < 0:  # else how many of the dissimilar are looked at makes no difference, and may differ
            assert seen_together == seen


def test_no_more_cards_are_read_than_are_looked_at(world):
    held, crowded = Held(world.views), sense_of(world.indexes["faiss"], None)
    gallery = SearchableCases("000001", ENCODER, world.indexes["faiss"], crowded)
    request = request_of(world, 0, 10, Filters(), "north")
    policy = ReleaseSettings()
    together = search_together(gallery, [request], policy, held, silo="south")
    answer(request, together.gallery, silo="south", view_of=together.view_of, settings=policy)
    limit = crowded.bound_for(world.queries[0]).limit
    near = sum(hit.score >= limit for hit in world.indexes["faiss"].search(world.queries[0], 900))
    assert held.read_at_once == [near + 10 + 2 * 16], "once, and of no other case"
