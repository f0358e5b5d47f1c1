"""The presets on the published label files themselves, where they are at hand: the counts that the sets' authors give.

The files are in the package `torchxrayvision` (`pip install --no-deps torchxrayvision`); they are not ours to copy.
"""

import gzip
import importlib.util
import zipfile
from pathlib import Path

import pytest

from silo_app.config import PresetLabels
from silo_app.imaging.labels import read_labels
from silo_app.imaging.labels.read import counted

pytestmark = pytest.mark.published

SETS = {
    "nih": ("Data_Entry_2017_v2020.csv.gz", 112_120, {"Atelectasis": 11_559, "Hernia": 227, "No Finding": 60_361}),
    "chexpert": ("chexpert_train.csv.gz", 223_414, {"Pneumonia": 6_039, "Effusion": 86_187, "No Finding": 22_381}),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", 160_861, {"Pneumothorax": 521}),
    "vindr": ("vinbigdata-train.csv.gz", 15_000, {"No Finding": 10_606}),
    "rsna": ("kaggle_stage_2_train_labels.csv.zip", 26_684, {"Pneumonia": 6_012}),
}


def published(name):
    package = importlib.util.find_spec("torchxrayvision")
    file = Path(package.origin or "").parent / "data" / name if package else Path(name)
    if not file.is_file():
        pytest.skip("torchxrayvision is not installed (pip install --no-deps torchxrayvision)")
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            return archive.read(archive.namelist()[0])
    return gzip.decompress(file.read_bytes())


@pytest.mark.parametrize("preset", SETS)
def test_the_counts_are_the_published_ones(tmp_path, preset):
    name, keys, present = SETS[preset]
    path = tmp_path / "labels.csv"
    path.write_bytes(published(name))
    table = read_labels(PresetLabels(preset=preset, path=path), path)
    assert len(table.keys) == keys
    found = counted(table.keys)
    assert {finding: found[finding]["present"] for finding in present} == present
    assert preset == "padchest" or not table.unmapped
