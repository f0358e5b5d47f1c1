"""The large gallery: it may miss a case, as often as it says; whatever it returns is scored as in the exact one."""

import numpy as np
import pytest

from silo_app.cases import CaseId
from silo_app.errors import EncoderMismatch, IndexDamaged
from silo_app.index import ivf_gallery
from silo_app.index.gallery import exact_scores, rank_cases
from silo_app.index.ivf_gallery import RECALL, IvfGallery, write_ivf


def clustered(rng, count, dimension=32, clusters=40):
    """Unit vectors as an encoder makes them: in clusters, not spread evenly."""
    centres = rng.standard_normal((clusters, dimension))
    vectors = centres[rng.integers(0, clusters, count)] + 0.6 * rng.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def ivf(folder, vectors, names):
    write_ivf(folder / "gallery.faiss", folder / "vectors.npy", vectors)
    return opened(folder, names)


def opened(folder, names):
    rows = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)
    return IvfGallery.open(folder / "gallery.faiss", folder / "vectors.npy", rows)


def names_of(rng, count):
    return [CaseId(rng.bytes(16).hex()) for _ in range(count)]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    rng = np.random.default_rng(0)
    vectors = clustered(rng, 12_000)
    names = names_of(rng, 12_000)
    return ivf(tmp_path_factory.mktemp("ivf"), vectors, names), vectors, names


def test_it_finds_what_the_calibration_promised(large):
    gallery, vectors, names = large
    rng = np.random.default_rng(1)
    stored = vectors.astype(np.float16).astype(np.float32)
    found = 0
    queries = clustered(rng, 100) * 0.3 + vectors[rng.integers(0, len(vectors), 100)] * 0.7
    for query in (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32):
        order = np.argsort(-exact_scores(stored, query), kind="stable")[:10]
        found += len({names[i] for i in order} & {hit.case for hit in gallery.search(query, 10)})
    assert found / 1000 >= RECALL - 0.04  # these queries are further from the gallery than those of the calibration


@pytest.mark.parametrize("count", [5, 500, 6000, 11_999])
def test_among_some_views_it_finds_only_these_and_nearly_all_of_the_nearest(large, count):
    gallery, vectors, names = large
    rng = np.random.default_rng(count)
    rows = np.sort(rng.choice(len(vectors), count, replace=False)).astype(np.int64)
    stored, some = vectors[rows].astype(np.float16).astype(np.float32), [names[row] for row in rows]
    found = 0
    for query in vectors[rng.integers(0, len(vectors), 40)]:
        scores = exact_scores(stored, query)
        order = np.argsort(-scores, kind="stable")[:10]
        hits = gallery.search_among(query, 10, rows)
        assert {hit.case for hit in hits} <= set(some)
        assert len(hits) == min(10, count)
        found += len({some[i] for i in order} & {hit.case for hit in hits})
    assert found / (40 * min(10, count)) >= RECALL - 0.04


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("bound", [0, 100_000], ids=["by lists", "one by one"])
def test_a_filter_that_goes_along_with_the_clusters_loses_no_neighbor(large, monkeypatch, share, bound):
    """The queries are mostly of other clusters, so that no list which is nearest to them holds anything selected."""
    gallery, vectors, names = large
    monkeypatch.setattr(ivf_gallery, "EXACT_AMONG", bound)
    seed = clustered(np.random.default_rng(7), 1)[0]
    rows = np.sort(np.argsort(-(vectors @ seed), kind="stable")[: int(share * len(vectors))]).astype(np.int64)
    stored, some = vectors[rows].astype(np.float16).astype(np.float32), [names[row] for row in rows]
    recalls = []
    for query in vectors[np.random.default_rng(8).integers(0, len(vectors), 40)]:
        order = np.argsort(-exact_scores(stored, query), kind="stable")[:10]
        hits = gallery.search_among(query, 10, rows)
        assert {hit.case for hit in hits} <= set(some)
        recalls.append(len({some[i] for i in order} & {hit.case for hit in hits}) / 10)
    assert np.mean(recalls) >= (1.0 if bound else RECALL - 0.01)
    assert min(recalls) >= (1.0 if bound else 0.8)


def test_up_to_a_bound_what_is_selected_is_compared_with_all_ties_and_cases(tmp_path):
    rng = np.random.default_rng(9)
    distinct, names = clustered(rng, 400), names_of(rng, 700)
    vectors = distinct[rng.integers(0, 400, 3000)]  # copies: many tie
    cases = [names[i] for i in rng.integers(0, 700, 3000)]
    gallery = ivf(tmp_path, vectors, cases)
    for count in (0, 1, 300, 3000):
        rows = np.sort(rng.choice(3000, count, replace=False)).astype(np.int64)
        some = [cases[row] for row in rows]
        for k in (1, 10, 300):
            query = clustered(rng, 1)[0]
            scores = exact_scores(vectors[rows].astype(np.float16).astype(np.float32), query).tolist()
            assert gallery.search_among(query, k, rows) == rank_cases(some, scores, k)


def test_it_scans_a_part_only(large):
    gallery, _, _ = large
    assert 1 <= gallery._index.nprobe < gallery._index.nlist


def test_its_scores_are_those_of_an_exact_gallery(large):
    gallery, vectors, names = large
    stored = dict(zip(names, vectors.astype(np.float16).astype(np.float32), strict=True))
    query = clustered(np.random.default_rng(2), 1)[0]
    for hit in gallery.search(query, 50):
        assert hit.score == exact_scores(stored[hit.case][None], query)[0]


def test_hits_are_sorted_and_each_case_appears_once(large):
    gallery, vectors, _ = large
    hits = gallery.search(vectors[5], 200)
    assert [(-hit.score, hit.case) for hit in hits] == sorted((-hit.score, hit.case) for hit in hits)
    assert len({hit.case for hit in hits}) == len(hits) == 200


def test_asking_for_more_than_there_is_gives_everything(tmp_path):
    rng = np.random.default_rng(3)
    names = names_of(rng, 300)
    gallery = ivf(tmp_path, clustered(rng, 600), names + names)
    assert {hit.case for hit in gallery.search(clustered(rng, 1)[0], 1000)} == set(names)
    assert (gallery.views, gallery.cases, gallery.dimension) == (600, 300, 32)


def test_stored_vectors_come_back_as_they_are(large):
    gallery, vectors, _ = large
    assert np.array_equal(gallery.vectors(np.array([7, 3])), vectors[[7, 3]].astype(np.float16).astype(np.float32))


def test_the_same_vectors_make_the_same_files(tmp_path):
    vectors = clustered(np.random.default_rng(4), 700)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_ivf(tmp_path / name / "gallery.faiss", tmp_path / name / "vectors.npy", vectors)
    for file in ("gallery.faiss", "vectors.npy"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_query_of_another_dimension_is_refused(large):
    with pytest.raises(EncoderMismatch):
        large[0].search(np.ones(8, np.float32), 3)


@pytest.mark.parametrize("file", ["gallery.faiss", "vectors.npy"])
def test_what_is_no_index_is_damaged(tmp_path, file):
    rng = np.random.default_rng(5)
    names = names_of(rng, 200)
    ivf(tmp_path, clustered(rng, 200), names)
    (tmp_path / file).write_bytes(b"hello")
    with pytest.raises(IndexDamaged):
        opened(tmp_path, names)


def test_an_index_of_other_rows_is_damaged(tmp_path):
    rng = np.random.default_rng(6)
    names = names_of(rng, 200)
    ivf(tmp_path, clustered(rng, 200), names)
    with pytest.raises(IndexDamaged):
        opened(tmp_path, names[:-1])
