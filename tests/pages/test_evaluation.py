"""The page of an evaluation: every figure beside its floor, who is missing, and drawings that say what they are."""

import re
import xml.etree.ElementTree as ET

import pytest

from silo_app.encoder.evaluation_record import EvaluationRecord
from silo_app.pages.diagonal import Points, diagonal
from silo_app.pages.evaluation import evaluation_page
from silo_app.pages.intervals import Mark, Row, intervals
from tests.encoder.evaluation_answers import answer, figures, finding


def page(**silos):
    return evaluation_page(EvaluationRecord(silos=silos, refused={"d": "No <b>."}, missing={"e": "late"}).content())


def two_bins():
    bins = [
        {"start": 0, "stop": 6, "views": 25, "present": 10, "predicted": 0.2},
        {"start": 6, "stop": 10, "views": 25, "present": 10, "predicted": 0.7},
    ]
    halves = [
        {"start": 0, "stop": 60, "views": 15, "patients": 8},
        {"start": 60, "stop": 100, "views": 15, "patients": 7},
    ]
    return {"Pneumonia": finding() | {"absent_scores": halves, "reliability": bins}}


def test_the_page_shows_figures_beside_floors_and_who_is_missing():
    text = page(a=answer(), b=answer(encoder="c" * 32))
    for words in (
        "image statistics' AUC",
        "raw pixels",
        "+0.050",
        "<b>d</b> did not tell: No &lt;b&gt;.",
        "<b>e</b> did not answer (late)",
        "Not pooled, because it uses another encoder: <b>b</b>",
        "sensitivity at specificity 0.9",
        "<b>a</b> alone: 8 rounds of 1 pass over its images, batches of 32, learning rate 0.001; otherwise than the encoder",
    ):
        assert words in text
    assert "<td>sex F</td>" in text
    assert not re.search(r"https?://|<script", text)


def test_own_networks_have_a_table_where_a_silo_has_one():
    assert "Own networks" not in page(a=answer(), b=answer())
    text = page(a=answer(own={"Pneumonia": figures(8, 9)}), b=answer())
    table = text[text.index("<h2>Own networks</h2>") :].split("</section>")[0]
    assert table.count("<td>a</td>") == 1
    assert "<td>b</td>" not in table


def test_a_reliability_diagram_needs_more_than_one_bin():
    assert "Reliability" not in page(a=answer())
    assert "Reliability: Pneumonia" in page(a=answer(findings=two_bins()))


def test_a_record_without_answers_is_a_page_too():
    assert "Evaluation in 0 silos" in page()


@pytest.mark.parametrize(
    "drawing",
    [
        intervals("a <b>", [Row("x & y", [Mark("s", 0, 0.3, 0.2, 0.4), Mark("all", None, 1.0)])], axis="AUC", chance=0.5),
        diagonal("a <b>", [Points("s & t", 9, [(0.0, 0.1), (1.0, 1.0)])]),
    ],
)
def test_drawings_are_sound_and_stay_inside(drawing):
    root = ET.fromstring(str(drawing))  # noqa: S314  (our own drawing)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert root.attrib["aria-label"] == "a <b>"
    for one in root.iter():
        for name, edge in (("x1", width), ("x2", width), ("cx", width), ("y1", height), ("cy", height)):
            if name in one.attrib:
                assert 0 <= float(one.attrib[name]) <= edge
