"""Which cases the catalogue finds for filters: those for whose card they hold, whatever is in it."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import Finding, PatientKey, Sex, Split, ViewPosition
from silo_app.catalogue import Catalogue, ViewKeys, ViewRecord
from silo_app.catalogue.records import Label
from silo_app.policy.filters import AGE_BANDS, Filters

FINDINGS = [Finding.EFFUSION, Finding.MASS, Finding.NO_FINDING]
views = st.tuples(
    st.sampled_from([ViewPosition.PA, ViewPosition.AP, ViewPosition.UNKNOWN]),
    st.sampled_from([Sex.FEMALE, Sex.MALE, Sex.UNKNOWN]),
    st.one_of(st.none(), st.integers(0, 120)),
    st.one_of(st.none(), st.integers(2000, 2004)),
    st.dictionaries(st.sampled_from(FINDINGS), st.booleans()),
    st.integers(0, 5),  # which study
)


def some(values):
    return st.lists(st.sampled_from(values), max_size=3).map(tuple)


@st.composite
def filters(draw):
    first, last = sorted([draw(st.integers(2000, 2004)), draw(st.integers(2000, 2004))])
    present = draw(some(FINDINGS))
    return Filters(
        positions=draw(some(list(ViewPosition))),
        sexes=draw(some(list(Sex))),
        age_bands=draw(some(AGE_BANDS)),
        year_from=first if draw(st.booleans()) else None,
        year_to=last if draw(st.booleans()) else None,
        present=present,
        absent=tuple(finding for finding in draw(some(FINDINGS)) if finding not in present),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(views, max_size=12), st.lists(filters(), min_size=1, max_size=6))
def test_the_catalogue_finds_the_cases_whose_card_the_filters_hold_for(held, asked):
    with tempfile.TemporaryDirectory() as folder, Catalogue.open(Path(folder, "catalogue.db"), create=True) as catalogue:
        with catalogue.writing() as writer:
            for number, (position, sex, age, year, findings, study) in enumerate(held):
                digest, of = f"{number:064x}", f"s{study}"
                keys = ViewKeys(instance=digest, study=of, study_uid=of, accession=of, patient=PatientKey(of), patient_id=of)
                writer.add_view(
                    ViewRecord(
                        digest=digest,
                        keys=keys,
                        split=Split.TRAIN,
                        position=position,
                        sex=sex,
                        age=age,
                        study_year=year,
                        device="",
                    )
                )
                labels = [Label(finding=finding, present=value, source="csv") for finding, value in findings.items()]
                writer.relabel({digest: labels})
        cards = catalogue.cards([view.case for view in catalogue.views()])
        columns = catalogue.card_columns()
        names = [row.tobytes().hex() for row in columns.cases]
        assert names == sorted(cards)
        twice = [Filters(present=(finding,) * 2) for finding in FINDINGS]
        for one in (*asked, *twice, Filters()):
            wanted = sorted(case for case, card in cards.items() if one.holds(card))
            assert [name for name, holds in zip(names, columns.where(one), strict=True) if holds] == wanted
