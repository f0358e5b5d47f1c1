import numpy as np
import pytest

from silo_app.cases import Finding, Split
from silo_app.encoder.dataset import load
from silo_app.errors import NotReady


def test_a_silo_becomes_aligned_arrays(fill_silo, spec):
    told = []
    images = load(fill_silo(views=16), spec, lambda done, total: told.append((done, total)))
    assert len(images) == 16
    assert images.pixels.shape == (16, 32, 32)
    assert images.pixels.dtype == np.uint8
    assert images.targets.shape == images.known.shape == (16, 2)
    assert told[-1] == (16, 16)
    for view, target, known in zip(images.views, images.targets, images.known, strict=True):
        assert target.tolist() == [view.findings[Finding.PNEUMONIA], 0]
        assert known.tolist() == [True, False], "Nodule is unknown, not absent"


def test_one_split_can_be_read_alone(fill_silo, spec):
    home = fill_silo()
    everything, held_out = load(home, spec), load(home, spec, split=Split.HELD_OUT)
    chosen = everything.where(everything.held_out)
    assert held_out.views == chosen.views
    assert np.array_equal(held_out.pixels, chosen.pixels)
    assert 0 < len(held_out) < len(everything)
    assert not set(held_out.patients) & set(everything.where(~everything.held_out).patients)


def test_a_missing_radiograph_is_said_with_its_remedy(fill_silo, spec):
    home = fill_silo(views=4)
    next(home.cache.glob("*/*.npy")).unlink()
    with pytest.raises(NotReady, match="missing"):
        load(home, spec)


def test_a_bad_study_can_be_left_out(fill_silo, spec):
    home = fill_silo(views=6)
    whole = load(home, spec)
    bad = home.cache / whole.views[2].digest[:2] / f"{whole.views[2].digest}.npy"
    bad.write_bytes(bad.read_bytes()[:-3])
    rest = load(home, spec, leave_out=True)
    assert list(rest.views) == [view for index, view in enumerate(whole.views) if index != 2]
    assert np.array_equal(rest.pixels, np.delete(whole.pixels, 2, axis=0))


def test_a_silo_without_a_catalogue_is_not_ready(make_silo, spec):
    with pytest.raises(NotReady):
        load(make_silo(), spec)
