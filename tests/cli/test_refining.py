"""`silo search` by case, UID, region and examples, `--why`, and `silo explain`: a real encoder, over a real socket."""

import json
import stat

import numpy as np
import pytest
import typer

from silo_app.catalogue import Catalogue
from silo_app.cli import edge
from silo_app.cli import explain as explain_command
from silo_app.cli import index as index_command
from silo_app.cli import search as search_command
from silo_app.encoder import checkpoint
from silo_app.encoder.embed import load_encoder
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.places import region_embedding
from silo_app.encoder.region import Region
from silo_app.encoder.spec import EncoderSpec
from silo_app.identity import Identity
from silo_app.imaging.cache import RadiographCache, as_cached
from silo_app.imaging.ingest import ingest
from silo_app.imaging.radiograph import read_radiograph
from silo_app.search import local
from silo_app.search.envelope import peek_request, reveal, seal_reply
from silo_app.search.messages import (
    ReleasedHit,
    Sealed,
    SearchResult,
    SiloAnswer,
    SiloReport,
    Silos,
    SiloState,
    Who,
)
from silo_app.search.own_encoder import own_encoder
from silo_app.search.rocchio import Weights, refined
from silo_app.search.sealed import Broadcast
from silo_app.search.wire import decode, encode

UID = "1.2.826.0.1.31415926"
SPEC = EncoderSpec(backbone="densenet-small", input_size=32, embedding_dim=16)

app = typer.Typer()
app.command("search")(search_command.search)
app.command("explain")(explain_command.explain)
app.command("index-build")(index_command.build)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [str(argument) for argument in arguments])
    return ended.value.code


class Asked:
    """A silo with one case, and the frames that it sent; the one silo that answers, itself, finds that case and another."""

    def __init__(self, home, file):
        self.home, self.file, self.frames, self.requests = home, file, [], []
        self.kit, self.identity = home.kit, Identity.load(home.kit)
        with Catalogue.open(home.catalogue) as catalogue:
            (self.case,) = [view.case for view in catalogue.views()]
        self.encoder = load_encoder(home.models)

    def reply(self, frame):
        message = decode(frame, Broadcast, Who)
        if isinstance(message, Who):
            return encode(Silos(silos=("north",), at_ms=0, vouchers={"north": self.identity.session.voucher}))
        frame = message.frame
        self.frames.append(frame)
        request = reveal(self.identity, frame, peek_request(frame), message.keys["north"])
        self.requests.append(request)
        common = {"query_id": request.query_id, "encoder_version": request.encoder_version}
        hits = tuple(ReleasedHit(case=case, score=0.9, card={"findings": {}}) for case in sorted((self.case, "c" * 32)))
        answer = SiloAnswer(**common, silo="north", generation="000001", indexed=2, hits=hits)
        report = SiloReport(silo="north", state=SiloState.ANSWERED, took_ms=1.0)
        sealed = Sealed(silo="north", content=seal_reply(self.identity, frame, answer))
        return encode(SearchResult(**common, k=request.k, hits=(), silos=(report,), sealed=(sealed,)))

    @property
    def vector(self):
        return self.requests[-1].embedding

    def own(self, path=None):
        return self.encoder.file(path or self.file)


@pytest.fixture
def asked(stocked_kit, make_dicom, make_picture, tmp_path):
    file = tmp_path / "source" / "one.dcm"
    file.write_bytes(make_dicom(make_picture(seed=7), SOPInstanceUID=UID, StudyInstanceUID=f"{UID}.2"))
    ingest(stocked_kit, workers=1)
    models = stocked_kit.models
    checkpoint.set_current(models, checkpoint.save(models, SPEC, to_vector(build(SPEC, 1)), {}))
    silo = Asked(stocked_kit, file)
    server = local.FrameServer(stocked_kit.gateway_socket, silo.reply)
    server.start()
    yield silo
    server.close()


@pytest.fixture
def other(make_dicom, make_picture, tmp_path):
    file = tmp_path / "other.dcm"
    file.write_bytes(make_dicom(make_picture(seed=8)))
    return file


def test_a_uid_is_searched_with_its_image_and_goes_nowhere(asked, capfd):
    for uid in (UID, f"{UID}.2"):
        assert run("search", "--uid", uid, "--silo", asked.kit, "--format", "json") == 0
        assert np.allclose(asked.vector, asked.own(), atol=1e-5)
    output = capfd.readouterr()
    hits = json.loads(output.out.splitlines()[-1])["data"]["hits"]
    assert [hit["case"] for hit in hits] == ["c" * 32]
    everything = output.out + output.err + asked.home.audit.read_text() + repr(asked.frames)
    assert UID not in everything


def test_a_case_is_searched_with_its_image_and_is_no_hit(asked, capsys):
    assert run("search", "--case", asked.case[:8], "--silo", asked.kit) == 0
    assert np.allclose(asked.vector, asked.own(), atol=1e-5)
    assert peek_request(asked.frames[-1]).k == 11  # one more than asked for, of which the case itself is left out
    assert asked.case[:8] not in capsys.readouterr().out


def test_more_and_less_move_what_is_sent(asked, other):
    options = ("--more", other, "--less-case", asked.case[:8], "--more-weight", "0.5", "--less-weight", "0.25")
    assert run("search", asked.file, "--silo", asked.kit, *options) == 0
    expected = refined(asked.own(), [asked.own(other)], [asked.own()], Weights(more=0.5, less=0.25))
    assert np.allclose(asked.vector, expected, atol=1e-5)


def test_a_region_is_what_is_sent(asked):
    assert run("search", asked.file, "--silo", asked.kit, "--region", "0.5,0,1,0.5") == 0
    expected = region_embedding(asked.encoder, as_cached(read_radiograph(asked.file)), Region(0.5, 0, 1, 0.5))
    assert np.allclose(asked.vector, expected, atol=1e-5)
    assert not np.allclose(asked.vector, asked.own(), atol=1e-3)


def test_why_is_drawn_into_the_page_which_only_its_owner_reads(asked, other, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run("search", other, "--silo", asked.kit, "--html", page, "--why", "--region", "0,0,0.5,0.5") == 0
    content = page.read_text()
    assert content.count('src="data:image/') == 4
    assert 'class="frame"' in content
    assert "Asked for care, among all cases, by the region 0,0,0.5,0.5 of the image." in content
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    shown = json.loads(asked.home.audit.read_text().splitlines()[-1])
    assert (shown["event"], shown["cases"]) == ("shown", [asked.case])
    assert "wrote" in capsys.readouterr().err


def test_a_hit_whose_image_is_not_in_the_cache_is_named_and_costs_no_page(asked, other, tmp_path, capsys):
    page, cache = tmp_path / "page.html", RadiographCache(asked.home.cache)
    for digest in list(cache.digests()):
        cache.discard(digest)
    assert run("search", other, "--silo", asked.kit, "--html", page, "--why") == 0
    assert asked.case[:8] in page.read_text()
    assert "2 of this silo's 2 hits are not explained" in " ".join(capsys.readouterr().err.split())


def test_without_a_hit_of_the_own_silo_there_is_nothing_to_explain(asked, tmp_path):
    page = tmp_path / "page.html"
    assert run("search", "--case", asked.case, "--silo", asked.kit, "--html", page, "--why") == 0
    assert 'src="data:image/' not in page.read_text()


def test_what_cannot_be_asked_says_so_and_sends_nothing(asked, capsys):
    for arguments, says in (
        ([], "say what is sought once"),
        (["FILE", "--case", "3f9c21aa"], "say what is sought once"),
        (["FILE", "--why"], "name its file with --html"),
        (["FILE", "--region", "0,0,2,2"], "no part of an image"),
        (["FILE", "--more-weight", "-1"], "more-weight"),
        (["FILE", "--more-case", "3f9c21aa"], "no case of this silo begins with 3f9c21aa"),
        (["--uid", "1.2.3"], "no image and no study with this UID"),
        (["FILE", "--less", "FILE", "--less-weight", "1"], "cancel"),
    ):
        given = [asked.file if argument == "FILE" else argument for argument in arguments]
        assert run("search", *given, "--silo", asked.kit) == 2, arguments
        assert says in " ".join(capsys.readouterr().err.split())
        assert asked.frames == []


def test_a_page_that_cannot_be_written_is_named_before_anything_is_read(asked, other, tmp_path, capsys):
    for page in (tmp_path, tmp_path / "none" / "why.html"):
        assert run("explain", asked.file, other, "--silo", asked.kit, "--html", page) == 2
        printed = capsys.readouterr()
        assert "config-invalid" in printed.err
        assert printed.out == ""


def test_two_files_are_explained(asked, other, tmp_path, capsys):
    page = tmp_path / "explained.html"
    assert run("explain", asked.file, other, "--silo", asked.kit, "--html", page, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["similarity"] == pytest.approx(float(asked.own() @ asked.own(other)), abs=1e-5)
    for name in ("first", "second"):
        assert np.shape(data[name]) == (2, 2)
        assert np.mean(data[name]) == pytest.approx(data["similarity"], abs=1e-5)
    assert page.read_text().count('src="data:image/') == 4
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert run("explain", asked.file, other, "--silo", asked.kit) == 0
    assert f"similarity {data['similarity']:.4f}" in capsys.readouterr().out


def test_two_files_are_explained_without_the_look_as_a_search_compares_them(asked, other, capsys):
    spec = SPEC.model_copy(update={"looks": "removed"})
    version = checkpoint.save(asked.home.models, spec, to_vector(build(spec, 1)), {})
    checkpoint.set_current(asked.home.models, version)
    assert run("explain", asked.file, other, "--silo", asked.kit) == 1
    assert "silo index build" in capsys.readouterr().err
    assert run("index-build", "--silo", asked.kit) == 0
    capsys.readouterr()
    assert run("explain", asked.file, other, "--silo", asked.kit, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    searched = own_encoder(asked.home)
    assert data["similarity"] == pytest.approx(float(searched.file(asked.file) @ searched.file(other)), abs=1e-4)
    plain = load_encoder(asked.home.models)
    assert data["similarity"] != pytest.approx(float(plain.file(asked.file) @ plain.file(other)), abs=1e-3)
