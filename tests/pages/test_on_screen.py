"""The pages in a real browser: nothing sticks out on a phone, in light and in dark, and they are not blank.

Needs Debian's chromium (.ci/packages.txt); skipped where it is not installed.
"""

import html
import re

import numpy as np
import pytest
from PIL import Image

from silo_app.cases import CaseId, Finding
from silo_app.cli.survey import as_data
from silo_app.encoder.evaluation_record import EvaluationRecord
from silo_app.encoder.region import Region
from silo_app.pages.catalogue import catalogue_page
from silo_app.pages.count import count_page
from silo_app.pages.evaluation import evaluation_page
from silo_app.pages.search import search_page
from silo_app.pages.survey import survey_page
from silo_app.pages.why import drawn
from silo_app.privacy.questions import TABLES
from silo_app.privacy.result import Answer, SurveyResult
from silo_app.search.thumbnails import thumbnail
from silo_app.search.why import Pair, Part
from tests.encoder.evaluation_answers import answer
from tests.pages.test_evaluation import two_bins
from tests.provisioning.report.test_on_screen import BROWSER, browse

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed (see .ci/packages.txt)")

LONG = "A Manufacturer With A Very Long Name And A Model"


def catalogue():
    return catalogue_page(
        {
            "silo": "hospital-with-a-long-name",
            "patients": 1234,
            "cases": 2345,
            "series": 3456,
            "views": 4567,
            "unlabelled": 17,
            "splits": {"held-out": 900, "train": 3667},
            "positions": {"PA": 4000, "UNKNOWN": 567},
            "sexes": {"F": 2000, "M": 2567},
            "age_bands": {f"{low}-{low + 9}": 400 + low for low in range(0, 90, 10)},
            "study_years": {str(year): 900 for year in range(2019, 2025)},
            "devices": {LONG: 4000, "unknown": 567},
            "sizes": {"2048-3071": 4567},
            "brightness": [1 / 32] * 32,
            "findings": {t.title: {"present": 50, "absent": 4000, "unknown": 517} for t in TABLES if ":" in t.name},
            "refused": {"not-dicom": 3},
            "origins": [{"source": "labels.csv", "read_as": "csv", "sha256": "a" * 64, "since": "2026", "views": 9}],
        }
    )


def survey():
    def answer(scale):
        counts = {t.name: [(place % 5 + 1) * scale * t.parts for place in range(len(t.labels))] for t in TABLES}
        return Answer(counts=counts, min_count=11, epsilon=5.0, spent=10.0, day="2026-11-23")

    silos = {f"hospital-{letter}": answer(50 + 30 * number) for number, letter in enumerate("abcde")}
    return survey_page(as_data(SurveyResult(silos=silos, refused={"hospital-f": "No."}, missing=["hospital-g"])))


def why():
    """A search whose hits are explained: wide and narrow images, side by side."""
    from tests.pages.test_search import hit, report

    shares = np.array([[0.5, 0.9], [0.9, 1.3]], np.float32)
    image = np.linspace(0, 1, 300 * 240, dtype=np.float32).reshape(300, 240)
    pairs = [Pair(CaseId(f"{n:032x}"), Part(image, shares), Part(image.T, shares)) for n in range(4)]
    hits = [hit(n) for n in range(4)]
    data = {"hits": hits, "elsewhere": [], "silos": [report("st-anna")], "encoder_version": "ab" * 16, "took_us": 1}
    return search_page(data, private=False, why=drawn(pairs, Region(0.1, 0.1, 0.5, 0.5)), asked_with="Asked by a region.")


def evaluation():
    silos = {f"hospital-{letter}": answer(findings=two_bins()) for letter in "abcde"}
    return evaluation_page(EvaluationRecord(silos=silos, refused={"hospital-f": "No."}, missing={}).content())


def search():
    card = {
        "position": "PA",
        "sex": "F",
        "age_band": "40-49",
        "study_year": 2019,
        "findings": {"Mass": True, "Hernia": True, "No Finding": False, "Enlarged Cardiomediastinum": True},
    }
    hits = [
        {"silo": "hospital-with-a-long-name", "case": f"{n:032x}", "score": 0.9, "beyond": 99.7, "card": card}
        for n in range(10)
    ]
    silo = {"state": "answered", "code": "", "public": "", "took_ms": 9.0, "indexed": 4567, "released": 10, "withheld": None}
    data = {"hits": hits, "elsewhere": hits[:3], "encoder_version": "ab" * 32, "k": 10, "took_us": 1, "query_id": "0" * 32}
    pixels = np.random.default_rng(0).random((128, 128), np.float32)
    silos = [silo | {"silo": f"hospital-with-a-long-name-{n}"} for n in range(5)]
    return search_page(data | {"silos": silos}, private=False, pictures=[thumbnail(pixels, 128)] * 13)


def count():
    def total(least, most):
        return {"least": least, "most": most, "noise": 7, "silos": 5, "few": []}

    told = {"min_count": 11, "epsilon": 1.0, "patients": 1234, "findings": {}}
    silo = {"state": "answered", "code": "", "public": "", "took_ms": 9.0, "indexed": 4567, "told": told}
    data = {"alike": 95.0, "similarity": 0.5, "encoder_version": "ab" * 32, "took_us": 1, "query_id": "0" * 32}
    silos = [silo | {"silo": f"hospital-with-a-long-name-{n}"} for n in range(12)]
    findings = {finding.value: total(17 * n, 17 * n + 20) for n, finding in enumerate(Finding)}
    return count_page(data | {"silos": silos, "patients": total(12_345, 12_445), "findings": findings})


PAGES = {
    "catalogue": catalogue,
    "survey": survey,
    "search": search,
    "count": count,
    "why": why,
    "evaluation": evaluation,
}


@pytest.mark.parametrize("name", PAGES)
def test_no_part_of_a_page_is_wider_than_a_phone(tmp_path, name):
    measure = """onload = () => { document.title = [...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument.documentElement;
        return frame.width + ":" + (page.scrollWidth - page.clientWidth) + ":" + (page.scrollHeight > 600);
    }).join(" ") }"""
    frames = "".join(
        f'<iframe width="{width}" height="800" frameborder="0" srcdoc="{html.escape(PAGES[name]())}"></iframe>'
        for width in (360, 1280)
    )
    dom = browse(tmp_path, f"<!doctype html><title>-</title>{frames}<script>{measure}</script>", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1] == "360:0:true 1280:0:true"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("survey", "section:first-of-type td, section:first-of-type th"),  # on which terms
        ("search", "section:not(.wide) .bar span"),  # what they have
        ("search", "td.words"),  # the findings of the cases
    ],
)
def test_what_must_be_read_is_within_a_phone(tmp_path, name, parts):
    measure = f"""onload = () => {{
        const page = document.querySelector("iframe").contentDocument;
        const parts = [...page.querySelectorAll("{parts}")];
        const end = part => part.getBoundingClientRect().right;
        const out = parts.filter(part => end(part) > end(part.closest("section")));
        document.title = parts.length + ":" + out.length;
    }}"""
    frame = f'<iframe width="390" height="800" frameborder="0" srcdoc="{html.escape(PAGES[name]())}"></iframe>'
    dom = browse(tmp_path, f"<!doctype html><title>-</title>{frame}<script>{measure}</script>", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert re.fullmatch(r"[1-9]\d*:0", title[1])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("options", [(), ("--force-dark-mode",)], ids=["light", "dark"])
def test_a_screenshot_shows_ink_on_paper(tmp_path, name, options):
    shot = tmp_path / "shot.png"
    browse(tmp_path, PAGES[name](), f"--screenshot={shot}", "--window-size=900,1200", "--hide-scrollbars", *options)
    with Image.open(shot) as image:
        brightness = np.asarray(image.convert("L"), np.float32)
    assert brightness.std() > 10
    assert bool(brightness.mean() > 128) == (not options)


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_and_lines_have_the_contrast_that_wcag_asks_for():
    """4.5 for text, 3 for what a chart's lines and bars must be told by (WCAG 2.2, 1.4.3 and 1.4.11), in both schemes."""
    page = catalogue()
    schemes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    ]
    assert len(schemes) == 2
    for scheme in schemes:
        for name, least in {"ink": 4.5, "muted": 4.5, "accent": 3, **{f"silo-{n}": 3 for n in range(8)}}.items():
            for ground in ("card", "paper"):
                lights = sorted([luminance(scheme[name]), luminance(scheme[ground])])
                assert (lights[1] + 0.05) / (lights[0] + 0.05) >= least, (name, ground)
        lights = sorted([luminance(scheme["warn"]), luminance(scheme["warn-soft"])])
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5
