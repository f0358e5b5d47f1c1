"""Taking looks out: what two hospitals' detectors make different becomes alike, and what findings make different stays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from silo_app.cases import CaseId, Finding, PatientKey, Split, View
from silo_app.encoder.looks import FEWEST, FindingsHead, Look, _levels, look_of
from silo_app.encoder.spec import EncoderSpec

SIDE = 12
HEAD = np.eye(1, SIDE, dtype=np.float32)
"""The only finding is read along the first direction."""


def silo(seed, *, shift=0.0, count=400, present=0.5, sure=1.0):
    """Return unit vectors and labels: the finding is in the first direction, the look (shift, spread) in all others."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 1)) < present).astype(np.float32)
    vectors = rng.normal(size=(count, SIDE)) * np.linspace(0.1, 0.1 + abs(shift) / 4, SIDE) + shift * 0.2
    vectors[:, 0] = sure * (2 * targets[:, 0] - 1 + 0.3 * rng.normal(size=count))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit, targets, np.ones(targets.shape, np.bool_)


def along(look, vectors):
    """Return how far vectors without the look lie along the finding, over how far in all other directions."""
    plain = look.removed(vectors).astype(np.float64)
    return plain[:, 0] / np.linalg.norm(plain[:, 1:], axis=1)


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


def test_what_follows_from_how_sure_a_finding_is_does_not_choose_neighbors():
    """In the one hospital the sure lean one way, in the other the other way: centering does not take that out."""
    silos = []
    for seed, lean in ((1, 0.5), (2, -0.5)):
        vectors, *labels = silo(seed, sure=0.7)
        vectors[:, 1] += lean * np.abs(vectors[:, 0])
        silos.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True), *labels))
    plain = [look_of(*one, HEAD).removed(one[0]) for one in silos]
    assert own_share(*plain) < 0.55
    assert own_share(*plain[::-1]) < 0.55


def test_a_hospital_with_several_devices_does_not_find_its_own_by_them():
    """Each device's images lie together: a mean and a covariance of all of them do not tell."""
    silos = []
    for seed, devices in ((1, 6), (2, 1)):
        vectors, *labels = silo(seed)
        rng = np.random.default_rng(seed)
        vectors[:, 1:] += 0.6 * rng.normal(size=(devices, SIDE - 1))[rng.integers(devices, size=len(vectors))]
        silos.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True), *labels))
    looks = [look_of(*one, HEAD) for one in silos]
    plain = [look.removed(vectors) for look, (vectors, *_) in zip(looks, silos, strict=True)]
    without = [replace(look, near=look.near[:0], near_kinds=look.near_kinds[:0]) for look in looks]
    by_two_moments = [look.removed(vectors) for look, (vectors, *_) in zip(without, silos, strict=True)]
    assert own_share(*plain) < 0.65
    assert own_share(*by_two_moments) > 0.75


def test_a_radiograph_that_left_the_silo_leaves_its_look():
    vectors, *labels = silo(4)
    digests = [f"{number:064x}" for number in range(len(vectors))]
    look = look_of(vectors, *labels, HEAD, digests)
    assert look.only_near(set(digests)) is look
    fewer = Look.read(look.only_near(set(digests[1:])).content())
    assert len(fewer.near) == len(fewer.near_kinds) == len(look.near) - 1
    assert {row.tobytes().hex() for row in fewer.near_digests} == set(digests[1:])
    assert np.array_equal(fewer.means, Look.read(look.content()).means)
    nobody = look.only_near(set())
    assert np.allclose(np.linalg.norm(nobody.removed(vectors), axis=1), 1, atol=1e-5)


def test_neighbors_still_have_the_query_s_finding():
    (_, had, _), (_, has, _) = silos = [silo(1, shift=1.0), silo(2, shift=-1.0)]
    plain = [look_of(*one, HEAD).removed(one[0]) for one in silos]
    nearest = np.argsort(-(plain[0] @ plain[1].T), axis=1)[:, :10]
    assert (has[nearest, 0] == had).mean() > 0.95


def test_a_case_mix_is_not_taken_for_a_look():
    even, skewed = (look_of(*silo(3, shift=1.0, count=4000, present=p), HEAD) for p in (0.5, 0.9))
    for kind, level in enumerate((-0.6, 0.6)):  # where images of a kind lie as a rule
        usual = [look.means[kind] + level * look.slopes[kind, 0] for look in (even, skewed)]
        assert np.allclose(*usual, atol=0.03)


def test_the_sure_of_one_hospital_are_no_surer_than_those_of_another():
    """One reads its finding clearly, the other hardly: what lies halfway in the one lies halfway in the other."""
    levels = []
    for seed, sure in ((1, 3.0), (2, 0.3)):
        vectors, *labels = silo(seed, count=2000, sure=sure)
        look = look_of(vectors, *labels, HEAD)
        levels.append(np.sort(_levels(vectors.astype(np.float64)[:, :1], look.sizes)[:, 0]))
    assert np.allclose(*(np.quantile(each, [0.1, 0.25, 0.75, 0.9]) for each in levels), atol=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-1, 1), sure=st.floats(0.2, 3))
def test_every_image_stays_on_its_side_of_the_threshold_and_in_its_order(seed, shift, sure):
    vectors, *labels = silo(seed, shift=shift, sure=sure, count=60)
    look = look_of(vectors, *labels, HEAD)
    levels = _levels(vectors.astype(np.float64)[:, :1], look.sizes)[:, 0]
    assert np.array_equal(np.sign(levels), np.sign(vectors[:, 0]))
    assert np.array_equal(np.sign(along(look, vectors)), np.sign(vectors[:, 0]))
    assert (np.diff(levels[np.argsort(vectors[:, 0])]) >= 0).all()
    assert np.abs(levels).max() <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), findings=st.integers(1, 3))
def test_the_places_of_an_image_still_make_the_image(seed, findings):
    rng = np.random.default_rng(seed)
    vectors, *labels = silo(seed, shift=0.5)
    look = look_of(
        vectors, *(np.repeat(each, findings, axis=1) for each in labels), np.eye(findings, SIDE, dtype=np.float32)
    )
    places = vectors[0].astype(np.float64) + rng.normal(size=(3, 4, SIDE))
    places += vectors[0] - places.mean(axis=(0, 1))
    whole = look.transformed(places).mean(axis=(0, 1))
    assert np.allclose(whole / np.linalg.norm(whole), look.removed(vectors[:1])[0], atol=1e-5)


def test_embeddings_that_do_not_fill_their_space_keep_findings_and_the_rest_apart():
    """Many directions have no variance then: none of them may be mixed with the findings', in any silo."""
    vectors, targets, known = silo(8, shift=1.0)
    flat = np.hstack([vectors[:, :4], np.zeros((len(vectors), SIDE - 4), np.float32)])
    turned = np.linalg.qr(np.random.default_rng(9).normal(size=(SIDE, SIDE)))[0].astype(np.float32)  # no axis is special
    look, axis = look_of(flat @ turned, targets, known, HEAD @ turned), (HEAD @ turned)[0].astype(np.float64)
    assert np.allclose(look.matrices @ axis, 0, atol=1e-4 * np.abs(look.matrices).max())
    assert np.allclose(np.abs(look.frame[0] @ axis), np.linalg.norm(look.frame[0]), rtol=1e-6)


def test_a_silo_without_labels_loses_its_look_too():
    vectors, targets, known = silo(5, shift=1.0)
    look = look_of(vectors, targets * 0, known & False, HEAD)
    labelled = look_of(vectors, targets, known, HEAD)
    assert np.array_equal(look.means, labelled.means)
    assert np.allclose(look.removed(vectors), labelled.removed(vectors), atol=0.1)


def test_a_finding_that_is_hardly_known_does_not_count():
    vectors, targets, known = silo(6)
    rare = np.zeros_like(targets)
    rare[: FEWEST - 1] = 1
    both = look_of(vectors, np.hstack([targets, rare]), np.hstack([known, known]), np.eye(2, SIDE, dtype=np.float32))
    assert np.array_equal(both.removed(vectors), look_of(vectors, targets, known, HEAD).removed(vectors))


def test_a_silo_of_too_few_views_meets_the_others_all_the_same():
    """Nothing is known of its look: what the head reads puts its images among those with the same finding."""
    (few, *labels), (many, has, known) = silo(7, count=FEWEST - 1), silo(2, shift=-1.0)
    look = look_of(few, *labels, HEAD)
    new, had, _ = silo(3, count=200)
    nearest = np.argsort(-(look.removed(new) @ look_of(many, has, known, HEAD).removed(many).T), axis=1)[:, :10]
    assert (has[nearest, 0] == had).mean() > 0.95
    assert look.content() == look_of(few[:0], *(each[:0] for each in labels), HEAD).content()


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), findings=st.integers(1, SIDE), seed=st.integers(0, 1000), alike=st.booleans())
def test_whatever_the_silo_its_vectors_have_unit_length(count, findings, seed, alike):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(1 if alike else count, SIDE)).repeat(count if alike else 1, axis=0)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    targets, known = (rng.random((2, count, findings)) < 0.5).astype(np.float32)
    head = rng.normal(size=(findings, SIDE)).astype(np.float32)
    plain = look_of(vectors, targets, known.astype(np.bool_), head).removed(vectors)
    assert np.allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-4)


def test_a_kind_of_few_views_is_whitened_by_all():
    vectors, targets, known = silo(11, present=0.02)
    look = look_of(vectors, targets, known, HEAD)
    assert 0 < (vectors[:, 0] > 0).sum() < FEWEST
    assert np.isfinite(look.removed(vectors)).all()
    exact = vectors.astype(np.float64)
    rest = look._rest(exact, _levels(exact[:, :1], look.sizes), kind=1)
    assert np.allclose(rest.mean(axis=0), 0, atol=1e-6)
    assert np.array_equal(look.near_kinds, np.repeat([0, 1], [(vectors[:, 0] <= 0).sum(), len(vectors)]))


def test_images_in_error_where_nearly_all_have_a_finding_are_not_taken_for_surely_without_it():
    vectors, targets, known = silo(13, count=1000, present=1.0)
    vectors[:50, 0] = np.linspace(-0.2, -0.01, 50)  # a little beyond the threshold
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets[50:60], vectors[50:60, 0] = 0, -vectors[50:60, 0]
    look, wrong = look_of(vectors, targets, known, HEAD), vectors[:50].astype(np.float64)
    by_side = look_of(vectors, targets, known & False, HEAD)  # who does not know better takes each side for itself
    assert np.abs(_levels(wrong[:, :1], look.sizes)).max() < 0.3 < np.abs(_levels(wrong[:, :1], by_side.sizes)).mean()


def test_findings_that_are_read_along_one_direction_are_not_counted_twice():
    vectors, targets, known = silo(12)
    twice = look_of(vectors, *(np.repeat(each, 2, axis=1) for each in (targets, known)), np.repeat(HEAD, 2, axis=0))
    once = look_of(vectors, targets, known, HEAD)
    assert (twice.removed(vectors) * once.removed(vectors)).sum(axis=1).mean() > 0.999


def test_a_look_is_kept_and_read_again():
    vectors, *labels = silo(8, shift=1.0)
    look = look_of(vectors, *labels, HEAD)
    again = Look.read(look.content())
    assert np.allclose(again.removed(vectors), look.removed(vectors), atol=1e-5)
    assert again.content() == look.content()
    assert Look.read(Look.by_head(HEAD).content()).dimension == SIDE


def _without_means(parts):
    del parts["means"]


def _of_another_size(parts):
    parts["matrices"] = parts["matrices"][:, :-1]


def _of_a_flat_one(parts):
    parts["axes"] = parts["axes"].ravel()


def _not_finite(parts):
    parts["means"][0, 0] = np.nan


def _of_fewer_digests(parts):
    parts["near_digests"] = parts["near_digests"][:-1]


def _of_a_third_kind(parts):
    parts["near_kinds"][-1] = 2


def _out_of_order(parts):
    parts["near_kinds"] = parts["near_kinds"][::-1]


@pytest.mark.parametrize(
    "change",
    [_of_a_third_kind, _out_of_order, _without_means, _of_fewer_digests, _of_another_size, _of_a_flat_one, _not_finite],
)
def test_what_is_no_look_is_refused(change):
    vectors, *labels = silo(8)
    parts = load(look_of(vectors, *labels, HEAD).content())
    change(parts)
    with pytest.raises(ValueError, match=r"it has|do not fit"):
        Look.read(save({name: np.ascontiguousarray(part) for name, part in parts.items()}))


@pytest.mark.parametrize("content", [b"", b"noise", b"\xff" * 100])
def test_noise_is_no_look(content):
    with pytest.raises(ValueError, match="cannot be read"):
        Look.read(content)


def test_held_out_patients_have_no_say():
    vectors, targets, _ = silo(9)
    views = [
        View(
            digest=f"{n:064x}",
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
    assert head.look(views, vectors).content() == head.look(views, changed).content()
