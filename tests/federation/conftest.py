"""One consortium for most end-to-end tests: real NVFlare processes over mutual TLS, phantoms, a small encoder.

One process runs all files that use it (`SHARED_CONSORTIUM` in tests/conftest.py), so that it is made once.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from provisioning import kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from silo_app import config, durable
from silo_app.errors import SiloscopeError
from silo_app.flare.console import Console, stage_job
from silo_app.imaging.ingest import ingest
from silo_app.imaging.samples.phantom import make_phantoms
from silo_app.search.ask import search_file

JOBS = Path(__file__).parents[2] / "jobs"
SMALL = {
    "rounds": 2,
    "encoder.backbone": "densenet-small",
    "encoder.input_size": 32,
    "training.epochs": 1,
    "straggler_wait_s": 20,
}
JOB_LIMIT_S = 300.0
DRAWS = {"hospital-a": 189, "hospital-b": 717, "hospital-c": 79}
"""From these come the silos' keys, and so who is held out: five or six patients, at least three of them with one finding
and three without. With a random key it is one day nobody of whom an evaluation may tell."""


@dataclass
class Lab:
    """A running consortium, and what tests do with it."""

    federation: Federation

    def submit(self, name, settings=None, folder=None):
        with Console.open(self.federation.admin_kit) as console, stage_job(folder or JOBS / name, settings or {}) as job:
            return console.submit(job)

    def wait(self, job):
        with Console.open(self.federation.admin_kit) as console:
            return console.wait(job, timeout_s=JOB_LIMIT_S)

    def run(self, name, record, settings=None):
        """Run a job to its end and return the record that its server part wrote."""
        job = self.submit(name, settings)
        return job, self.record(job, record)

    def record(self, job, record):
        with Console.open(self.federation.admin_kit) as console:
            console.wait(job, timeout_s=JOB_LIMIT_S)
            folder = console.download(job)
        return json.loads(next(folder.rglob(record)).read_text())

    def silo(self, *arguments, folder=None):
        """Run a `silo` command as a person would, in `folder`, and return status, envelope and text for people."""
        command = [sys.executable, "-m", "silo_app.cli.main", *map(str, arguments), "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=folder)
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def query(self, silo):
        """Return a DICOM file of a silo."""
        source = config.load(self.federation.kit(silo)).config.sources[0].path
        return min(source.rglob("*.dcm"))

    def search(self, silo="hospital-a", k=12):
        status, envelope, text = self.silo("search", self.query(silo), "--silo", self.federation.kit(silo), "-k", k)
        return status, envelope, text

    def states(self, silo="hospital-a"):
        """Return every silo's state as one search tells it; none if it says nothing of the others.

        In this process: what is asked again and again need not start one each time.
        """
        try:
            result = search_file(config.load(self.federation.kit(silo)), self.query(silo), k=12)
        except SiloscopeError:
            return {}
        return {} if result.unheard else {report.silo: report.state.value for report in result.silos}

    def until(self, condition, limit_s=60.0):
        """Wait until `condition()` holds, and return what it returned."""
        end = time.monotonic() + limit_s
        while not (outcome := condition()):
            assert time.monotonic() < end, "it did not become so in time"
            time.sleep(0.5)
        return outcome


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("federation")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    archives = make_phantoms(root / "archives", hospitals=3, studies=24, seed=7, progress=None, workers=2)
    often = {"similar_queries_per_day": 10_000}  # tests ask the same thing again and again
    private = {"private": {"answer": True, "processes": 1}}  # all but the last answer private queries
    told = {"training": {"share_metrics": True}}
    silos = [
        archive.silo() | told | {"release": often | (private if archive.name != "hospital-c" else {})}
        for archive in archives
    ]
    content = {"name": "test", "server": {"port": 0}, "silos": silos, "researchers": [{"name": "lead@siloscope.example"}]}
    kits.provision(Consortium.model_validate(content), root / "consortium")
    federation = Federation.load(root / "consortium")
    for silo in federation.silos:
        home = config.load(federation.kit(silo))
        durable.private_folder(home.root)
        durable.write_bytes(home.key, hashlib.sha256(f"{silo} {DRAWS[silo]}".encode()).digest())
        report = ingest(home, workers=2)
        assert report.views > 20
        assert not report.refused
    federation.up()
    yield Lab(federation)
    federation.down()


@pytest.fixture(scope="session")
def trained(lab):
    """The consortium after one training job, which was followed; yields (lab, job, record)."""
    job, record = lab.run("train", "rounds.json", {**SMALL, "track": ["tensorboard", "mlflow"]})
    return lab, job, record


@pytest.fixture(scope="session")
def searching(trained):
    """The consortium with an index in every silo and the search job running."""
    lab, _, _ = trained
    _, record = lab.run("index", "index.json")
    assert set(record["silos"]) == set(lab.federation.silos)
    lab.submit("search")
    lab.until(lambda: set(lab.states().values()) == {"answered"})
    return lab
