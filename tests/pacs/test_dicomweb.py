"""DICOMweb archives that are not like Orthanc, as a small server that plays one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from silo_app.config import DicomWebSource
from silo_app.imaging.sources.dicomweb import DicomWebFiles

STUDIES = [f"1.2.{number}" for number in range(5)]


class _Archive(BaseHTTPRequestHandler):
    """Five studies of one image each; `pages` tells how many of them are in a page, None knows no pages."""

    pages: int | None = None
    asked: list[str]

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.asked.append(path)
        if len(self.asked) > 100:  # whoever asks for ever is to be told apart by its failure, not by a test that hangs
            self.send_error(400)
            return
        uids = {"0020000D": path.split("/studies/")[-1].split("/")[0]}
        if path.endswith("/studies"):
            words = dict(word.split("=") for word in query.split("&"))
            start, stop = (int(words["offset"]), int(words["offset"]) + self.pages) if self.pages else (0, None)
            found = [{"0020000D": study} for study in STUDIES[start:stop]]
        elif path.endswith("/series"):
            found = [uids | {"0020000E": "1.3", "00080060": "CR"}]
        else:
            found = [uids | {"0020000E": "1.3", "00080018": uids["0020000D"] + ".1"}]
        answer = json.dumps([{tag: {"vr": "UI", "Value": [value]} for tag, value in one.items()} for one in found]).encode()
        self.send_response(200 if found else 204)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(answer) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize("pages", [2, 5, None], ids=["pages", "one page", "no pages"])
def test_every_study_is_listed_once_however_an_archive_pages(make_silo, pages):
    archive = type("Archive", (_Archive,), {"pages": pages, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), archive) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/dicom-web"
            settings = DicomWebSource(kind="dicomweb", name="pacs", url=url, modalities=("CR",), patience_s=0)
            files = DicomWebFiles(make_silo(), settings).files()
        finally:
            server.shutdown()
            thread.join()
    assert [file.name for file in files] == [f"{study}/1.3/{study}.1" for study in STUDIES]
    assert sum(path.endswith("/series") for path in archive.asked) == len(STUDIES)
