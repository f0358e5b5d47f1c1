import numpy as np
import pytest

from silo_app.encoder.looks import look_of


def vectors(count=400, side=6, shift=0.0):
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(count, side)) @ rng.normal(size=(side, side))
    return (mixed + shift).astype(np.float32)


def test_whitening_gives_the_identity_as_covariance():
    given = vectors(shift=5)
    plain = look_of(given, shrink=0).transformed(given)
    assert np.allclose(plain.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(plain.T @ plain / len(plain), np.eye(6), atol=1e-4)


def test_centring_removes_the_mean_and_nothing_else():
    given = vectors(shift=5)
    assert np.allclose(look_of(given, whiten=False).transformed(given), given - given.mean(axis=0), atol=1e-4)


def test_full_shrinkage_keeps_the_directions_of_centring():
    given = vectors()
    white, centred = look_of(given, shrink=1).removed(given), look_of(given, whiten=False).removed(given)
    assert np.allclose(white, centred, atol=1e-4)


@pytest.mark.parametrize("whiten", [True, False])
def test_two_silos_that_differ_by_a_shift_become_the_same(whiten):
    near, far = vectors(), vectors(shift=3)
    first, second = (look_of(part, whiten=whiten).removed(part) for part in (near, far))
    assert np.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_views_than_dimensions_give_finite_vectors(count):
    given = vectors(count)
    assert np.isfinite(look_of(given).removed(given)).all()


def test_vectors_without_look_have_unit_length():
    given = vectors()
    assert np.allclose(np.linalg.norm(look_of(given).removed(given), axis=1), 1, atol=1e-5)
