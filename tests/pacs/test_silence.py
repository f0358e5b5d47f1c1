"""Planted identifiers, through every kind of source, sound and damaged: nothing of them is said, at any log level."""

import io
import logging
import subprocess
import sys
import zipfile

import pytest

from silo_app.errors import SourceUnreachable
from silo_app.imaging.ingest import ingest
from silo_app.imaging.sources import open_source
from silo_app.imaging.sources.listener import listening

STUDY = "1.2.99.1"
KINDS = ["folder", "zip", "dicomdir", "dicomweb", "get", "move", "listen"]
PLANTED = {
    "PatientName": "Quillfeather^Zebulon",
    "PatientID": "PLANT4711",
    "AccessionNumber": "PLANTACC9",
    "PatientBirthDate": "19410203",
    "OtherPatientNames": "Brackenbury^Zeb",
    "PatientAddress": "17 Snickelway",
    "ReferringPhysicianName": "Thistlewood^Ada",
    "InstitutionName": "St Plantagenet",
    "StudyID": "PLANTSTUDY",
    "StudyDescription": "seen by Dr Thistlewood",
    "PatientComments": "cousin of Quillfeather",
}
SECRETS = [
    *("Quillfeather", "Zebulon", "PLANT4711", "PLANTACC9", "19410203", "Brackenbury", "Snickelway", "Thistlewood"),
    *("Plantagenet", "PLANTSTUDY", STUDY, "secret-of-the-test"),
]


@pytest.fixture
def planted(make_dicom, make_picture):
    """Three images of one study: sound, of a size that the pixels do not have, and with a window that is no number."""

    def image(number, **tags):
        uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "1.2.99.1.1"}
        uids |= {"SOPInstanceUID": f"1.2.99.1.1.{number}", "InstanceNumber": str(number)}
        uids |= {"StudyDate": "20240101", "StudyTime": "101010", "SeriesNumber": "1"}
        return make_dicom(make_picture(24, 20, seed=number), **PLANTED, **uids, **tags)

    return [image(1), image(2, Rows=2000, Columns=2000), image(3, WindowCenter="", WindowWidth="")]


def as_dicomdir(folder, contents):
    from pydicom import dcmread
    from pydicom.fileset import FileSet

    files = FileSet()
    for content in contents:
        files.add(dcmread(io.BytesIO(content)))
    files.write(folder)
    files._stage["t"].cleanup()  # left to the garbage collector it warns, in whichever test is running then


@pytest.fixture
def filled(request, tmp_path, make_silo, planted, sources):
    """A function that fills a source of some kind and returns a silo that reads it."""

    def make(kind):
        folder = tmp_path / "export"
        folder.mkdir()
        if kind in {"dicomweb", "get", "move"}:
            archive = request.getfixturevalue("orthanc")
            for content in planted:
                archive.store(content)
            return make_silo(sources=[sources(kind, archive)])
        if kind == "listen":
            archive = request.getfixturevalue("orthanc")
            source = {"name": "routed", "kind": "listen", "port": archive.listen, "ae_title": "LISTENER"}
            home = make_silo(sources=[source | {"peers": ["ORTHANC"], "keep_free_mib": 0}])
            with listening(home, home.config.sources[0]):
                archive.send("listener", [archive.store(content) for content in planted])
            return home
        if kind == "zip":
            with zipfile.ZipFile(folder / "export.zip", "w") as packed:
                for number, content in enumerate(planted):
                    packed.writestr(f"{number}.dcm", content)
        elif kind == "dicomdir":
            as_dicomdir(folder, planted)
        else:
            for number, content in enumerate(planted):
                (folder / f"{number}.dcm").write_bytes(content)
        return make_silo(sources=[{"kind": "folder", "path": str(folder)}])

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_logged_or_printed(kind, filled, caplog, capfd, environment):
    caplog.set_level(logging.DEBUG)
    home = filled(kind)
    report = ingest(home, workers=1)
    assert report.added >= 1
    assert report.refused
    command = [sys.executable, "-m", "silo_app.cli.main", "ingest", "--silo", str(home.kit), "--format", "json"]
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    shown = capfd.readouterr()
    logged = f"{caplog.text}\n{shown.out}\n{shown.err}\n{again.stderr}"
    assert [secret for secret in SECRETS if secret in logged] == []
    # the answer to who asked names the place of a refused image: in an archive, its UIDs
    told = f"{again.stdout} {report}"
    assert [secret for secret in SECRETS if secret in told and secret != STUDY] == []


@pytest.mark.parametrize("kind", ["dicomweb", "get", "move"])
def test_an_archive_that_dies_before_the_first_image_is_told_without_them(
    kind, filled, sources, orthanc, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    home = filled(kind)

    def opened(*arguments):
        source = open_source(*arguments)
        source.files()
        orthanc.kill()
        return source

    monkeypatch.setattr("silo_app.imaging.ingest.open_source", opened)
    with pytest.raises(SourceUnreachable) as raised:
        ingest(home, workers=1)
    said = f"{caplog.text} {raised.value!r} {raised.value}"
    assert [secret for secret in SECRETS if secret in said] == []
