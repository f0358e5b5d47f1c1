"""docs/how-to-connect-a-pacs.md, done as it stands: its settings of Orthanc and of the silo, its commands, other ports."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.ports import free_port
from tests.pacs.conftest import PASSWORD, Orthanc

PAGE = Path(__file__).parents[2] / "docs" / "how-to-connect-a-pacs.md"
PORTS = ("4242", "8042", "11112", "11113")


class AsThePageSays(Orthanc):
    """An Orthanc with the page's settings, and nothing beside them but where it stores."""

    def __init__(self, folder, settings):
        super().__init__(folder)
        self.http, self.dicom = settings["HttpPort"], settings["DicomPort"]
        store = str(folder / "store")
        own = {"StorageDirectory": store, "IndexDirectory": store}
        (folder / "orthanc.json").write_text(json.dumps(settings | own))


@pytest.fixture
def page():
    """The blocks of the page's last section by their language, with ports that are free and the tests' password."""
    section = PAGE.read_text(encoding="utf-8").partition("## Orthanc")[2]
    for port in PORTS:
        assert port in section
        section = re.sub(rf"\b{port}\b", str(free_port()), section)
    section = section.replace("the password", PASSWORD.partition(":")[2])
    return dict(re.findall(r"```(json|yaml)\n(.*?)```", section, re.DOTALL))


@pytest.fixture
def archive(page, tmp_path):
    orthanc = AsThePageSays(tmp_path / "orthanc", json.loads(page["json"]))
    yield orthanc.start()
    orthanc.kill()


@pytest.fixture
def kit(page, make_silo):
    kit = make_silo().kit
    (kit / "local" / "silo.yaml").write_text(page["yaml"])
    (kit / "local" / "pacs-password").write_text(PASSWORD)
    (kit / "local" / "pacs-password").chmod(0o600)
    return kit


@pytest.fixture
def silo(kit, environment):
    """A function that runs a command of silo, and returns what it answers to programs."""

    def run(*words):
        command = [sys.executable, "-m", "silo_app.cli.main", *words, "--silo", str(kit), "--format", "json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)["data"]

    return run


def test_every_way_to_an_orthanc_gives_its_images(archive, kit, silo, images, environment):
    instances = [archive.store(content) for content in images]
    asked = silo("ingest", "--only", "archive")
    assert (asked["added"], asked["refused"]) == (5, [])
    asked = silo("ingest", "--only", "old-archive")
    assert (asked["files"], asked["views"], asked["unreachable"]) == (5, 5, {})
    listen = [sys.executable, "-m", "silo_app.cli.main", "listen", "--silo", str(kit)]
    with subprocess.Popen(listen, env=environment, stderr=subprocess.PIPE, text=True) as listener:
        assert "SILOSCOPE listens" in listener.stderr.readline()
        archive.send("listener", instances)
        looked = {check["name"]: check["outcome"] for check in silo("doctor")["checks"]}
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(20) == 0
    names = ("source archive (dicomweb)", "source old-archive (dimse)", "source routed (listen)")
    assert [looked[name] for name in names] == ["ok"] * 3
    sent = silo("ingest", "--only", "routed")
    assert (sent["files"], sent["views"], sent["unreachable"]) == (5, 5, {})
