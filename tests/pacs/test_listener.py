"""`silo listen` with a real archive that sends: durable before success, and only for whom it knows."""

import contextlib
import gc
import io
import subprocess
import sys
import threading

import pytest

from silo_app.catalogue import Catalogue
from silo_app.imaging.ingest import ingest
from silo_app.imaging.sources.inbox import Inbox
from silo_app.imaging.sources.listener import listening

CR = "1.2.840.10008.5.1.4.1.1.1"


@pytest.fixture
def listening_silo(make_silo, orthanc):
    def make(**changes):
        source = {"name": "routed", "kind": "listen", "port": orthanc.listen, "ae_title": "LISTENER"}
        home = make_silo(sources=[source | {"peers": ["ORTHANC"], "keep_free_mib": 0} | changes])
        return home, home.config.sources[0]

    return make


def send(settings, content, *, calling="ORTHANC", called="LISTENER"):
    """Send a file as a modality does; return the status, or None if the association or the class was refused."""
    import pydicom
    from pynetdicom import AE

    ds = pydicom.dcmread(io.BytesIO(content))
    ae = AE(ae_title=calling)
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", settings.port, ae_title=called)
    if not association.is_established:
        if association.dul.socket and association.dul.socket.socket:
            association.dul.socket.socket.close()
        return None
    try:
        return association.send_c_store(ds).Status
    finally:
        association.release()


def test_archive_sends_and_the_silo_ingests(orthanc, images, listening_silo, pixels):
    home, settings = listening_silo()
    with listening(home, settings):
        orthanc.send("listener", [orthanc.store(content) for content in images])
    stored = [path.read_bytes() for path in home.inbox.rglob("*.dcm")]
    assert sorted(map(pixels, stored)) == sorted(map(pixels, images))
    assert {path.stat().st_mode & 0o777 for path in home.inbox.rglob("*.dcm")} == {0o600}
    report = ingest(home, workers=1)
    assert (report.added, report.refused) == (5, ())
    assert ingest(home, workers=1).unchanged == 5


def test_strangers_other_classes_and_full_disks_are_answered_so(images, other_image, listening_silo):
    home, settings = listening_silo()
    with listening(home, settings):
        assert send(settings, images[0], calling="STRANGER") is None
        assert send(settings, images[0], called="OTHER") is None
        assert send(settings, other_image) is None  # no presentation context was accepted
        assert send(settings, images[0]) == 0
    home, settings = listening_silo(keep_free_mib=1 << 40)
    with listening(home, settings):
        assert send(settings, images[1]) == 0xA700
    assert len(list(home.inbox.rglob("*.dcm"))) == 1


def test_rejection_note_takes_images_out(images, listening_silo, make_dataset, encode_dicom):
    from pydicom.dataset import Dataset

    home, settings = listening_silo()
    note = make_dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59", Modality="KO", PixelData=None)
    concept, study, series, image = (Dataset() for _ in range(4))
    concept.CodeValue, concept.CodingSchemeDesignator = "113037", "DCM"
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CR, "1.2.3.1.0.1"
    series.ReferencedSOPSequence, study.ReferencedSeriesSequence = [image], [series]
    note.ConceptNameCodeSequence, note.CurrentRequestedProcedureEvidenceSequence = [concept], [study]
    with listening(home, settings):
        assert [send(settings, content) for content in images[:2]] == [0, 0]
        assert ingest(home, workers=1).views == 2
        assert send(settings, encode_dicom(note)) == 0
    report = ingest(home, workers=1)
    assert (report.removed, report.views) == (1, 1)
    with Catalogue.open(home.catalogue) as catalogue:
        assert len(catalogue.views()) == 1


# pynetdicom leaves the socket of a refused connection to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_listener_leaves_nothing_half_written(images, listening_silo, environment, make_dicom, make_picture):
    home, settings = listening_silo()
    command = [sys.executable, "-m", "silo_app.cli.main", "listen", "--silo", str(home.kit)]
    large = [make_dicom(make_picture(900, 800, seed=n), SOPInstanceUID=f"1.2.9.{n}") for n in range(12)]
    answered = []
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    killer = threading.Timer(0.5, process.kill)
    try:
        assert process.stderr is not None
        assert "listens" in process.stderr.readline()
        for number, content in enumerate(large):
            if process.poll() is not None:
                break
            if number == 3:
                killer.start()  # whatever it does in half a second, it does no more
            with contextlib.suppress(AttributeError):  # the association broke: no status
                if send(settings, content) == 0:
                    answered.append(f"1.2.9.{number}")
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
    gc.collect()  # while its warning is ignored
    assert len(answered) >= 3
    inbox = Inbox(home.inbox / "routed")
    for sop in answered:
        assert inbox.path(sop).is_file()
    with listening(home, settings):
        assert list(home.inbox.rglob("*.part")) == []
    report = ingest(home, workers=1)
    assert (report.refused, report.views >= len(answered)) == ((), True)
