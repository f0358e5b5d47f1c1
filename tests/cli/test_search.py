"""`silo search`, `silo index`: from a DICOM file to ranked cases, over real sockets; only NVFlare's network is left out."""

import base64
import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import typer
import yaml

from silo_app.cases import EncoderVersion
from silo_app.cli import edge
from silo_app.cli import index as index_command
from silo_app.cli import search as search_command
from silo_app.encoder import checkpoint
from silo_app.identity import Identity
from silo_app.search import local
from silo_app.search.messages import ReleasedHit, Sealed, SearchResult, SiloAnswer, SiloReport, SiloState
from silo_app.search.sealed import Broadcast
from silo_app.search.standing import GENERATION_ASKED
from silo_app.search.thumbnails import thumbnail
from silo_app.search.wire import decode, encode

app = typer.Typer()
app.add_typer(index_command.app, name="index")
app.command("search")(search_command.search)


PICTURE = thumbnail(np.full((64, 48), 0.5, np.float32), 64)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [str(argument) for argument in arguments])
    return ended.value.code


def result(identity, request_frame, withheld=None) -> bytes:
    """Reply as a broker does; the one silo that answers signs as itself."""
    from silo_app.search.envelope import peek_request, seal_reply

    request_frame = decode(request_frame, Broadcast).frame
    request = peek_request(request_frame)
    hit = ReleasedHit(
        case="c" * 32,
        score=0.91234,
        thumbnail=PICTURE,
        card={"position": "PA", "sex": "F", "age_band": "40-49", "findings": {"Pneumonia": True, "Mass": False}},
    )
    common = {"query_id": request.query_id, "encoder_version": request.encoder_version}
    levels = ((50.0, 0.1), (99.0, 0.9), (99.9, 0.92))
    answer = SiloAnswer(
        **common, silo="north", generation="000001", indexed=40, hits=(hit,), withheld=withheld, levels=levels
    )
    states = (
        SiloReport(silo="east", state=SiloState.LATE, code="no-answer-in-time", took_ms=1000.0),
        SiloReport(silo="north", state=SiloState.ANSWERED, took_ms=12.3),
        SiloReport(silo="south", state=SiloState.ANSWERED, took_ms=9.0, released=10),
        SiloReport(silo="west", state=SiloState.UNREACHABLE),
    )
    sealed = (Sealed(silo="north", content=seal_reply(identity, request_frame, answer)),)
    return encode(SearchResult(**common, k=request.k, hits=(), silos=states, sealed=sealed))


@pytest.fixture
def searchable(stocked_kit, monkeypatch):
    """A silo with an encoder (a fake: the real one needs torch), and a gateway that answers."""

    class Fake:
        version, head = "ab" * 16, None

        def radiographs(self, radiographs):
            return np.ones((len(radiographs), 16), np.float32)

    import silo_app.encoder.embed

    monkeypatch.setattr(silo_app.encoder.embed, "load_encoder", lambda *_: Fake())
    stocked_kit.models.mkdir(parents=True)
    checkpoint.set_current(stocked_kit.models, EncoderVersion(Fake.version))
    identity = Identity.load(stocked_kit.kit)
    server = local.FrameServer(stocked_kit.gateway_socket, lambda frame: result(identity, frame))
    server.start()
    yield stocked_kit
    server.close()


@pytest.fixture
def image(tmp_path, make_dicom):
    file = tmp_path / "image.dcm"
    file.write_bytes(make_dicom())
    return file


def test_hits_and_every_silos_state_are_printed(searchable, image, capsys):
    assert run("search", image, "--silo", searchable.kit) == 0
    output = capsys.readouterr().out
    assert "0.9123      99.5 %  north" in output
    assert "Pneumonia" in output
    assert "Mass" not in output
    assert "east: late (1000 ms, no-answer-in-time)" in output
    assert "north: answered (12 ms, 1 of 40 cases, any of the query's own patient kept back)" in output
    assert "south: invalid (signature-invalid)" in output  # the broker says that it answered, and has nothing signed
    assert "west: unreachable" in output


@pytest.mark.parametrize(
    ("withheld", "line"),
    [(0, "1 of 40 cases)"), (1, "1 of 40 cases, cases of 1 patient withheld)"), (2, "cases of 2 patients withheld)")],
)
def test_a_number_that_a_silo_tells_is_printed(withheld, line):
    from silo_app.cli.search import _state

    state = {"silo": "north", "state": "answered", "took_ms": 12.3, "indexed": 40, "released": 1}
    assert _state(SiloReport(**state, withheld=withheld)).endswith(line)


def test_who_asks_with_the_encoder_before_is_told_until_the_index_is_built(searchable, image, capsys):
    assert run("search", image, "--silo", searchable.kit) == 0
    assert "index build" not in capsys.readouterr().err
    checkpoint.set_current(searchable.models, EncoderVersion("cd" * 16))
    assert run("search", image, "--silo", searchable.kit) == 0
    told = f"Searched with encoder {'ab' * 6} until the index is built with {'cd' * 6}: silo index build"
    assert told in capsys.readouterr().err


def test_what_other_hospitals_have_behind_the_nearest_is_a_list_of_its_own(searchable, image, monkeypatch, capsys, tmp_path):
    from silo_app.search.desk import client

    really = client.find_soonest

    def behind(home, wanted):
        found = really(home, wanted)
        (hit,) = found.result.hits
        further = hit.model_copy(update={"case": "d" * 32, "score": 0.5, "silo": "west"})
        return replace(found, result=found.result.model_copy(update={"elsewhere": (further,)}))

    monkeypatch.setattr(client, "find_soonest", behind)
    assert run("search", image, "--silo", searchable.kit, "--html", tmp_path / "page.html") == 0
    output = capsys.readouterr().out
    first, _, second = output.partition("Behind these, in the other hospitals:")
    assert ("cccccccc" in first, "dddddddd" in first) == (True, False)
    assert "0.5000" in second.partition("dddddddd")[0]
    html = (tmp_path / "page.html").read_text()
    assert html.index("cccccccc") < html.index("Behind these, in the other hospitals") < html.index("dddddddd")
    assert html.count(base64.b64encode(PICTURE).decode()) == 2
    assert run("search", image, "--silo", searchable.kit, "--format", "json") == 0
    (one,) = json.loads(capsys.readouterr().out)["data"]["elsewhere"]
    assert (one["case"], "thumbnail" in one) == ("d" * 32, False)


def test_programs_get_one_envelope(searchable, image, capsys):
    assert run("search", image, "--silo", searchable.kit, "--format", "json") == 0
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["status"] == "ok"
    assert envelope["data"]["hits"][0]["card"]["findings"] == {"Pneumonia": True, "Mass": False}
    assert envelope["data"]["hits"][0]["beyond"] == 99.5
    assert [silo["withheld"] for silo in envelope["data"]["silos"]] == [0, None, 0, 0]
    assert [silo["state"] for silo in envelope["data"]["silos"]] == ["late", "answered", "invalid", "unreachable"]


def test_pictures_are_on_the_page_and_nowhere_else(searchable, image, tmp_path, capsys):
    page = tmp_path / "similar.html"
    for options in ([], ["--format", "json"]):
        assert run("search", image, "--silo", searchable.kit, "--html", page, *options) == 0
        inside = base64.b64encode(PICTURE).decode()
        printed, log = capsys.readouterr().out, searchable.audit.read_text()
        assert inside in page.read_text()
        assert "thumbnail" not in printed + log
        assert inside[:40] not in printed + log


MISTAKES = [
    ("--purpose", "Care", "'Care' is not a word in small letters"),
    ("--purpose", "", "'' is not a word in small letters"),
    ("--user", "x" * 200, "is not a name of at most 128 characters"),
    ("--user", "x\x1b[2K\rno alerts", "is not a name of at most 128 characters that can all be seen"),
    ("--html", "FOLDER/none/such.html", "no file can be made there"),
    ("--html", "FOLDER", "a folder lies there"),
    ("--html", "FOLDER/image.dcm/page.html", "no file can be made there"),
]


@pytest.mark.parametrize(("option", "value", "says"), MISTAKES)
def test_mistakes_are_named_before_anything_is_asked(option, value, says, searchable, image, tmp_path, capsys):
    value = value.replace("FOLDER", str(tmp_path))
    assert run("search", image, "--silo", searchable.kit, option, value) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert says in error
    assert option in error or value in error
    assert "bug" not in error
    assert "\x1b" not in error
    assert not searchable.audit.exists()


def test_a_user_of_any_script_may_ask(searchable, image):
    assert run("search", image, "--silo", searchable.kit, "--user", "山田　太郎") == 0
    assert "山田　太郎" in searchable.audit.read_text()


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_page_that_fails_costs_no_answer(output, searchable, image, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("silo_app.durable.write_text", full)
    page = tmp_path / "similar.html"
    assert run("search", image, "--silo", searchable.kit, "--html", page, "--format", output) == 2
    printed = capsys.readouterr()
    assert "the page cannot be written: No space left on device" in printed.err
    assert "bug" not in printed.err
    if output == "json":
        assert len(json.loads(printed.out)["data"]["hits"]) == 1
    else:
        assert "0.9123" in printed.out


def test_nobody_answering_is_a_status_of_its_own(searchable, image, monkeypatch):
    monkeypatch.setattr(SearchResult, "answered", 0)
    assert run("search", image, "--silo", searchable.kit) == 1


def test_that_nobody_else_was_asked_is_the_last_line(capsys):
    from silo_app.cli.search import _print

    own = SiloReport(silo="north", state=SiloState.ANSWERED, took_ms=2.0, indexed=40)
    common = {"query_id": "0" * 32, "encoder_version": "ab" * 32, "k": 10, "hits": (), "silos": (own,)}
    _print(SearchResult(**common, unheard="The broker is not there."))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "The other hospitals were not asked: The broker is not there."


def test_a_text_file_is_refused(searchable, tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("not DICOM")
    assert run("search", file, "--silo", searchable.kit) == 2
    assert "image-unsupported" in capsys.readouterr().err


def test_no_gateway_says_what_to_do(searchable, image, capsys):
    searchable.gateway_socket.unlink()
    assert run("search", image, "--silo", searchable.kit) == 1
    error = capsys.readouterr().err
    assert "gateway does not answer" in error
    assert "Is the site running" in error


def test_no_encoder_says_what_to_do(stocked_kit, image, capsys):
    assert run("search", image, "--silo", stocked_kit.kit) == 1
    assert "no encoder yet" in capsys.readouterr().err


def test_no_index_says_what_to_do(stocked_kit, capsys):
    assert run("index", "status", "--silo", stocked_kit.kit) == 1
    assert "silo index build" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "taken", "told"),
    [([b"000001", b"", b"000002"], True, ""), ([b"000001"] * 99, False, "has not opened generation 000002")],
)
def test_a_build_ends_when_the_running_index_process_has_taken_it(stocked_kit, monkeypatch, capsys, answers, taken, told):
    monkeypatch.setattr(index_command, "_TAKEN_WITHIN_S", 0.5)
    said = iter(answers)
    server = local.FrameServer(stocked_kit.index_socket, lambda frame: next(said) if frame == GENERATION_ASKED else b"?")
    server.start()
    try:
        assert index_command._taken(stocked_kit, "000002") is taken
    finally:
        server.close()
    assert told in capsys.readouterr().err


@pytest.fixture
def devices(monkeypatch):
    """Let builds embed without a network; the devices that it was loaded onto."""
    import silo_app.encoder.embed

    class Fake:
        version, head = "ab" * 16, None

        def radiographs(self, radiographs):
            return np.stack([np.full(16, radiograph.mean() + 1, np.float32) for radiograph in radiographs])

    loaded = []

    def load_encoder(models, *, device):
        loaded.append(device)
        return Fake()

    monkeypatch.setattr(silo_app.encoder.embed, "load_encoder", load_encoder)
    return loaded


def test_a_build_drops_from_milvus_what_was_taken_out(stocked_kit, make_dicom, make_picture, devices, capsys):
    from silo_app.config import load
    from silo_app.imaging.ingest import ingest
    from silo_app.imaging.recall import Subject, recall
    from silo_app.index.storage import Storage

    source = stocked_kit.kit.parent / "more"
    source.mkdir()
    for patient in "AB":
        picture = make_picture(24, 20, seed=ord(patient))
        (source / f"{patient}.dcm").write_bytes(make_dicom(picture, PatientID=patient, StudyInstanceUID=f"1.{ord(patient)}"))
    settings = stocked_kit.kit / "local" / "silo.yaml"
    content = yaml.safe_load(settings.read_text(encoding="utf-8"))
    content |= {"sources": [{"path": str(source)}], "index": {"held_in": "milvus", "milvus": {"uri": "milvus.db"}}}
    settings.write_text(yaml.safe_dump(content), encoding="utf-8")
    home = load(stocked_kit.kit)
    ingest(home, workers=1)
    assert run("index", "build", "--silo", home.kit) == 0
    recall(home, Subject(patient_id="B"), user="u", reason="consent")
    capsys.readouterr()
    assert run("index", "build", "--silo", home.kit, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["data"]["views"] == 1
    assert len(Storage.of(home).collections()) == 1
    assert [path.name for path in home.index.glob("0*")] == ["000002"]


def test_an_index_without_what_nobody_can_read_says_whose_it_is(stocked_kit, make_dicom, make_picture, devices, capsys):
    from silo_app.catalogue import Catalogue, SiloKey
    from silo_app.config import load
    from silo_app.imaging.cache import RadiographCache
    from silo_app.imaging.ingest import ingest

    source = stocked_kit.kit.parent / "more"
    source.mkdir()
    for name in "ab":
        (source / f"{name}.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=ord(name))))
    settings = stocked_kit.kit / "local" / "silo.yaml"
    content = yaml.safe_load(settings.read_text(encoding="utf-8")) | {"sources": [{"path": str(source)}]}
    settings.write_text(yaml.safe_dump(content), encoding="utf-8")
    home = load(stocked_kit.kit)
    ingest(home, workers=1)
    digest = SiloKey.load(home.key).contents.name((source / "a.dcm").read_bytes())
    with Catalogue.open(home.catalogue) as catalogue:
        case = catalogue.case_of_digest(digest)
    RadiographCache(home.cache).discard(digest)
    (source / "a.dcm").unlink()
    assert run("index", "build", "--silo", home.kit, "--format", "json") == 0
    printed = capsys.readouterr()
    built = json.loads(printed.out)["data"]
    assert (built["views"], built["lacking"]) == (1, 1)
    assert f"1 images are not searchable: the cache lacks them, and their source does not give them now (cases {case})" in (
        printed.err
    )
    assert str(case) not in printed.out, "jobs/index sends this to the server"


def test_index_build_and_status(stocked_kit, image, devices, capsys):
    from silo_app.imaging.ingest import ingest

    ingest(stocked_kit, workers=1)
    assert run("index", "build", "--silo", stocked_kit.kit, "--format", "json") == 0
    assert devices == ["auto"], "as training.device of silo.yaml says"
    built = json.loads(capsys.readouterr().out)["data"]
    assert (built["cases"], built["embedded"], built["reused"], built["generation"]) == (1, 1, 0, "000001")
    assert not built["taken"]
    assert run("index", "build", "--silo", stocked_kit.kit) == 0
    printed = capsys.readouterr()
    assert "1 cases, 1 views (0 embedded, 1 taken over)" in printed.out
    assert "No index process of this silo runs: `silo serve` starts it." in printed.err
    assert run("index", "status", "--silo", stocked_kit.kit, "--format", "json") == 0
    status = json.loads(capsys.readouterr().out)["data"]
    assert (status["not_indexed"], status["fits_encoder"], status["damaged"]) == (0, False, [])
    assert status["left_in_milvus"] == []
