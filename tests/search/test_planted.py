"""Identifiers planted wherever a DICOM file has room: not one byte of them in anything that a silo keeps or releases.

The files go through the real front doors: `silo ingest`, an index, a signed question over the index process's socket,
`silo deid`. Then every file is searched for every identifier, plain and as it may be disguised.
"""

import base64
import contextlib
import io
import json
import shutil
import sqlite3
import zlib

import numpy as np
import pytest
import typer
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from silo_app.catalogue import Catalogue, FileRecord, SiloKey, Vault
from silo_app.cli import deid as deid_command
from silo_app.cli import edge
from silo_app.cli import ingest as ingest_command
from silo_app.index.build import build_generation
from silo_app.search.envelope import open_reply, seal
from silo_app.search.local import exchange
from silo_app.search.messages import Refusal, SiloAnswer
from silo_app.search.server import IndexProcess
from silo_app.search.wire import encode

app = typer.Typer()
app.command("ingest")(ingest_command.ingest)
app.command("deid")(deid_command.deid)

TOP = {
    "PatientName": "ZQNAME^JANE",
    "PatientID": "ZQPID4711",
    "IssuerOfPatientID": "ZQISSUER",
    "OtherPatientIDs": "ZQOTHERID",
    "OtherPatientNames": "ZQOTHER^NAME",
    "PatientBirthName": "ZQBIRTHNAME",
    "PatientMotherBirthName": "ZQMOTHER",
    "PatientBirthDate": "19470613",
    "PatientBirthTime": "031741.25",
    "PatientAddress": "ZQSTREET 7",
    "PatientTelephoneNumbers": "ZQPHONE 555",
    "PatientComments": "ZQPATIENTCOMMENT",
    "AdditionalPatientHistory": "ZQHISTORY",
    "MedicalRecordLocator": "ZQLOCATOR",
    "Occupation": "ZQJOB",
    "MilitaryRank": "ZQRANK",
    "AccessionNumber": "ZQACC0815",
    "StudyID": "ZQSTUDYID",
    "StudyInstanceUID": "1.2.826.0.1.3680043.9.77001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.9.77002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.9.77003",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.9.77004",
    "StudyDate": "20190827",
    "StudyTime": "142359.75",
    "AcquisitionDateTime": "20190828142401",
    "StudyDescription": "ZQSTUDYDESC",
    "SeriesDescription": "ZQSERIESDESC",
    "ProtocolName": "ZQPROTOCOL",
    "ImageComments": "ZQIMAGECOMMENT",
    "InstitutionName": "ZQHOSPITAL",
    "InstitutionAddress": "ZQHOSPITALADDRESS",
    "InstitutionalDepartmentName": "ZQDEPARTMENT",
    "StationName": "ZQSTATION",
    "DeviceSerialNumber": "ZQSERIAL",
    "DetectorID": "ZQDETECTOR",
    "ManufacturerModelName": "Model 88776655432",
    "ReferringPhysicianName": "ZQREFERRER",
    "PerformingPhysicianName": "ZQPERFORMER",
    "OperatorsName": "ZQOPERATOR",
    "RequestingPhysician": "ZQREQUESTER",
    "AdmissionID": "ZQADMISSION",
    "DeidentificationMethod": "ZQFORGED",
    "DerivationDescription": "ZQDERIVED",
    "WindowCenterWidthExplanation": "ZQWINDOW",
}
_ELSEWHERE = """
ZQNESTED^A ZQDEEP ZQPRIVATE ZQCREATOR ZQOVERLAY ZQOVERLAYTEXT ZQCURVE ZQPREAMBLE ZQAETITLE ZQMETAPRIVATE ZQTRAILING
ZQBEHINDPIXELS ZQSRTEXT ZQFOLDER ZQFILE ZQDICOMDIR ZQNOTDICOM ZQTRUNCATED ZQMODALITY ZQBURNEDFILE ZQUNKNOWN
1.2.826.0.1.3680043.9.77005 88776655432
"""
ELSEWHERE = _ELSEWHERE.split()
IDENTIFIERS = [value for keyword, value in TOP.items() if keyword != "ManufacturerModelName"] + ELSEWHERE


def item(**attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def riddled(make_dataset, pixels, **changes):
    """A radiograph with an identifier in every corner."""
    ds = make_dataset(pixels, **TOP | {"ViewPosition": "PA", "PatientSex": "F", "PatientAge": "072Y"} | changes)
    nested = item(CodeValue="272479007", CodingSchemeDesignator="SCT", CodeMeaning="PA", PatientName="ZQNESTED^A")
    nested.ViewModifierCodeSequence = Sequence([item(PatientComments="ZQDEEP")])
    nested.ReferencedImageSequence = Sequence([item(ReferencedSOPInstanceUID="1.2.826.0.1.3680043.9.77005")])
    ds.ViewCodeSequence = Sequence([nested])
    ds.ContentSequence = Sequence([item(TextValue="ZQSRTEXT")])
    ds.private_block(0x0011, "ZQCREATOR", create=True).add_new(1, "LO", "ZQPRIVATE")
    ds.add_new(0x60003000, "OW", b"ZQOVERLAY\0")
    ds.add_new(0x60000022, "LO", "ZQOVERLAYTEXT")
    ds.add_new(0x50000022, "LO", "ZQCURVE")
    ds.add_new(0x00204444, "LO", "ZQUNKNOWN")
    ds.add_new(0xFFFCFFFC, "OB", b"ZQTRAILING")
    ds.PixelData += b"ZQBEHINDPIXELS"
    ds.preamble = b"ZQPREAMBLE".ljust(128, b"\0")
    ds.file_meta.SourceApplicationEntityTitle = "ZQAETITLE"
    ds.file_meta.PrivateInformationCreatorUID = "1.2.3"
    ds.file_meta.PrivateInformation = b"ZQMETAPRIVATE\0"
    return ds


def disguises(identifier):
    """An identifier as bytes, in every way that a store may write it."""
    for plain in {identifier, identifier.lower(), identifier.upper(), identifier.replace("^", " "), identifier[::-1]}:
        yield plain.encode()
        yield plain.encode("utf-16-le")
        yield plain.encode("utf-16-be")
        yield plain.encode().hex().encode()
        yield plain.encode().hex().upper().encode()
        for shift in range(3):  # base64 differs with the place in the text; its first and last digits mix with others
            encoded = base64.b64encode(b"\0" * shift + plain.encode()).rstrip(b"=")
            yield encoded[(0, 2, 3)[shift] : -1]
            yield base64.urlsafe_b64encode(b"\0" * shift + plain.encode()).rstrip(b"=")[(0, 2, 3)[shift] : -1]


def contents(path):
    """A file's bytes, what can be inflated in them, and every cell if it is a database."""
    content = path.read_bytes()
    yield content
    for head, bits in ((b"\x78\x01", 15), (b"\x78\x9c", 15), (b"\x78\xda", 15), (b"\x1f\x8b", 31), (b"PK\x03\x04", -15)):
        at = content.find(head)
        while at >= 0:
            start = at + (30 + sum(content[at + 26 : at + 30 : 2]) if bits < 0 else 0)  # the name and the extra field
            with contextlib.suppress(zlib.error):
                yield zlib.decompressobj(bits).decompress(content[start:], 1 << 24)
            at = content.find(head, at + 1)
    if content.startswith(b"SQLite format 3"):
        connection = sqlite3.connect(path)  # values that are longer than a page are in pieces in the file
        yield "\n".join(connection.iterdump()).encode()
        connection.close()


def found(paths, identifiers=IDENTIFIERS):
    """Return (file, identifier) for every identifier in names or contents."""
    wanted = [(identifier, set(disguises(identifier))) for identifier in identifiers]
    hits = set()
    for path in paths:
        for content in (path.name.encode(), *(contents(path) if path.is_file() else ())):
            hits |= {(path.name, name) for name, forms in wanted if any(form in content for form in forms)}
    return sorted(hits)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def source(tmp_path, make_dataset, make_picture, encode_dicom):
    folder = tmp_path / "source"
    within = folder / "ZQFOLDER"
    within.mkdir(parents=True)
    whole = encode_dicom(riddled(make_dataset, make_picture(48, 40, seed=1)))
    (within / "ZQFILE.dcm").write_bytes(whole)
    for number in range(12):  # enough cases for the silo to answer at all
        changes = {
            "SOPInstanceUID": f"1.2.{number}",
            "StudyInstanceUID": f"1.3.{number}",
            "PatientID": f"ZQPID4711-{number}",
        }
        pixels = make_picture(48, 40, seed=2 + number)
        (within / f"ZQFILE-{number}.dcm").write_bytes(encode_dicom(riddled(make_dataset, pixels, **changes)))
    (within / "ZQTRUNCATED.dcm").write_bytes(whole[: len(whole) // 2])
    (within / "ZQBURNEDFILE.dcm").write_bytes(
        encode_dicom(riddled(make_dataset, make_picture(48, 40, seed=50), SOPInstanceUID="1.9", BurnedInAnnotation="YES"))
    )
    (within / "ZQMODALITY.dcm").write_bytes(encode_dicom(make_dataset(**TOP | {"Modality": "ZQMODALITY"})))
    (within / "SR").write_bytes(
        encode_dicom(riddled(make_dataset, None, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"))
    )
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"ZQDICOMDIR" + b"ZQFILE" * 20)
    (folder / "notes.txt").write_text("ZQNOTDICOM")
    return folder


@pytest.fixture
def silo(stocked, source):
    return stocked("south", cases=0, config=f"sources: [{{path: {source}}}]\n")


def embed(digests):
    vectors = [np.random.default_rng(int(digest[:8], 16)).standard_normal(16) for digest in digests]
    return np.array([vector / np.linalg.norm(vector) for vector in vectors], np.float32)


def test_no_planted_identifier_is_kept_or_released(silo, stocked, request_of, tmp_path, capfd, caplog):
    caplog.set_level("DEBUG")
    home = silo.home
    assert run("ingest", "--silo", home.kit, "--workers", "1") == 0
    logs = capfd.readouterr().err  # standard output names refused files to the hospital's own people: it is no store
    assert "13 views added" in logs
    build_generation(home, "ab" * 32, embed)
    north = stocked.federation.identity("north")
    process = IndexProcess(home)
    process.start()
    try:
        frame = seal(north, request_of(k=10))
        reply = exchange(home.index_socket, frame, 10)
    finally:
        process.close()
    assert run("deid", silo.home.config.sources[0].path, "--out", tmp_path / "clean", "--silo", home.kit) == 0
    logs += "\n".join(record.getMessage() for record in caplog.records)
    (tmp_path / "log").write_text(logs)
    answer = encode(open_reply(north, "south", frame, reply, SiloAnswer, Refusal))
    (tmp_path / "answer").write_bytes(answer)
    assert b"hits" in answer
    kept = [path for path in home.root.rglob("*") if path.is_file()]
    released = sorted((tmp_path / "clean").iterdir())
    assert len(released) == 13
    assert {"catalogue.db", "audit.jsonl", "silo.key"} <= {path.name for path in kept}
    assert sum(path.suffix == ".npy" for path in kept) >= 13
    assert len(IDENTIFIERS) >= 60
    assert found([*kept, *released, tmp_path / "log", tmp_path / "answer"]) == []


def test_no_planted_identifier_is_in_the_write_ahead_log(silo):
    """A process that is killed leaves the log beside the catalogue; here it is read while the catalogue is open."""
    home = silo.home
    assert run("ingest", "--silo", home.kit, "--workers", "1") == 0
    with Catalogue.open(home.catalogue, vault=Vault(SiloKey.load(home.key))) as catalogue:
        with catalogue.writing() as writer:
            for name, record in writer.files(str(home.resolve(home.config.sources[0].path))).items():
                assert name
                writer.record_file(record)
        wal = home.catalogue.with_name("catalogue.db-wal")
        assert wal.stat().st_size > 1000
        copy = home.root / "wal.bin"
        shutil.copy(wal, copy)
        assert found([copy]) == []


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_a_picture_that_names_its_patient_reaches_no_store(stocked, source, make_dataset, encode_dicom, capfd):
    image = Image.new("L", (700, 800), 40)
    ImageDraw.Draw(image).text((40, 40), "JANE ZQNAME 13.06.1947", fill=255, font=ImageFont.load_default(36))
    pixels = np.asarray(image, np.uint16) * 10 + np.linspace(0, 900, 800)[:, None].astype(np.uint16)
    shutil.rmtree(source)
    source.mkdir()
    (source / "one.dcm").write_bytes(encode_dicom(make_dataset(pixels)))
    home = stocked("south", cases=0, config=f"sources: [{{path: {source}}}]\nimaging: {{ocr: on}}\n").home
    assert run("ingest", "--silo", home.kit, "--workers", "1", "--format", "json") == 2
    (refused,) = json.loads(capfd.readouterr().out)["data"]["refused"]
    assert refused["reason"] == "burned-in-annotation"
    assert "date" in refused["detail"]
    kept = [path for path in home.root.rglob("*") if path.is_file()]
    assert not any(path.suffix == ".npy" for path in kept)
    assert found(kept, ["ZQNAME", "13.06.1947"]) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.encode(),
        lambda text: text.lower().encode("utf-16-le"),
        lambda text: text[::-1].encode(),
        lambda text: b"." + base64.b64encode(b"x" + text.encode() + b"yy"),
        lambda text: text.encode().hex().encode(),
        lambda text: b"junk" + zlib.compress(b"..." + text.encode()),
    ],
    ids=["plain", "utf-16", "reversed", "base64", "hex", "deflated"],
)
def test_the_search_finds_what_a_store_holds(tmp_path, write):
    """The control: were it there, it would be found."""
    file = tmp_path / "store"
    file.write_bytes(np.random.default_rng(0).bytes(1000) + write("ZQPID4711") + b"\0" * 50)
    assert found([file]) == [("store", "ZQPID4711")]


def test_the_search_finds_what_a_database_and_an_array_hold(tmp_path):
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE t (a TEXT)")
    connection.execute("INSERT INTO t VALUES (?)", ("x" * 5000 + "ZQDEEP" + "y" * 5000,))
    connection.commit()
    connection.close()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.frombuffer(b"....ZQAETITLE....", np.uint8))
    (tmp_path / "b.npz").write_bytes(buffer.getvalue())
    (tmp_path / "ZQFILE.npy").write_bytes(b"")
    hits = found(sorted(tmp_path.iterdir()))
    assert hits == [("ZQFILE.npy", "ZQFILE"), ("a.db", "ZQDEEP"), ("b.npz", "ZQAETITLE")]


def test_the_planted_files_hold_what_is_looked_for(source):
    """And the files do hold every one of them, so that a spelling mistake here cannot make the proof empty."""
    accepted = source / "ZQFOLDER" / "ZQFILE.dcm"
    within = {name for _, name in found([accepted])}
    around = {name for _, name in found([source / "notes.txt", *source.iterdir(), *accepted.parent.iterdir()])}
    assert set(IDENTIFIERS) == within | around
    assert len(within) >= 55


def test_the_search_finds_a_name_in_a_real_catalogue(tmp_path):
    """The control of the controls: a catalogue without the vault holds names in clear, and that is seen."""
    path = tmp_path / "catalogue.db"
    with Catalogue.open(path, create=True) as catalogue:
        with catalogue.writing() as writer:
            writer.record_file(FileRecord(source="s", path="ZQFILE.dcm", size=1, mtime_ns=1, recipe="r", reason="blank"))
        assert found([path.with_name("catalogue.db-wal")]) == [("catalogue.db-wal", "ZQFILE")]
    assert found([path]) == [("catalogue.db", "ZQFILE")]
