"""`silo count`: from a DICOM file to numbers over all hospitals; only the other hospitals are left out."""

import errno
import json

import numpy as np
import pytest
import typer

from silo_app.cases import EncoderVersion
from silo_app.cli import count as count_command
from silo_app.cli import edge
from silo_app.encoder import checkpoint
from silo_app.identity import Identity
from silo_app.policy.refusal import RefusalCode
from silo_app.search import local
from silo_app.search.counts.messages import CountAnswer, CountRequest
from silo_app.search.envelope import open_request, reveal, seal_reply, unkeyed
from silo_app.search.messages import Refusal, Relay, Relayed, Silos, SiloState, Who
from silo_app.search.wire import decode, encode

app = typer.Typer()
app.command("count")(count_command.count)
app.command("other")(lambda: None)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def countable(stocked_kit, monkeypatch):
    """A silo with an encoder (a fake: the real one needs torch), and a gateway behind which it is the one that answers."""

    class Fake:
        version, head = "ab" * 16, None

        def file(self, _path):
            return np.ones(16, np.float32)

    import silo_app.encoder.embed

    monkeypatch.setattr(silo_app.encoder.embed, "load_encoder", lambda *_: Fake())
    stocked_kit.models.mkdir(parents=True)
    checkpoint.set_current(stocked_kit.models, EncoderVersion(Fake.version))
    identity = Identity.load(stocked_kit.kit)
    asked: list[CountRequest] = []

    def reply(frame):
        message = decode(frame, Who, Relay)
        if isinstance(message, Who):
            return encode(
                Silos(silos=("east", identity.name, "west"), at_ms=0, vouchers={identity.name: identity.session.voucher})
            )
        if message.silo != identity.name:
            return encode(Relayed(silo=message.silo, state=SiloState.LATE))
        signed, key = unkeyed(message.frame)
        request = reveal(identity, signed, open_request(identity.trust, signed), key)
        asked.append(request)
        common = {"query_id": request.query_id, "silo": identity.name}
        if request.purpose == "teaching":
            answer = Refusal.of(identity.name, RefusalCode.COUNT, query_id=request.query_id)
        else:
            told = {"Pneumothorax": 15, "Mass": None} if request.by_finding else {}
            answer = CountAnswer(
                **common,
                encoder_version=request.encoder_version,
                generation="000001",
                indexed=400,
                min_count=11,
                epsilon=1.0,
                patients=123,
                findings=told,
            )
        content = seal_reply(identity, message.frame, answer)
        return encode(Relayed(silo=identity.name, state=SiloState.ANSWERED, took_ms=12.0, content=content))

    server = local.FrameServer(stocked_kit.gateway_socket, reply)
    server.start()
    yield stocked_kit, asked
    server.close()


@pytest.fixture
def image(tmp_path, make_dicom):
    file = tmp_path / "image.dcm"
    file.write_bytes(make_dicom())
    return file


def test_numbers_and_every_silo_are_printed(countable, image, capsys):
    kit, asked = countable
    assert run("count", image, "--silo", kit.kit, "--by-finding", "--with", "effusion", "--alike", "99.5") == 0
    output = capsys.readouterr().out
    assert "patients: 123 (noise: within 3)" in output
    assert "Pneumothorax  15 (noise: within 3)" in output
    assert "Mass          0 to 10" in output
    assert f"{kit.config.name}: about 123 patients of 400 cases (12 ms)" in output
    assert "east: late" in output
    assert (asked[0].alike, asked[0].filters.present) == (99.5, ("Effusion",))


def test_programs_get_one_envelope(countable, image, capsys):
    kit, _ = countable
    assert run("count", image, "--silo", kit.kit, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["patients"] == {"least": 123, "most": 123, "noise": 3, "silos": 1, "few": []}
    assert data["findings"] == {}
    assert [silo["state"] for silo in data["silos"]] == ["late", "answered", "late"]
    assert data["silos"][1]["told"] == {"min_count": 11, "epsilon": 1.0, "patients": 123, "findings": {}}


def test_a_page_is_written(countable, image, tmp_path):
    kit, _ = countable
    page = tmp_path / "count.html"
    assert run("count", image, "--silo", kit.kit, "--by-finding", "--html", page) == 0
    assert "123 patients with similar cases" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--purpose", "Care", "'Care' is not a word in small letters"),
        ("--user", "x" * 200, "is not a name of at most 128 characters"),
        ("--html", "none/such.html", "no file can be made there"),
    ],
)
def test_mistakes_are_named_before_anything_is_asked(countable, image, capsys, option, value, says):
    kit, asked = countable
    assert run("count", image, "--silo", kit.kit, option, value) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert asked == []
    assert not kit.audit.exists()


def test_a_page_that_fails_costs_no_answer(countable, image, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("silo_app.durable.write_text", full)
    kit, _ = countable
    assert run("count", image, "--silo", kit.kit, "--html", tmp_path / "page.html") == 2
    printed = capsys.readouterr()
    assert "patients: 123" in printed.out
    assert "the page cannot be written: No space left on device" in printed.err


def test_nobody_answering_is_a_status_of_its_own(countable, image, capsys):
    kit, _ = countable
    assert run("count", image, "--silo", kit.kit, "--purpose", "teaching") == 1
    output = capsys.readouterr().out
    assert "denied (count-not-answered, This silo does not answer with counts.)" in output
    assert output.startswith("No hospital counted.")
    page = image.with_name("count.html")
    options = ("--purpose", "teaching", "--with", "Pneumothorax", "--html", page, "--format", "json")
    assert run("count", image, "--silo", kit.kit, *options) == 1
    assert json.loads(capsys.readouterr().out)["data"]["patients"] is None
    assert "Asked for teaching, among cases with Pneumothorax." in page.read_text()


@pytest.mark.parametrize(("option", "value"), [("--alike", "99.99"), ("--similarity", "0.123"), ("--alike", "101")])
def test_what_silos_do_not_compare_is_no_question(countable, image, capsys, option, value):
    kit, asked = countable
    assert run("count", image, "--silo", kit.kit, option, value) == 2
    assert option in capsys.readouterr().err
    assert asked == []
