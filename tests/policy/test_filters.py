"""Filters: what they ask about, and that what is not known does not hold."""

import pytest
from pydantic import ValidationError

from silo_app.cases import CaseId, Finding, PatientKey, Sex, Split, View, ViewPosition
from silo_app.policy.filters import Filters

VIEW = View(
    digest="0" * 64,
    case=CaseId("c"),
    patient=PatientKey("p"),
    split=Split.TRAIN,
    position=ViewPosition.PA,
    sex=Sex.FEMALE,
    age=47,
    study_year=2019,
    findings={Finding.PNEUMONIA: True, Finding.MASS: False},
)


@pytest.mark.parametrize(
    ("fields", "asked", "holds"),
    [
        ({}, set(), True),
        ({"positions": ("PA", "AP")}, {"position"}, True),
        ({"positions": ("LATERAL",)}, {"position"}, False),
        ({"sexes": ("M",)}, {"sex"}, False),
        ({"age_bands": ("40-49",)}, {"age_band"}, True),
        ({"age_bands": ("0-9", "90+")}, {"age_band"}, False),
        ({"year_from": 2019, "year_to": 2019}, {"study_year"}, True),
        ({"year_to": 2018}, {"study_year"}, False),
        ({"present": ("Pneumonia",), "absent": ("Mass",)}, {"findings"}, True),
        ({"present": ("Mass",)}, {"findings"}, False),
        ({"absent": ("Effusion",)}, {"findings"}, False),  # unknown is not absent
        ({"positions": ("PA",), "sexes": ("M",)}, {"position", "sex"}, False),
    ],
)
def test_what_they_ask_about_and_whether_they_hold(fields, asked, holds):
    filters = Filters(**fields)
    assert (filters.fields, filters.holds(VIEW), bool(filters)) == (asked, holds, bool(asked))


@pytest.mark.parametrize(
    "fields",
    [
        {"present": ("Mass",), "absent": ("Mass",)},
        {"year_from": 2020, "year_to": 2019},
        {"age_bands": ("45-54",)},
        {"age_bands": ("40-79",)},
        {"age_bands": ("00-09",)},
        {"positions": ("SIDEWAYS",)},
        {"present": ("Pneumonia",) * 33},
        {"patient": "p"},
    ],
)
def test_what_cannot_hold_or_is_no_field_of_a_card_is_refused(fields):
    with pytest.raises(ValidationError):
        Filters(**fields)


def test_a_word_that_is_said_twice_is_said_once():
    twice = {
        "positions": ("PA", "AP", "PA"),
        "sexes": ("F", "F"),
        "age_bands": ("40-49", "40-49"),
        "present": ("Mass", "Mass"),
        "absent": ("Hernia", "Effusion", "Hernia"),
    }
    once = {name: tuple(dict.fromkeys(words)) for name, words in twice.items()}
    assert Filters(**twice) == Filters(**once)
