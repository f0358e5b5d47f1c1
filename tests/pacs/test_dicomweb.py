"""DICOMweb archives that are not like Orthanc, as a small server that plays one."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from silo_app.config import DicomWebSource
from silo_app.errors import SourceUnreachable
from silo_app.imaging.sources.dicomweb import DicomWebFiles

STUDIES = [f"1.2.{number}" for number in range(5)]


class _Archive(BaseHTTPRequestHandler):
    """Five studies of `series` series of `images` images (or what is `said`); `pages` tells how many studies are in a page,
    `most` how many of the others; None knows no pages.
    """

    pages: int | None = None
    most: int | None = None
    said: object = None
    series, images = 1, 1
    asked: list[str]

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.asked.append(path)
        if len(self.asked) > 100:  # whoever asks for ever is to be told apart by its failure, not by a test that hangs
            self.send_error(400)
            return
        study, most = path.split("/studies/")[-1].split("/")[0], self.most
        if path.endswith("/studies"):
            found, most = [{"0020000D": study} for study in STUDIES], self.pages
        elif path.endswith("/series"):
            found = [{"0020000D": study, "0020000E": f"1.3.{number}", "00080060": "CR"} for number in range(self.series)]
        else:
            series = path.split("/series/")[-1].split("/")[0]
            found = [{"0020000E": series, "00080018": f"{study}.{series}.{number}"} for number in range(self.images)]
        if most:
            offset = int(dict(word.split("=") for word in query.split("&") if word).get("offset", 0))
            found = found[offset : offset + most]
        odd = self.said if path.endswith("/instances") else None
        answer = json.dumps(
            odd or [{tag: {"vr": "UI", "Value": [value]} for tag, value in one.items()} for one in found]
        ).encode()
        self.send_response(200 if found else 204)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(answer) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def listed(make_silo):
    """Return the names of the files that such an archive holds, and what was asked for."""

    def ask(**settings):
        archive = type("Archive", (_Archive,), settings | {"asked": []})
        with ThreadingHTTPServer(("127.0.0.1", 0), archive) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                url = f"http://127.0.0.1:{server.server_port}/dicom-web"
                source = DicomWebSource(kind="dicomweb", name="pacs", url=url, modalities=("CR",), patience_s=0)
                files = DicomWebFiles(make_silo(), source)
                names = [file.name for file in files.files()]
                assert files.confirm_gone(names[-1:]) == []
            finally:
                server.shutdown()
                thread.join()
        return names, archive.asked

    return ask


@pytest.mark.parametrize("pages", [2, 5, None], ids=["pages", "one page", "no pages"])
def test_every_study_is_listed_once_however_an_archive_pages(listed, pages):
    names, asked = listed(pages=pages)
    assert names == [f"{study}/1.3.0/{study}.1.3.0.0" for study in STUDIES]
    assert sum(path.endswith("/series") for path in asked) == len(STUDIES)


@pytest.mark.parametrize("most", [50, 60, None], ids=["pages", "half a page", "no pages"])
@pytest.mark.parametrize(("series", "images"), [(1, 100), (1, 120), (60, 1)])
def test_every_image_is_listed_once_however_an_archive_pages(listed, monkeypatch, series, images, most):
    monkeypatch.setattr(sys.modules[__name__], "STUDIES", STUDIES[:1])
    names, _ = listed(series=series, images=images, most=most)
    assert len(set(names)) == len(names) == series * images


@pytest.mark.parametrize("said", [[1], [None], ["text"], 5])
def test_an_archive_that_does_not_answer_in_dicom_is_away(listed, said):
    with pytest.raises(SourceUnreachable, match="does not answer in DICOMweb"):
        listed(said=said)


@pytest.mark.parametrize("element", [None, {"Value": 5}, {"Value": []}, {"Value": ["\ud800"]}, {"Value": {"0": 1}}])
def test_an_image_without_a_name_costs_itself(listed, element):
    names, _ = listed(said=[{"00080018": element}, {"00080018": {"vr": "UI", "Value": ["1.5"]}}])
    assert [name for name in names if name.endswith("/1.5")] == [f"{study}/1.3.0/1.5" for study in STUDIES]
    assert all(name.encode() for name in names)
