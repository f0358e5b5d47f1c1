"""Without the extra that speaks to archives, a source says what to install; nothing else needs it."""

import importlib

import pytest

from silo_app.errors import NotReady
from silo_app.imaging.ingest import ingest
from silo_app.imaging.sources import optional

REMOTE = [
    {"kind": "dicomweb", "name": "pacs", "url": "http://127.0.0.1:9/dicom-web"},
    {"kind": "dimse", "name": "pacs", "host": "127.0.0.1", "port": 9, "ae_title": "PACS", "retrieve": "get"},
]


@pytest.fixture
def without(monkeypatch):
    real = importlib.import_module

    def missing(name, package=None):
        if name.split(".")[0] in {"pynetdicom", "dicomweb_client"}:
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(optional, "import_module", missing)
    for library in (optional.pynetdicom_library, optional.dicomweb_library):
        library.cache_clear()
    yield
    for library in (optional.pynetdicom_library, optional.dicomweb_library):
        library.cache_clear()


@pytest.mark.parametrize("source", REMOTE, ids=lambda source: source["kind"])
def test_what_to_install_is_said(source, without, make_silo):
    with pytest.raises(NotReady, match="is not installed") as caught:
        ingest(make_silo(sources=[source]))
    assert "siloscope[pacs]" in caught.value.remedy


@pytest.mark.parametrize("source", REMOTE, ids=lambda source: source["kind"])
def test_folders_are_read_all_the_same(source, without, make_silo, tmp_path, make_dicom, make_picture):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "1.dcm").write_bytes(make_dicom(make_picture(24, 20)))
    report = ingest(make_silo(sources=[source, {"path": str(tmp_path / "source")}]), workers=1)
    assert report.added == 1
    assert "is not installed" in report.unreachable["pacs"]
