"""Maps over images, inside the page: what is drawn where, and nothing that is loaded."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from silo_app.cases import CaseId
from silo_app.encoder.region import Region
from silo_app.pages.overlay import layers
from silo_app.pages.search import search_page
from silo_app.pages.why import drawn, explain_page
from silo_app.search.why import Pair, Part
from tests.pages.test_search import hit, report

SHARES = np.array([[0.5, 0.9], [0.9, 1.3]], np.float32)


def part(height=40, width=30, shares=SHARES):
    return Part(np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width), shares)


def opened(url):
    kind, _, content = url.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def page(pairs, region=None):
    data = {
        "hits": [hit(1), hit(2, "other")],
        "elsewhere": [],
        "silos": [report("st-anna")],
        "encoder_version": "ab" * 16,
        "took_us": 1,
    }
    return search_page(data, private=False, why=drawn(pairs, region), asked_with="Asked more like 1 example.")


def test_both_layers_have_the_radiographs_shape_and_the_map_its_colours():
    figure = layers(part().radiograph, SHARES, strongest=0.4)
    (kind, picture), (map_kind, drawing) = opened(figure.picture), opened(figure.map)
    assert (kind, map_kind) == ("data:image/jpeg", "data:image/png")
    assert picture.size == drawing.size == (30, 40)
    pixels = np.asarray(drawing)
    assert pixels.shape == (40, 30, 4)
    below, above = pixels[0, 0], pixels[-1, -1]
    assert below[0] > below[2]
    assert above[2] > above[0]
    assert below[3] == above[3] > 100
    assert pixels[20, 15, 3] < 20  # the mean has no colour
    assert figure.similarity == pytest.approx(0.9)


def test_large_radiographs_are_drawn_smaller():
    figure = layers(part(512, 400).radiograph, SHARES, strongest=0.4)
    assert opened(figure.picture)[1].size == opened(figure.map)[1].size == (300, 384)


def test_a_map_without_differences_has_no_colour():
    figure = layers(part().radiograph, np.full((2, 2), 0.8, np.float32), strongest=0.0)
    assert np.asarray(opened(figure.map)[1])[..., 3].max() == 0


def test_the_page_of_a_search_shows_pairs_beside_their_hit_and_loads_nothing():
    html = page([Pair(CaseId(f"{1:032x}"), part(), part(50, 50))], Region(0.1, 0.2, 0.6, 0.9))
    text = re.sub(r"<[^>]*>", " ", html)
    assert "similarity 0.9000" in text
    assert "2 x 2 places" in text
    assert "Asked more like 1 example." in text
    assert "left: 10.0%; top: 20.0%; width: 50.0%; height: 70.0%" in html
    assert "images of patients" in text
    assert len(re.findall(r'src="data:image/', html)) == len(re.findall(r"(?:src|href)=|url\(|@import", html)) == 4
    assert "<script" not in html


def test_a_query_of_several_images_shows_the_hit_alone():
    html = page([Pair(CaseId(f"{1:032x}"), None, part())])
    assert html.count('src="data:image/') == 2
    assert "the image asked with" not in html


def test_without_pairs_nothing_of_it_is_there():
    html = page([])
    assert "images of patients" not in html
    assert 'type="checkbox"' not in html


def test_two_images_have_a_page():
    data = {"similarity": 0.9, "encoder_version": "ab" * 16, "first": [], "second": []}
    html = explain_page(data, part(), part(50, 50))
    assert "Similarity 0.9000" in html
    assert html.count('src="data:image/') == 4
