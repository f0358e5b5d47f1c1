"""The report: everything that happened is on it, what did not happen is said, and nothing else gets in or out."""

import dataclasses
import html
import itertools
import json
import re
import stat
from html.parser import HTMLParser

import pytest

from provisioning.report import facts as f
from provisioning.report.page import case_mix, render, write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }} $x$"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another element"

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def page(demo_page):
    return Page(demo_page)


def test_every_hospital_is_on_the_page_with_its_counts(page, demo_facts):
    for silo in demo_facts.silos:
        assert silo.display_name in page.text
        assert f"patients {silo.patients}" in page.text
        for reason, count in silo.refused.items():
            assert f"{count} {reason}" in page.text


def test_the_headlines_stand_beside_what_they_are_compared_to(page):
    assert "9.9 MB encrypted update of a hospital, last round 28.1 MB as plain float32" in reordered(page.text)
    assert "0.63 precision of the first 10 hits 0.31 by raw pixels, the best floor" in reordered(page.text)


def reordered(text: str) -> str:
    """The page's tiles have the label first in the source (a definition list), and the figure first on the screen."""
    for label, figure in (
        ("encrypted update of a hospital, last round", "9.9 MB"),
        ("precision of the first 10 hits", "0.63"),
    ):
        text = text.replace(f"{label} {figure}", f"{figure} {label}")
    return text


def test_every_silo_has_its_state_in_every_search(page, demo_facts):
    for search in demo_facts.searches:
        assert search.title in page.text
    assert "Hospital C unreachable 3 ms · no connection" in page.text
    assert page.text.count("answered 14 ms") == len(demo_facts.searches)


def test_what_other_hospitals_have_behind_the_nearest_has_a_list_of_its_own(page, demo_facts, bare_facts):
    assert page.text.count("Behind these, in the other hospitals") == len(demo_facts.searches)
    assert "Behind these" not in Page(render(bare_facts)).text


def test_hits_show_what_was_released_and_say_what_was_not(page):
    assert "Effusion, Cardiomegaly" in page.text
    assert "findings not released or not known" in page.text
    assert "this silo's policy releases no image" in page.text


def test_everything_that_may_be_missing_is_said_with_its_reason(bare_facts):
    text = Page(render(bare_facts)).text
    for what in ("learning", "training", "search", "evaluation", "encoder", "check", "picture"):
        assert f"the {what} step was left out" in text
    assert "Case mix: missing." in text
    assert "Seconds by phase: missing." in text
    assert "AUC together" not in text


def test_a_number_that_is_not_known_is_not_a_zero(page):
    assert "mean of the hospitals alone not known" in page.text  # one hospital's training failed
    assert "raw pixels (floor) not known" in page.text
    assert "missing: training ended with an error" in page.text


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (f.DataKind.SYNTHETIC, "Synthetic data"),
        (f.DataKind.REAL, "Real images: handle this file as you handle them."),
        (f.DataKind.MIXED, "Some of the images are real"),
    ],
)
def test_the_page_says_at_its_top_whether_the_images_are_real(light_facts, kind, sentence):
    page = Page(render(dataclasses.replace(light_facts, run=dataclasses.replace(light_facts.run, data=kind))))
    assert 0 <= page.text.index(sentence) < page.text.index("What each hospital holds")


def test_switched_off_encryption_is_loud(demo_facts):
    traffic = dataclasses.replace(demo_facts.traffic, encryption="none")
    text = Page(render(dataclasses.replace(demo_facts, traffic=traffic))).text
    assert "the server saw every hospital's update" in text
    assert "UNENCRYPTED" in text


def test_hostile_text_stays_text(demo_facts):
    silo = dataclasses.replace(
        demo_facts.silos[0],
        display_name=HOSTILE,
        devices={HOSTILE: 1},
        refused={HOSTILE: 1},
        findings=(f.FindingCount(finding=HOSTILE, present=1, absent=0, unknown=0),),
        pictures=(f.Picture(b"", HOSTILE),),
    )
    learning = dataclasses.replace(demo_facts.learning, measure=HOSTILE, floors={HOSTILE: 0.5})
    check = f.Check(HOSTILE, f.CheckOutcome.FAILED, HOSTILE)
    hostile = dataclasses.replace(demo_facts, silos=(silo, *demo_facts.silos[1:]), learning=learning, checks=(check,))
    page = Page(render(hostile))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]
    assert "49" not in page.texts
    assert page.text.count(" ".join(HOSTILE.split())) >= 6


def test_the_page_loads_nothing_from_a_network(page, demo_page):
    addresses = page.attributes("src") + page.attributes("href") + page.attributes("xlink:href")
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:image/png;base64,", "#"))] == []
    text = demo_page
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", text)) == []
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in html.unescape(text)


def test_ids_are_unique_and_references_lead_to_them(page):
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [a.removeprefix("#") for a in page.attributes("href") + page.attributes("xlink:href") if a.startswith("#")]
    targets += page.attributes("aria-labelledby") + page.attributes("aria-describedby")
    assert set(targets) <= set(ids)


def test_the_page_can_be_read_without_seeing_it(page):
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert "federated: all hospitals together" in page.text  # a legend in words
    assert page.text.count("The numbers") == 3  # a table behind every chart


def test_colours_are_the_pages_own_so_that_dark_and_paper_work(demo_page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", demo_page, re.DOTALL))
    assert "var(--accent)" in drawings
    assert re.findall(r"(?:stroke|fill): #(?!none)", drawings) == []


def test_the_facts_beside_the_page_hold_everything_but_pixels(demo_facts, demo_page, tmp_path):
    path = write_report(demo_facts, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == demo_page
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["schema_version"] == 1
    assert [silo["name"] for silo in content["facts"]["silos"]] == ["hospital-a", "hospital-b", "hospital-c"]
    assert content["facts"]["learning"]["alone"]["hospital-c"] == {"missing": "training ended with an error"}
    assert content["facts"]["run"]["data"] == "synthetic"
    picture = demo_facts.silos[0].pictures[0]
    assert content["facts"]["silos"][0]["pictures"][0] == {"alt": picture.alt, "png_bytes": len(picture.png)}


@pytest.mark.parametrize(("kind", "mode"), [(f.DataKind.SYNTHETIC, 0o644), (f.DataKind.REAL, 0o600)])
def test_a_report_with_real_images_is_private(light_facts, tmp_path, kind, mode):
    facts = dataclasses.replace(light_facts, run=dataclasses.replace(light_facts.run, data=kind))
    path = write_report(facts, tmp_path / "report.html")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE(path.with_suffix(".json").stat().st_mode) == mode


def test_no_finding_is_known_of_every_view_with_a_label(demo_facts):
    """A catalogue counts it as present or unknown, never as absent."""
    healthy = f.FindingCount(finding="No Finding", present=30, absent=0, unknown=270)
    silo = dataclasses.replace(demo_facts.silos[0], findings=(healthy,), views=300, unlabelled=20)
    assert case_mix((silo,)) == {"No Finding": {"hospital-a": (30, 280)}}


def test_the_case_mix_leaves_out_what_nobody_has(demo_facts):
    mix = case_mix(demo_facts.silos)
    assert list(mix) == ["Effusion", "Pneumothorax", "Nodule"]
    assert mix["Effusion"] == {"hospital-a": (60, 120), "hospital-b": (30, 160), "hospital-c": (7, 277)}
