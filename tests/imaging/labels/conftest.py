"""Label files made on the spot, in the layouts of published sets; no row of them is from those sets."""

import pytest

from silo_app.config import CsvLabels, PresetLabels
from silo_app.imaging.labels import read_labels


def said(table):
    """What each key says: {key: {finding: present}}."""
    return {key.value: {label.finding.value: label.present for label in labels} for key, labels in table.keys.items()}


@pytest.fixture
def read_preset(tmp_path):
    """A function that reads content as a preset."""

    def read(preset, content, *, lenient=True, images=None, **settings):
        path = tmp_path / f"{preset}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        joined = None
        if images is not None:
            joined = tmp_path / "metadata.csv"
            joined.write_text(images)
        return read_labels(PresetLabels(preset=preset, path=path, **settings), path, images=joined, lenient=lenient)

    return read


@pytest.fixture
def read_own(tmp_path):
    """A function that reads content as a silo's own configuration describes it."""

    def read(content, *, lenient=False, **settings):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        options = {"path": path, "key": "file", "key_column": "file", "scope": ("Pneumonia", "Mass")} | settings
        return read_labels(CsvLabels(**options), path, lenient=lenient)

    return read
