"""Taking looks out: what two hospitals' detectors make different becomes alike, and what findings make different stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import CaseId, Finding, PatientKey, Split, View
from silo_app.encoder.looks import FEWEST, FindingsHead, Look, look_of
from silo_app.encoder.spec import EncoderSpec

SIDE = 12
HEAD = np.eye(1, SIDE, dtype=np.float32)
"""The only finding is read along the first direction."""


def silo(seed, *, shift=0.0, count=400, present=0.5):
    """Return unit vectors and labels: the finding is in the first direction, the look (shift, spread) in all others."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 1)) < present).astype(np.float32)
    vectors = rng.normal(size=(count, SIDE)) * np.linspace(0.1, 0.1 + abs(shift) / 4, SIDE) + shift * 0.2
    vectors[:, 0] = 2 * targets[:, 0] - 1 + 0.3 * rng.normal(size=count)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit, targets, np.ones(targets.shape, np.bool_)


def own_share(first, second):
    """Return the share of the ten nearest neighbors of the first silo's vectors that are its own; chance is 0.5."""
    similarity = first @ np.concatenate([first, second]).T
    np.fill_diagonal(similarity, -np.inf)
    return (np.argsort(-similarity, axis=1)[:, :10] < len(first)).mean()


def test_neighbors_come_from_both_hospitals_once_looks_are_removed():
    silos = [silo(1, shift=1.0), silo(2, shift=-1.0)]
    assert own_share(*(vectors for vectors, _, _ in silos)) > 0.9
    plain = [look_of(*one, HEAD).removed(one[0]) for one in silos]
    assert own_share(*plain) < 0.6


def test_neighbors_still_have_the_query_s_finding():
    (_, had, _), (_, has, _) = silos = [silo(1, shift=1.0), silo(2, shift=-1.0)]
    plain = [look_of(*one, HEAD).removed(one[0]) for one in silos]
    nearest = np.argsort(-(plain[0] @ plain[1].T), axis=1)[:, :10]
    assert (has[nearest, 0] == had).mean() > 0.95


def test_a_case_mix_is_not_taken_for_a_look():
    even, skewed = (look_of(*silo(3, shift=1.0, count=4000, present=p), HEAD) for p in (0.5, 0.9))
    assert np.allclose(even.mean, skewed.mean, atol=0.02)


def test_the_findings_directions_keep_their_origin():
    look = look_of(*silo(4, shift=1.0), HEAD)
    assert abs(look.mean[0]) < 1e-9
    assert np.linalg.norm(look.mean) > 0.1


def test_embeddings_that_do_not_fill_their_space_keep_findings_and_the_rest_apart():
    """Many directions have no variance then: none of them may be mixed with the findings', in any silo."""
    vectors, targets, known = silo(8, shift=1.0)
    flat = np.hstack([vectors[:, :4], np.zeros((len(vectors), SIDE - 4), np.float32)])
    turned = np.linalg.qr(np.random.default_rng(9).normal(size=(SIDE, SIDE)))[0].astype(np.float32)  # no axis is special
    look, axis = look_of(flat @ turned, targets, known, HEAD @ turned), (HEAD @ turned)[0].astype(np.float64)
    along = axis @ look.matrix
    assert np.allclose(along, (along @ axis) * axis, atol=1e-4 * np.linalg.norm(along))


def test_a_silo_without_labels_loses_its_look_too():
    vectors, targets, known = silo(5, shift=1.0)
    look = look_of(vectors, targets * 0, known & False, HEAD)
    assert np.allclose(look.mean[1:], vectors.astype(np.float64).mean(axis=0)[1:], atol=1e-6)


def test_a_finding_that_is_hardly_known_does_not_count():
    vectors, targets, known = silo(6)
    rare = np.zeros_like(targets)
    rare[: FEWEST - 1] = 1
    both = look_of(vectors, np.hstack([targets, rare]), np.hstack([known, known]), np.eye(2, SIDE, dtype=np.float32))
    assert np.allclose(both.matrix, look_of(vectors, targets, known, HEAD).matrix)


def test_too_few_views_have_no_look():
    vectors, targets, known = silo(7, count=FEWEST - 1)
    assert np.allclose(look_of(vectors, targets, known, HEAD).removed(vectors), vectors, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(FEWEST, 60), findings=st.integers(1, SIDE), seed=st.integers(0, 1000), alike=st.booleans())
def test_whatever_the_silo_its_vectors_have_unit_length(count, findings, seed, alike):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(1 if alike else count, SIDE)).repeat(count if alike else 1, axis=0)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    targets, known = (rng.random((2, count, findings)) < 0.5).astype(np.float32)
    head = rng.normal(size=(findings, SIDE)).astype(np.float32)
    plain = look_of(vectors, targets, known.astype(np.bool_), head).removed(vectors)
    assert np.allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-4)


def test_a_look_is_kept_and_read_again():
    vectors, *labels = silo(8, shift=1.0)
    look = look_of(vectors, *labels, HEAD)
    assert np.allclose(Look.of_array(look.array()).removed(vectors), look.removed(vectors), atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (5,), (6, 4)])
def test_what_is_no_look_is_refused(shape):
    with pytest.raises(ValueError, match="D \\+ 1 rows of D"):
        Look.of_array(np.zeros(shape, np.float32))


def test_held_out_patients_have_no_say():
    vectors, targets, _ = silo(9)
    views = [
        View(
            digest="",
            case=CaseId(""),
            patient=PatientKey(str(n)),
            split=Split.TRAIN if n % 5 else Split.HELD_OUT,
            findings={Finding.EDEMA: bool(has)},
        )
        for n, has in enumerate(targets[:, 0])
    ]
    head = FindingsHead(EncoderSpec(findings=(Finding.EDEMA,)), HEAD)
    changed = vectors.copy()
    changed[::5] = vectors[1]
    assert np.array_equal(head.look(views, vectors).array(), head.look(views, changed).array())
