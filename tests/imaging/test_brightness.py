"""Brightness is measured when an image is read, or later for images that were read before it was kept."""

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.catalogue.counts import brightness_counts
from silo_app.imaging.brightness import brightness_of, measure_missing
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import ingest


def test_every_range_is_counted():
    counts = brightness_counts(brightness_of(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    assert counts == (8,) * 32
    assert brightness_counts(brightness_of(np.full((2, 3), 255, np.uint8))) == (0,) * 31 + (6,)


def test_content_of_another_length_counts_nothing():
    assert brightness_counts(b"short") == (0,) * 32


@pytest.fixture
def home(tmp_path, make_dicom, make_silo):
    home = make_silo()
    for number in range(3):
        (tmp_path / "source" / f"{number}.dcm").write_bytes(make_dicom(PatientID=f"P{number}"))
    ingest(home)
    return home


def test_an_ingest_keeps_the_stored_size_and_the_brightness(home):
    with Catalogue.open(home.catalogue) as catalogue:
        measures = catalogue.measures()
        assert {side for side, _ in measures.values()} == {64}
        assert {sum(counts) for _, counts in measures.values()} == {64 * 48}
        assert catalogue.without_brightness() == []
        assert catalogue.counts().sizes == {"under 512": 3}


def test_images_that_were_read_before_are_measured_from_the_cache(home):
    cache = RadiographCache(home.cache)
    with Catalogue.open(home.catalogue) as catalogue:
        before = catalogue.measures()
        gone, *others = sorted(before)
        catalogue._connection.execute("UPDATE views SET brightness = NULL")
        cache.discard(gone)
        assert measure_missing(catalogue, cache) == 3
        after = catalogue.measures()
    assert after[gone][1] == ()
    assert {digest: after[digest] for digest in others} == {digest: before[digest] for digest in others}
