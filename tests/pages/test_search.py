"""The page of a search says who answered before it shows anything, and nothing that was not released."""

import re
from html import unescape

import pytest

from silo_app.pages.search import search_page


def hit(number, silo="st-anna", findings=None):
    card = {"position": "PA", "sex": None, "age_band": "40-49", "study_year": None, "findings": findings or {}}
    return {"silo": silo, "case": f"{number:032x}", "score": 0.9, "card": card}


def report(silo, state="answered", public=""):
    return {"silo": silo, "state": state, "code": "", "public": public, "took_ms": 12.0, "indexed": 20, "released": 2}


def page(hits=(), silos=(), *, elsewhere=(), private=False, pictures=(), unheard="", **told):
    data = {
        "hits": list(hits),
        "elsewhere": list(elsewhere),
        "silos": list(silos),
        "encoder_version": "ab" * 20,
        "k": 10,
        "took_us": 1,
        "query_id": "0" * 32,
        "unheard": unheard,
    }
    return search_page(data, private=private, pictures=pictures, **told)


def words(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html.partition("</style>")[2]).split())


def test_hospitals_that_did_not_answer_are_named_first():
    text = words(
        page([hit(1)], [report("north"), report("west", "late"), report("south", "denied", "Not for this purpose.")])
    )
    assert "1 of 3 hospitals answered" in text
    assert "Not in this list: what west, south hold. There may be more similar cases there." in text
    assert text.index("Not in this list") < text.index("Cases")
    assert "south denied Not for this purpose." in text
    assert "west late This silo did not answer in time." in text


def test_nothing_warns_when_all_answered():
    assert "Not in this list" not in page([hit(1)], [report("north")])


def test_that_nobody_else_was_asked_comes_before_the_cases():
    text = words(page([hit(1)], [report("north")], unheard="The broker is not there."))
    assert "Only this hospital could be asked" in text
    assert "1 of 1" not in text
    assert "Not in this list: what all other hospitals hold. They were not asked: The broker is not there." in text
    assert text.index("Not in this list") < text.index("Cases")


def test_what_a_hospital_keeps_back_is_said_as_far_as_it_tells():
    own = "cases that may be of the query's own patient are kept back, if there are any"
    text = unescape(words(page([hit(1)], [report("north") | {"withheld": None}, report("west") | {"withheld": 2}])))
    assert text.count(own) == 1
    assert "withheld: cases of 2 patients" in text
    assert "does not say whether it has any" in text
    shown = words(page([hit(1)], [report("north") | {"withheld": 0}]))
    assert "kept back" not in shown
    assert "keeps back" not in shown


def test_findings_of_the_neighbours_count_only_those_that_tell():
    hits = [hit(1, findings={"Mass": True}), hit(2, findings={"Mass": False}), hit(3)]
    text = words(page(hits, [report("north")]))
    assert "Mass 1 50 % of 2" in text
    assert "none of those looked for" in text
    assert "not told" in text


def test_no_finding_is_told_by_every_case_of_which_any_finding_is():
    found = [hit(number, findings={"Mass": True}) for number in range(9)]
    text = words(page([*found, hit(9, findings={"No Finding": True, "Mass": False}), hit(10)], [report("north")]))
    assert "Mass 9 90 % of 10" in text
    assert "No Finding 1 10 % of 10" in text


def test_the_image_asked_with_is_marked_and_not_counted():
    own = hit(1, findings={"Mass": True}) | {"score": 1.0}
    others = [hit(2, findings={"Mass": False}), hit(3, silo="south", findings={"Mass": True}) | {"score": 1.0}]
    text = words(page([own, *others], [report("st-anna")], own="st-anna"))
    assert "Mass 1 50 % of 2" in text
    assert "without the image asked with itself" in text
    assert text.count("(the image asked with)") == 1
    assert "the image asked with" not in words(page(others, [report("st-anna")], own="st-anna"))


def test_the_image_asked_with_is_known_where_its_similarity_does_not_tell_it():
    own = [hit(1, findings={"Mass": True}), hit(2, findings={"Mass": False})]
    others = [hit(1, silo="south", findings={"Mass": True}), hit(3, findings={"Mass": True})]
    text = words(page([*own, *others], [report("st-anna")], own="st-anna", itself=[own[0]["case"]]))
    assert "Mass 2 67 % of 3" in text
    assert text.count("(the image asked with)") == 1
    text = words(page([*own, *others], [report("st-anna")], own="st-anna", itself=[one["case"] for one in own]))
    assert "Mass 2 100 % of 2" in text
    assert "without the images asked with themselves" in text


@pytest.mark.parametrize("private", [True, False])
def test_a_private_search_says_so(private):
    assert ("no other hospital could read it" in page([], [report("north")], private=private)) is private


def test_no_case_is_said_in_words():
    assert "No hospital released a case." in page([], [report("north")])


def test_a_search_that_nobody_answered_is_no_empty_result():
    html = page([], [report("north", "denied"), report("west", "late")], asked_with="Asked for care, among cases with Mass.")
    assert "<title>No hospital answered</title>" in html
    assert "No hospital answered 0 of 2 hospitals answered" in words(html)
    assert "among cases with Mass." in words(html)
    assert "0 similar cases" not in html


def test_what_a_silo_says_is_escaped():
    assert "<script>" not in page([], [report("north", "denied", "<script>alert(1)</script>")])


def test_the_page_loads_nothing():
    assert not re.search(r"(src|href)=|url\(|@import", page([hit(1)], [report("north")]))


def test_a_similarity_is_read_as_a_share_of_random_pairs():
    text = words(page([hit(1) | {"beyond": 99.7}, hit(2) | {"beyond": None}], [report("north")]))
    assert "0.9000 not told 99.7 % st-anna" in text
    assert "0.9000 not told - st-anna" in text
    assert "random pairs" in text


def test_pictures_are_inside_the_page():
    text = page([hit(1), hit(2)], [report("north")], pictures=[b"\xff\xd8jpeg", b""])
    assert re.findall(r"src=\"([^\"]*)\"", text) == ["data:image/jpeg;base64,/9hqcGVn"]
    assert 'alt="the chest radiograph of case 00000000, small"' in text
    assert "<img" not in page([hit(1)], [report("north")], pictures=[b""])


def test_what_other_hospitals_have_behind_the_nearest_is_told_apart_and_counted_with_them():
    nearest, behind = hit(1, findings={"Mass": True}), hit(2, "west", {"Mass": True})
    text = words(page([nearest], [report("st-anna")], elsewhere=[behind]))
    assert "1 similar case, 1 more in other hospitals" in text
    assert "Behind these, in the other hospitals" in text
    assert "Mass 2 100 % of 2" in text
    assert "Behind these" not in page([nearest], [report("st-anna")])
