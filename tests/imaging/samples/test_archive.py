import json

import pytest

from provisioning.consortium import Consortium
from silo_app.errors import SampleInvalid
from silo_app.imaging.samples.archive import Archive, labels_in, read_archive, write_archive
from silo_app.imaging.samples.findings import SCOPE


@pytest.fixture
def archive(tmp_path):
    counts = {"patients": 1, "studies": 2, "images": 3}
    names = {"name": "hospital-a", "display_name": "Hospital A", "synthetic": True}
    one = Archive(path=tmp_path, labels=labels_in(SCOPE), **names, **counts)
    write_archive(one, [("1.2", ["Mass", "Nodule"]), ("1.3", ["No Finding"])])
    return one


def test_what_is_written_is_read(archive):
    assert read_archive(archive.path) == archive
    assert read_archive(archive.path / "archive.json") == archive
    assert (archive.path / "labels.csv").read_text() == "study_instance_uid,findings\n1.2,Mass|Nodule\n1.3,No Finding\n"


def test_a_silo_takes_it_in_from_anywhere(archive, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path.parent)
    entry = read_archive(archive.path.relative_to(tmp_path.parent)).silo()
    content = {"name": "one", "server": {"port": 0}, "silos": [entry], "researchers": [{"name": "lead@one.example"}]}
    (silo,) = Consortium.model_validate(content).silos
    assert (silo.name, silo.display_name) == ("hospital-a", "Hospital A")
    assert entry["sources"] == [{"kind": "folder", "path": str(tmp_path / "dicom")}]
    assert entry["labels"]["path"] == str(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("labels"),
        lambda content: content.pop("name"),
        lambda content: content.update(surprise=1),
        lambda content: content["labels"].update(scope=["Cough"]),
    ],
)
def test_a_damaged_description_is_refused(archive, damage):
    file = archive.path / "archive.json"
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(SampleInvalid, match=r"archive.json is not what `silo sample` writes"):
        read_archive(archive.path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_description_that_is_none_is_refused(archive, text):
    (archive.path / "archive.json").write_text(text)
    with pytest.raises(SampleInvalid):
        read_archive(archive.path)


def test_a_folder_without_a_description_is_refused(tmp_path):
    with pytest.raises(SampleInvalid, match=r"there is no archive.json here"):
        read_archive(tmp_path)
