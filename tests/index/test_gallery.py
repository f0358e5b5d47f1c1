"""The contract of a gallery: congruent with brute force, to the last digit, ties and duplicates included."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import CaseId
from silo_app.config import MilvusSettings
from silo_app.errors import EncoderMismatch, IndexDamaged
from silo_app.index import faiss_gallery as in_faiss
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.index.gallery import Enough, exact_scores, rank_cases
from silo_app.index.milvus_gallery import MilvusGallery, write_milvus


def unit_rows(rng, count, dimension):
    vectors = rng.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def case_names(rng, count):
    return [CaseId(rng.bytes(16).hex()) for _ in range(count)]


def faiss_gallery(folder, vectors, names):
    file = folder / f"{len(list(folder.iterdir()))}.faiss"
    write_faiss(file, vectors)
    rows = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)
    return FaissGallery.open(file, rows)


def brute_force(vectors, names, query, k):
    """The definition: every view's score, the best of each case, sorted."""
    stored = vectors.astype(np.float16).astype(np.float32)
    best = {}
    for name, score in zip(names, exact_scores(stored, query), strict=True):
        best[name] = max(best.get(name, -9.0), float(score))
    return sorted(((score, name) for name, score in best.items()), key=lambda item: (-item[0], item[1]))[:k]


def milvus_gallery(folder, vectors, names):
    settings = MilvusSettings(uri="milvus.db")
    collection = write_milvus(settings, folder, "st-anna", vectors)
    rows = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)
    return MilvusGallery.open(settings, folder, collection, vectors.shape[1], rows)


@pytest.fixture(params=[faiss_gallery, milvus_gallery], ids=["faiss", "milvus"])
def make(request, tmp_path_factory):
    return lambda vectors, names: request.param(tmp_path_factory.mktemp("gallery"), vectors, names)


def found(gallery, query, k):
    return [(hit.score, hit.case) for hit in gallery.search(query, k)]


@pytest.mark.parametrize("k", [1, 3, 10, 200, 1000])
def test_it_is_congruent_with_brute_force(make, k):
    rng = np.random.default_rng(k)
    vectors = unit_rows(rng, 500, 32)
    names = case_names(rng, 200)
    names = [names[i] for i in rng.integers(0, 200, 500)]
    gallery = make(vectors, names)
    for query in unit_rows(rng, 10, 32):
        assert found(gallery, query, k) == brute_force(vectors, names, query, k)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_is_congruent_with_brute_force_on_few_distinct_vectors(tmp_path_factory, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    distinct = unit_rows(rng, data.draw(st.integers(1, 4)), 8)
    count = data.draw(st.integers(1, 60))
    vectors = distinct[rng.integers(0, len(distinct), count)]
    pool = case_names(rng, data.draw(st.integers(1, 60)))
    names = [pool[i] for i in rng.integers(0, len(pool), count)]
    gallery = faiss_gallery(tmp_path_factory.mktemp("gallery"), vectors, names)
    k = data.draw(st.integers(1, 70))
    for query in distinct:
        assert found(gallery, query, k) == brute_force(vectors, names, query, k)


@pytest.mark.parametrize("queries", [1, 3, 40])
def test_many_queries_find_what_each_finds_alone(make, queries):
    rng = np.random.default_rng(queries)
    vectors = unit_rows(rng, 300, 16)
    vectors[100:200] = vectors[:100]  # ties
    names = case_names(rng, 90)
    names = [names[i] for i in rng.integers(0, 90, 300)]
    gallery = make(vectors, names)
    asked = np.concatenate([unit_rows(rng, queries, 16), vectors[:5]])
    counts = [int(k) for k in rng.choice([1, 7, 40, 90, 500], len(asked))]
    together = [[(hit.score, hit.case) for hit in hits] for hits in gallery.search_many(asked, counts)]
    assert together == [brute_force(vectors, names, query, k) for query, k in zip(asked, counts, strict=True)]


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("similarity", [-1.0, 0.0, 0.3, 0.999999, 1.0])
def test_what_is_enough_is_the_beginning_of_what_is_found(make, queries, similarity):
    rng = np.random.default_rng(queries)
    vectors = unit_rows(rng, 600, 16)
    vectors[100:200] = vectors[:100]  # ties, also at the limit
    names = case_names(rng, 400)
    names = [names[i] for i in rng.integers(0, 400, 600)]
    gallery = make(vectors, names)
    asked = np.concatenate([unit_rows(rng, queries, 16), vectors[:5]])
    counts = [int(k) for k in rng.choice([1, 40, 150, 300, 500], len(asked))]
    enough = [Enough(similarity, int(more)) if more >= 0 else None for more in rng.choice([-1, 0, 1, 20], len(asked))]
    found = gallery.search_many(asked, counts, enough)
    for query, k, part, hits in zip(asked, counts, enough, found, strict=True):
        whole = brute_force(vectors, names, query, k)
        assert [(hit.score, hit.case) for hit in hits] == whole[: len(hits)]
        least = len(whole) if part is None else sum(score >= similarity for score, _ in whole) + part.more
        assert len(hits) >= min(len(whole), least)


def test_of_many_views_no_more_are_ranked_than_are_enough(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    gallery = faiss_gallery(tmp_path, unit_rows(rng, 2000, 16), case_names(rng, 2000))
    (query,) = unit_rows(rng, 1, 16)
    limit = gallery.search(query, 50)[-1].score
    ranked = []
    ranking = in_faiss.exact_scores
    monkeypatch.setattr(in_faiss, "exact_scores", lambda *two: ranked.append(len(two[0])) or ranking(*two))
    (hits,) = gallery.search_many(query[None, :], [500], [Enough(limit, 10)])
    assert len(hits) == 60
    assert ranked == [50 + 10 + 16 + 1]


@pytest.mark.parametrize("count", [0, 1, 7, 150, 1400, 2500])
def test_among_some_views_it_is_congruent_with_brute_force_over_these(make, count):
    rng = np.random.default_rng(count)
    vectors = unit_rows(rng, 2600, 16)
    names = case_names(rng, 900)
    names = [names[i] for i in rng.integers(0, 900, 2600)]
    gallery = make(vectors, names)
    rows = np.sort(rng.choice(2600, count, replace=False)).astype(np.int64)
    some = [names[row] for row in rows]
    for query in unit_rows(rng, 3, 16):
        for k in (1, 10, 100):
            hits = [(hit.score, hit.case) for hit in gallery.search_among(query, k, rows)]
            assert hits == brute_force(vectors[rows], some, query, k)


def test_every_row_has_its_case(make):
    rng = np.random.default_rng(8)
    names = case_names(rng, 4)
    gallery = make(unit_rows(rng, 8, 8), names + names)
    assert [row.tobytes().hex() for row in gallery.row_cases] == names + names
    assert [gallery.case_of(row) for row in range(8)] == names + names


def test_one_case_with_all_the_nearest_views_does_not_hide_the_others(make):
    rng = np.random.default_rng(0)
    query = unit_rows(rng, 1, 32)[0]
    near = query + 0.01 * rng.standard_normal((400, 32)).astype(np.float32)
    vectors = np.concatenate([near, unit_rows(rng, 100, 32)]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = case_names(rng, 101)
    names = [names[0]] * 400 + names[1:]
    assert found(make(vectors, names), query, 5) == brute_force(vectors, names, query, 5)


def test_a_score_does_not_depend_on_what_else_is_in_the_index(make):
    rng = np.random.default_rng(3)
    vectors, names = unit_rows(rng, 3000, 256), case_names(rng, 3000)
    query = unit_rows(rng, 1, 256)[0]
    pooled = dict(reversed(pair) for pair in found(make(vectors, names), query, 3000))
    for part in (slice(0, 1), slice(1, 8), slice(8, 1000), slice(1000, 3000)):
        alone = found(make(vectors[part], names[part]), query, 3000)
        assert all(pooled[name] == score for score, name in alone)


def test_fewer_cases_than_asked_for_are_all_returned(make):
    rng = np.random.default_rng(4)
    gallery = make(unit_rows(rng, 3, 8), case_names(rng, 3))
    assert len(gallery.search(unit_rows(rng, 1, 8)[0], 10)) == 3


def test_an_empty_gallery_has_no_hits(make):
    gallery = make(np.empty((0, 8), np.float32), [])
    assert (gallery.views, gallery.cases, gallery.dimension) == (0, 0, 8)
    assert gallery.search(unit_rows(np.random.default_rng(0), 1, 8)[0], 10) == []


def test_it_counts_views_and_cases(make):
    rng = np.random.default_rng(5)
    names = case_names(rng, 4)
    gallery = make(unit_rows(rng, 8, 8), names + names)
    assert (gallery.views, gallery.cases, gallery.dimension) == (8, 4, 8)


def test_a_query_of_another_dimension_is_refused(make):
    rng = np.random.default_rng(6)
    gallery = make(unit_rows(rng, 3, 8), case_names(rng, 3))
    with pytest.raises(EncoderMismatch):
        gallery.search(unit_rows(rng, 1, 16)[0], 10)


def test_the_same_image_scores_one(make):
    rng = np.random.default_rng(8)
    vectors, names = unit_rows(rng, 50, 256), case_names(rng, 50)
    gallery = make(vectors, names)
    for row in range(10):
        hit = gallery.search(vectors[row], 1)[0]
        assert hit.case == names[row]
        assert hit.score == pytest.approx(1.0, abs=2e-3)
        assert hit.score <= 1.0


def test_many_threads_search_at_once(make):
    rng = np.random.default_rng(9)
    vectors, names = unit_rows(rng, 2000, 32), case_names(rng, 2000)
    gallery, queries = make(vectors, names), unit_rows(rng, 40, 32)
    results = {}
    threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, found(gallery, queries[i], 5))) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: brute_force(vectors, names, queries[i], 5) for i in range(40)}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_row_scores_the_same_alone_and_among_others(seed, count):
    rng = np.random.default_rng(seed)
    stored = unit_rows(rng, count, 256).astype(np.float16).astype(np.float32)
    query = unit_rows(rng, 1, 256)[0]
    together = exact_scores(stored, query)
    assert [exact_scores(stored[i : i + 1], query)[0] for i in range(count)] == together.tolist()


def test_every_half_precision_number_is_stored_as_it_is(tmp_path):
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.abs(numbers) <= 1].astype(np.float32)  # also drops those that are not finite
    numbers = np.concatenate([numbers, np.zeros(-len(numbers) % 64, np.float32)])
    gallery = faiss_gallery(tmp_path, numbers.reshape(-1, 64), ["00" * 16] * (len(numbers) // 64))
    assert np.array_equal(gallery.vectors(np.arange(gallery.views)).ravel(), numbers)


def test_ranking_takes_the_nearest_view_and_breaks_ties_by_name():
    hits = rank_cases([CaseId(c) for c in "cabac"], [0.5, 0.5, 0.9, 0.7, 0.1], 10)
    assert [(hit.case, hit.score) for hit in hits] == [("b", 0.9), ("a", 0.7), ("c", 0.5)]
    assert rank_cases([CaseId(c) for c in "ba"], [0.5, 0.5], 1)[0].case == "a"


def test_a_file_that_is_no_index_is_damaged(tmp_path):
    file = tmp_path / "gallery.faiss"
    file.write_bytes(b"hello")
    with pytest.raises(IndexDamaged):
        FaissGallery.open(file, np.empty((0, 16), np.uint8))


def test_an_index_of_other_rows_is_damaged(tmp_path):
    write_faiss(tmp_path / "gallery.faiss", unit_rows(np.random.default_rng(0), 3, 8))
    with pytest.raises(IndexDamaged, match="it has 3 vectors for 2 views"):
        FaissGallery.open(tmp_path / "gallery.faiss", np.zeros((2, 16), np.uint8))
