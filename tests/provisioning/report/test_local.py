"""What the report takes from this machine and from silos' own caches."""

import pytest

from provisioning.report.local import machine, pictures_of, plain_update_bytes


def test_the_machine_names_what_times_depend_on():
    here = machine()
    assert here.cores >= 1
    assert here.memory_bytes > 1_000_000
    assert {"python", "torch", "nvflare"} <= here.versions.keys()


@pytest.fixture
def silo(make_silo, make_dicom, make_picture, tmp_path):
    """A silo that has ingested three images; returns it and the first file."""
    from silo_app.imaging.ingest import ingest

    home = make_silo()
    for number in range(3):
        content = make_dicom(make_picture(300, 240, seed=number), PatientID=f"P{number}")
        (tmp_path / "source" / f"{number}.dcm").write_bytes(content)
    ingest(home, workers=1)
    return home, tmp_path / "source" / "0.dcm"


def test_pictures_come_from_the_silos_caches_and_are_small(silo):
    from silo_app.catalogue import Catalogue, SiloKey

    home, file = silo
    with Catalogue.open(home.catalogue) as catalogue:
        case = catalogue.case_of_digest(SiloKey.load(home.key).contents.name(file.read_bytes()))
    hits = [{"silo": "test", "case": case}, {"silo": "elsewhere", "case": case}, {"silo": "test", "case": "f" * 32}]
    search = {"asker": "test", "query": str(file), "result": {"hits": hits}}
    pictures = pictures_of(search, {"test": home})
    assert len(pictures.silos["test"]) == 3
    assert pictures.cases.keys() == {("test", case)}
    assert pictures.query == pictures.cases["test", case]
    assert pictures.query_findings is None  # this silo has no labels
    for picture in pictures.silos["test"]:
        assert picture.png.startswith(b"\x89PNG")
        assert len(picture.png) < 40_000
        assert picture.alt == "chest X-ray, findings not known"


def test_a_demo_without_a_search_has_pictures_of_its_silos_only(silo):
    home, _ = silo
    pictures = pictures_of(None, {"test": home})
    assert pictures.silos["test"]
    assert not pictures.cases
    assert pictures.query is None


def test_the_plain_update_is_as_large_as_the_weights(make_silo):
    import numpy as np

    from silo_app import durable
    from silo_app.encoder.vectors import write_vector

    home = make_silo()
    folder = durable.private_folder(home.models / "ab")
    write_vector(folder / "encoder.safetensors", np.zeros(1000, np.float32))
    assert plain_update_bytes(home, "ab") == 4000
    assert plain_update_bytes(home, "missing") is None
