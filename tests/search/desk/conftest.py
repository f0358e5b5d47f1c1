"""Two silos with index processes, a broker, a gateway and a small real encoder, and `north`'s desk: all but the network."""

import time

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.encoder import checkpoint
from silo_app.encoder.embed import load_encoder
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.imaging.ingest import ingest
from silo_app.search import local
from silo_app.search.broker import Broker
from silo_app.search.desk.client import Desk
from silo_app.search.desk.process import DeskProcess
from silo_app.search.meeting import VOUCHER_ASKED
from silo_app.search.server import IndexProcess

SPEC = EncoderSpec(backbone="densenet-small", input_size=32, embedding_dim=16)
UID = "1.2.826.0.1.31415926"
RELEASES = """release:
  same_patient: show
  similar_queries_per_day: 100000
  private: {answer: true, noise: 0, processes: 1}
"""
UNHURRIED = 20_000
"""Milliseconds: time enough on a machine that is busy with other tests."""


def save_encoder(models, seed):
    """Make an encoder and put it to use."""
    version = checkpoint.save(models, SPEC, to_vector(build(SPEC, seed)), {})
    checkpoint.set_current(models, version)
    return version


class SocketTransport:
    """What the gateways do between broker and index processes, without NVFlare."""

    def __init__(self, silos):
        self.silos = silos

    def ask(self, silo, message, budget_s):
        return local.exchange(self.silos[silo].home.index_socket, message, budget_s)


class Asking:
    """`north`, and what asks for it."""

    def __init__(self, silos, file, other, version):
        self.silos, self.file, self.other, self.version = silos, file, other, version
        self.home, self.desks = silos["north"].home, []
        with Catalogue.open(self.home.catalogue) as catalogue:
            self.cases = {view.digest: view.case for view in catalogue.views()}

    def open_desk(self, **options):
        self.desks.append(DeskProcess(self.home, **options))
        self.desks[-1].start()
        return self.ready(Desk.at(self.home))

    def ready(self, desk, seconds=60):
        end = time.monotonic() + seconds
        while not desk.runs or desk.state().encoder != "ready":
            assert time.monotonic() < end, "the desk is not ready"
            time.sleep(0.02)
        return desk


@pytest.fixture
def asking(stocked, make_dicom, make_picture, tmp_path):
    source = tmp_path / "dicom"
    source.mkdir()
    file, other = source / "one.dcm", tmp_path / "other.dcm"
    file.write_bytes(make_dicom(make_picture(seed=7), SOPInstanceUID=UID, StudyInstanceUID=f"{UID}.2"))
    other.write_bytes(make_dicom(make_picture(seed=8)))
    settings = f"{RELEASES}sources: [{{path: {source}}}]\n"
    silos = {name: stocked(name, cases=0, config=settings) for name in ("north", "south")}
    north, processes = silos["north"], []
    ingest(north.home, workers=1)
    version = save_encoder(north.home.models, 1)
    with Catalogue.open(north.home.catalogue) as catalogue:
        (view,) = list(catalogue.views())
    north.vectors[view.digest] = load_encoder(north.home.models).file(file)
    for seed, silo in enumerate(silos.values()):
        silo.stock(seed, 20)
        silo.index(version)
        processes.append(IndexProcess(silo.home))
        processes[-1].start()
    broker = Broker(SocketTransport(silos), tuple(silos), budget_ms=UNHURRIED)
    for name, process in zip(silos, processes, strict=True):
        broker.met(name, process.answer_frame(VOUCHER_ASKED))
    gateway = local.FrameServer(north.home.gateway_socket, broker.search)
    gateway.start()
    made = Asking(silos, file, other, version)
    made.case, made.gateway = view.case, gateway
    yield made
    for desk in made.desks:
        desk.close()
    gateway.close()
    broker.close()
    for process in processes:
        process.close()


@pytest.fixture
def desk(asking):
    return asking.open_desk()


@pytest.fixture
def new_encoder():
    return save_encoder


@pytest.fixture
def same():
    """What must be equal of two results of one search."""

    def told(result):
        hits = [(hit.silo, hit.case, hit.score, hit.card, hit.beyond, hit.thumbnail) for hit in result.hits]
        reports = [(report.silo, report.state, report.code, report.indexed, report.released) for report in result.silos]
        return hits, reports, result.k, result.encoder_version, result.unheard

    return told


@pytest.fixture
def pixels():
    """Read a gray PNG that has nothing but pixels."""

    def read(content):
        import io

        from PIL import Image

        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            assert (image.mode, image.info) == ("L", {})
            return np.asarray(image)

    return read
