"""The page of a count: who is not in it, what is open, and no number that was not told."""

import re

from silo_app.pages.count import count_page


def total(least, most, silos=2, noise=3):
    return {"least": least, "most": most, "noise": noise, "silos": silos, "few": []}


def silo(name, patients=None, state="answered", public=""):
    told = {"min_count": 11, "epsilon": 1.0, "patients": patients, "findings": {}} if state == "answered" else None
    return {"silo": name, "state": state, "code": "", "public": public, "took_ms": 1.0, "indexed": 1400, "told": told}


def page(asked="", **changes):
    data = {
        "alike": 95.0,
        "similarity": -1.0,
        "patients": total(1234, 1244),
        "findings": {"Pneumothorax": total(57, 57), "Mass": total(0, 20)},
        "silos": [silo("north", 1234), silo("south"), silo("west", state="denied", public="Not <b>here</b>.")],
        "encoder_version": "ab" * 16,
        "query_id": "a" * 32,
        "took_us": 1,
    }
    return count_page(data | changes, asked_with=asked)


def words(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html.partition("</style>")[2]).split())


def test_ranges_hospitals_and_findings_are_told():
    text = words(page())
    assert "1,234 to 1,244 patients with similar cases" in text
    assert "2 of 3 hospitals answered" in text
    assert "more alike than 95.0 % of random pairs" in text
    assert "Not counted: whoever west holds." in text
    assert "north about 1,234 1,400" in text
    assert "south fewer than 11 1,400" in text
    assert "west Not &lt;b&gt;here&lt;/b&gt;. -" in text
    assert "Pneumothorax 57 2 Mass 0 to 20 2" in text
    assert "within 3 in 95 of 100" in text


def test_a_bar_is_pale_where_nobody_was_told():
    found = {"Mass": total(44, 55), "Pneumothorax": total(20, 20), "Hernia": total(0, 22)}
    bars = re.findall(r'class="bar"><div>(.*?)<span>', page(findings=found))
    lengths = [[float(length) for length in re.findall(r"width: ([\d.]+)%", bar)] for bar in bars]
    assert lengths == [[44.0, 11.0], [20.0], [0.0, 22.0]]
    assert [bar.count('class="absent"') for bar in bars] == [1, 0, 1]
    assert "the pale part of a bar" in words(page())
    assert "pale" not in words(page(findings={}))


def test_without_findings_there_is_no_table_of_them():
    text = words(page(findings={}, similarity=0.4, silos=[silo("north", 50)]))
    assert "What they have" not in text
    assert "Not counted" not in text
    assert "at least 0.40 similar" in text


def test_the_page_loads_nothing():
    assert not re.search(r"(src|href)=|url\(|@import", page())


def test_a_count_that_nobody_told_is_no_zero():
    denied = [silo("north", state="denied", public="Not here."), silo("south", state="late")]
    html = page(patients=None, findings={}, silos=denied)
    assert "<title>No hospital counted</title>" in html
    text = words(html)
    assert "No hospital counted 0 of 2 hospitals answered" in text
    assert "0 patients" not in text
    assert "within" not in text


def test_what_was_asked_is_told():
    assert "among cases with Mass." in words(page(asked="Asked for care, among cases with Mass."))
