"""What people type to narrow a search."""

import pytest
import typer

from silo_app.cases import Finding, Sex, ViewPosition
from silo_app.cli.narrowing import among, filters_of
from silo_app.policy.filters import Filters


def test_nothing_typed_is_no_filter():
    assert filters_of() == Filters()


def test_everything_typed():
    assert filters_of(
        views=[ViewPosition.PA], sexes=[Sex.MALE], ages="40-69", years="2015-", present=["pneumothorax"], absent=["EFFUSION"]
    ) == Filters(
        positions=("PA",),
        sexes=("M",),
        age_bands=("40-49", "50-59", "60-69"),
        year_from=2015,
        present=(Finding.PNEUMOTHORAX,),
        absent=(Finding.EFFUSION,),
    )


@pytest.mark.parametrize(
    ("ages", "bands"), [("80-", ("80-89", "90+")), ("-19", ("0-9", "10-19")), ("90-", ("90+",)), ("0-9", ("0-9",))]
)
def test_ages_are_decades(ages, bands):
    assert filters_of(ages=ages).age_bands == bands


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"ages": "45-60"}, "decades"),
        ({"ages": "40-60"}, "decades"),
        ({"ages": "60-49"}, "decades"),
        ({"ages": "old"}, "whole decades"),
        ({"years": "-"}, "2015-2020"),
        ({"years": "2015"}, "2015-2020"),
        ({"years": "2020-2015"}, "end before"),
        ({"years": "20-"}, "1900"),
        ({"present": ["Broken heart"]}, "Pneumothorax"),
        ({"present": ["Mass"], "absent": ["mass"]}, "present and absent"),
    ],
)
def test_what_cannot_be_meant_is_said(typed, said):
    with pytest.raises(typer.BadParameter, match=said):
        filters_of(**typed)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "among all cases"),
        ({"present": ["Pneumothorax"]}, "among cases with Pneumothorax"),
        (
            {"present": ["Mass", "Nodule", "Effusion"], "absent": ["Hernia", "Edema"]},
            "among cases with Mass, Nodule and Effusion, without Hernia or Edema",
        ),
        (
            {"views": [ViewPosition.PA, ViewPosition.AP], "sexes": [Sex.FEMALE], "ages": "40-59"},
            "among cases of the view PA or AP, of the sex F, of the ages 40-49 or 50-59",
        ),
        ({"years": "2015-2020"}, "among cases from 2015 on, up to 2020"),
        ({"years": "2015-"}, "among cases from 2015 on"),
    ],
)
def test_what_is_looked_among_is_said_in_words(given, said):
    assert among(filters_of(**given)) == said
