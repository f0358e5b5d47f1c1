"""A query's file, read in a process of its own, is the cached image's twin; refusals come through."""

import numpy as np
import pytest

from silo_app.errors import ImageUnsupported
from silo_app.imaging.cache import as_cached
from silo_app.imaging.isolated import read_isolated
from silo_app.imaging.radiograph import read_radiograph


def test_radiograph_is_what_the_cache_would_give(tmp_path, make_dicom):
    path = tmp_path / "query.dcm"
    path.write_bytes(make_dicom())
    np.testing.assert_array_equal(read_isolated(path), as_cached(read_radiograph(path)))


def test_refusal_names_reason_and_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("notes")
    with pytest.raises(ImageUnsupported) as caught:
        read_isolated(path)
    assert (caught.value.reason, caught.value.where) == ("not-dicom", str(path))
