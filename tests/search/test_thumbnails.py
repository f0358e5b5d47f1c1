"""Pictures in answers: only where the policy releases them, of pictures that name nobody, of cases that are shown."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from silo_app.catalogue import Catalogue
from silo_app.config import ReleaseSettings, load
from silo_app.errors import MessageInvalid
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.radiograph import Radiograph
from silo_app.policy.release import shows_thumbnail
from silo_app.search.envelope import open_reply, seal, seal_reply
from silo_app.search.messages import (
    MAX_THUMBNAIL,
    Refusal,
    ReleasedHit,
    Sealed,
    SearchResult,
    SiloAnswer,
    SiloReport,
    SiloState,
)
from silo_app.search.server import IndexProcess
from silo_app.search.thumbnails import MOST, illustrated, require_thumbnails, thumbnail
from silo_app.search.verified import verified

SHOWN = "release: {same_patient: show, fields: [findings, thumbnail]}\n"
ENCODER = "ab" * 32


def picture(side=96, mode="L", form="JPEG"):
    file = io.BytesIO()
    Image.new(mode, (side, 8)).save(file, form)
    return file.getvalue()


def answer_with(*thumbnails):
    hits = tuple(ReleasedHit(case=f"{n:032x}", score=0.5, card={}, thumbnail=one) for n, one in enumerate(thumbnails))
    return SiloAnswer(query_id="a" * 32, silo="south", encoder_version=ENCODER, generation="1", indexed=400, hits=hits)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    side=st.integers(64, 128),
    seed=st.integers(0, 9),
    noise=st.booleans(),
)
def test_whatever_the_radiograph_the_picture_passes_the_askers_check(height, width, side, seed, noise):
    pixels = np.random.default_rng(seed).random((height, width), np.float32)
    made = thumbnail(pixels if noise else pixels * 0 + 0.5, side)
    assert 0 < len(made) <= MAX_THUMBNAIL
    require_thumbnails(answer_with(made))
    with Image.open(io.BytesIO(made)) as image:
        assert max(image.size) == min(side, max(height, width))
        assert dict(image.getexif()) == {}
        assert "comment" not in image.info


def test_the_picture_looks_like_the_radiograph():
    pixels = np.zeros((512, 256), np.float32)
    pixels[:256] = 1.0
    with Image.open(io.BytesIO(thumbnail(pixels, 96))) as image:
        seen = np.asarray(image)
    assert seen.shape == (96, 48)
    assert seen[:46].min() > 240
    assert seen[50:].max() < 15


WRONG = {
    "too wide": picture(side=129),
    "colors": picture(mode="RGB"),
    "no JPEG": picture(form="PNG"),
    "half of one": picture()[:-40],
    "no picture": b"<script>alert(1)</script>",
    "a picture of a million lines": picture().replace(b"\x00\x08\x00\x60", b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_small_gray_picture_makes_the_whole_answer_invalid(kind, authority, request_of, sealed):
    assert kind != "a picture of a million lines" or WRONG[kind] != picture()
    with pytest.raises(MessageInvalid):
        require_thumbnails(answer_with(picture(), WRONG[kind]))
    request, north, south = request_of(), authority.identity("north"), authority.identity("south")
    frame = seal(north, request)
    answer = answer_with(WRONG[kind]).model_copy(update={"query_id": request.query_id})
    result = SearchResult(
        query_id=request.query_id,
        encoder_version=ENCODER,
        k=10,
        hits=(),
        silos=(SiloReport(silo="south", state=SiloState.ANSWERED),),
        sealed=(Sealed(silo="south", content=seal_reply(south, frame, answer)),),
    )
    found = verified(north, request, frame, result)
    assert (found.silos[0].state, found.hits) == (SiloState.INVALID, ())


@pytest.mark.parametrize(
    ("fields", "burned_in", "shown"),
    [
        (("thumbnail",), False, True),
        (("thumbnail",), True, False),
        (("thumbnail",), None, False),
        (("findings",), False, False),
    ],
)
def test_a_picture_is_shown_if_the_policy_says_so_and_somebody_looked_at_it(a_view, fields, burned_in, shown):
    view = a_view("c" * 32, burned_in=burned_in)
    assert shows_thumbnail(ReleaseSettings(fields=fields), view) is shown


def test_no_field_of_a_policy_is_a_thumbnail_unless_it_is_named():
    assert "thumbnail" not in ReleaseSettings().fields


def test_only_the_first_hits_have_pictures(a_view, tmp_path):
    RadiographCache(tmp_path).write("0" * 64, Radiograph(np.ones((99, 77), np.float32), None))
    many = answer_with(*[b""] * (MOST + 5))
    rules = ReleaseSettings(fields=("thumbnail",), thumbnail_side=64)
    made = illustrated(many, rules, lambda case: a_view(case, burned_in=False), tmp_path)
    assert [bool(hit.thumbnail) for hit in made.hits] == [True] * MOST + [False] * 5
    assert illustrated(many, ReleaseSettings(), lambda case: a_view(case, burned_in=False), tmp_path) == many
    assert illustrated(many, rules, lambda _: None, tmp_path) == many
    gone = illustrated(many, rules, lambda case: a_view(case, burned_in=False, digest="1" * 64), tmp_path)
    assert gone == many


@pytest.fixture
def asking(stocked, request_of):
    """Start a silo whose pictures are in its cache; ask it as `north`."""
    opened = []

    def start(config):
        silo = stocked("south", config=config)
        cache = RadiographCache(silo.home.cache)
        for number, digest in enumerate(silo.vectors):
            cache.write(digest, Radiograph(np.full((40, 30), number / 20, np.float32), None))
        with Catalogue.open(silo.home.catalogue) as catalogue, catalogue.writing() as writer:
            writer._connection.execute("UPDATE views SET burned_in = 0")
            writer._connection.execute("UPDATE views SET burned_in = 1 WHERE digest = ?", (list(silo.vectors)[1],))
            writer._connection.execute("UPDATE views SET burned_in = NULL WHERE digest = ?", (list(silo.vectors)[2],))
        silo.index()
        process = IndexProcess(load(silo.home.kit))
        opened.append(process)
        north = stocked.federation.identity("north")

        def ask(vector):
            frame = seal(north, request_of(vector, k=20))
            return open_reply(north, "south", frame, process.answer_frame(frame), SiloAnswer, Refusal)

        return silo, ask

    yield start
    for process in opened:
        process.close()


def test_the_index_process_shows_pictures_of_what_names_nobody(asking):
    silo, ask = asking(SHOWN)
    reply = ask(next(iter(silo.vectors.values())))
    with Catalogue.open(silo.home.catalogue) as catalogue:
        cases = {catalogue.case_of_digest(digest): number for number, digest in enumerate(silo.vectors)}
    assert len(reply.hits) == 20
    for hit in reply.hits:
        number = cases[hit.case]
        assert bool(hit.thumbnail) is (number not in {1, 2})
        if hit.thumbnail:
            with Image.open(io.BytesIO(hit.thumbnail)) as image:
                assert np.asarray(image).mean() == pytest.approx(255 * number / 20, abs=2)
    require_thumbnails(reply)
    text = silo.home.audit.read_text()
    assert json.loads(text)["pictures"] == 18
    assert "JFIF" not in text


def test_without_the_field_nothing_is_shown(asking):
    silo, ask = asking("release: {same_patient: show}\n")
    assert not any(hit.thumbnail for hit in ask(next(iter(silo.vectors.values()))).hits)


def test_what_is_kept_back_has_no_picture(asking):
    silo, ask = asking("release: {fields: [thumbnail], min_cases: 1}\n")
    vector = next(iter(silo.vectors.values()))
    with Catalogue.open(silo.home.catalogue) as catalogue:
        own = catalogue.case_of_digest(next(iter(silo.vectors)))
    reply = ask(vector)
    assert own not in {hit.case for hit in reply.hits}
    assert all(np.asarray(Image.open(io.BytesIO(hit.thumbnail))).mean() > 5 for hit in reply.hits if hit.thumbnail)
