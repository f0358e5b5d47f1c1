import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from silo_app.encoder.retrieval import balanced_precision, classes_of, neighbourhood, rank

SICK, WELL = {"Pneumonia"}, {"No Finding"}


def test_precision_is_the_mean_over_classes_so_a_common_class_cannot_carry_it():
    queries = [SICK] * 3 + [WELL]
    hits = [[SICK, SICK]] * 3 + [[SICK, SICK]]
    assert balanced_precision(queries, hits, 2) == (0.5, {"No Finding": 0.0, "Pneumonia": 1.0})


def test_missing_hits_are_wrong_and_hits_after_k_do_not_count():
    assert balanced_precision([SICK, SICK], [[SICK], [SICK, WELL, SICK]], 2)[0] == 0.5


def test_a_hit_needs_the_class_and_may_have_others():
    assert balanced_precision([{"Mass"}], [[{"Mass", "Edema"}, {"Edema"}]], 2) == (0.5, {"Mass": 0.5})


def test_unknown_queries_and_no_queries_have_no_figure():
    assert balanced_precision([set()], [[SICK]], 1) == (None, {})
    assert balanced_precision([], [], 10) == (None, {})


def test_classes_tell_absent_from_unknown():
    targets = np.array([[1, 0], [0, 0], [0, 0]], np.float32)
    known = np.array([[True, True], [True, False], [False, False]])
    names, classes = classes_of(["Mass", "Edema"], targets, known)
    assert names == ["Mass", "Edema", "No Finding"]
    assert classes.tolist() == [[True, False, False], [False, False, True], [False, False, False]]


def scene(seed=0, count=30, silos=3):
    """Unit vectors (N, 4), classes (N, 2), patients of two views each, in several silos."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sick = rng.random(count) < 0.4
    patients = np.array([f"p{n // 2}" for n in range(count)])
    places = np.array([f"s{n // 2 % silos}" for n in range(count)])
    return vectors, np.stack([sick, ~sick], axis=1), patients, places


@pytest.mark.parametrize("other_silos_only", [False, True])
def test_figures_equal_a_plain_search_query_by_query(other_silos_only):
    vectors, classes, patients, silos = scene()
    queries = np.arange(0, 30, 3)
    precisions, averages, gains = ({0: [], 1: []} for _ in range(3))
    for query in queries:
        gallery = [
            row
            for row in range(30)
            if patients[row] != patients[query] and not (other_silos_only and silos[row] == silos[query])
        ]
        ranked = sorted(gallery, key=lambda row: -float(vectors[row] @ vectors[query]))
        own = int(np.flatnonzero(classes[query])[0])
        right = [bool(classes[row, own]) for row in ranked]
        precisions[own].append(np.mean(right[:5]))
        found = [np.mean(right[: place + 1]) for place in range(len(right)) if right[place]]
        averages[own].append(np.mean(found))
        gains[own].append(ndcg_score([right], [range(len(right), 0, -1)], k=5))
    result = neighbourhood(
        ["sick", "well"], vectors, classes, patients, silos, queries, k=5, other_silos_only=other_silos_only
    )
    assert result.queries == 10
    assert result.precision == pytest.approx(np.mean([np.mean(one) for one in precisions.values()]))
    assert result.mean_average_precision == pytest.approx(np.mean([np.mean(one) for one in averages.values()]))
    assert result.ndcg == pytest.approx(np.mean([np.mean(one) for one in gains.values()]))


def test_some_of_the_queries_have_the_figures_that_they_have_alone():
    vectors, classes, patients, silos = scene()
    arguments = (["sick", "well"], vectors, classes, patients, silos)
    some = rank(*arguments, np.arange(30)).where(np.arange(30) % 3 == 0).neighbourhood()
    assert some == neighbourhood(*arguments, np.arange(0, 30, 3))


def test_chunks_change_nothing(monkeypatch):
    vectors, classes, patients, silos = scene()
    arguments = (["sick", "well"], vectors, classes, patients, silos, np.arange(30))
    whole = neighbourhood(*arguments)
    monkeypatch.setattr("silo_app.encoder.retrieval._CHUNK", 7)
    assert neighbourhood(*arguments) == whole


def test_the_own_patient_is_no_neighbour():
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    classes = np.array([[True, False], [True, False], [False, True], [False, True]])
    args = (["sick", "well"], vectors, classes)
    silos = np.array(["s"] * 4)
    apart = neighbourhood(*args, np.array(list("abcd")), silos, np.arange(4), k=1)
    together = neighbourhood(*args, np.array(list("aabb")), silos, np.arange(4), k=1)
    assert (apart.precision, together.precision) == (1.0, 0.0)


def test_the_share_of_the_own_silo_stands_beside_chance():
    vectors, classes, patients, silos = scene(count=60)
    silos_as_vectors = np.eye(4, dtype=np.float32)[[int(name[1]) for name in silos]]
    blind = neighbourhood(["sick", "well"], vectors, classes, patients, silos, np.arange(60), k=5)
    told = neighbourhood(["sick", "well"], silos_as_vectors, classes, patients, silos, np.arange(60), k=5)
    assert told.own_silo_share == 1
    assert told.own_silo_chance == blind.own_silo_chance == pytest.approx(18 / 58)
    assert blind.own_silo_share < 0.5


def test_with_the_own_silo_left_out_nothing_comes_from_it():
    vectors, classes, patients, silos = scene()
    result = neighbourhood(["sick", "well"], vectors, classes, patients, silos, np.arange(9), other_silos_only=True)
    assert result.own_silo_share == result.own_silo_chance == 0


def test_a_gallery_smaller_than_k_counts_the_missing_as_wrong():
    vectors = np.eye(4, dtype=np.float32)[[0, 0]]
    result = neighbourhood(
        ["sick"], vectors, np.ones((2, 1), np.bool_), np.array(["a", "b"]), np.array(["s", "s"]), np.arange(2), k=10
    )
    assert result.precision == pytest.approx(0.1)
    assert result.mean_average_precision == 1
