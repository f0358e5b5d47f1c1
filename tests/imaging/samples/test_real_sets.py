"""The sets that the import recognises, as they are published; skipped where they are not at hand."""

from pathlib import Path

import pytest

from silo_app.cases import Finding
from silo_app.imaging.samples.image_set import ImageSet
from silo_app.imaging.samples.images import import_images
from silo_app.imaging.samples.leftovers import read_skipped, read_unmapped

pytestmark = pytest.mark.data


def find(name):
    places = [parent / "shared" / "data" / name for parent in Path(__file__).resolve().parents]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        pytest.skip(f"{name} is not at hand")
    return found


@pytest.mark.parametrize(("name", "scope"), [("pediatric-chest-xray.zip", 1), ("nih-chest-xray-700.zip", 14)])
def test_a_published_set_is_recognised(tmp_path, name, scope):
    archives = import_images([ImageSet(path=find(name))], tmp_path / "out", hospitals=2, limit=60)
    assert sum(one.images for one in archives) == 60
    assert {len(one.labels.scope) for one in archives} == {scope}
    assert Finding.PNEUMONIA in archives[0].labels.scope
    assert read_skipped(tmp_path / "out") == []
    assert read_unmapped(tmp_path / "out") == {}
