"""A silo's answer to a survey: one cell a patient, noise, no small counts, one release repeated, a budget that holds."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.audit.recent import newest_records
from silo_app.cases import Finding, PatientKey, Sex, Split
from silo_app.catalogue import Catalogue, FileRecord, Label, ViewKeys, ViewRecord
from silo_app.config import SurveySettings
from silo_app.errors import NotReady, ReleaseRefused
from silo_app.privacy import survey
from silo_app.privacy.questions import TABLES, exact_counts
from silo_app.privacy.survey import Drawn, drawn_before, noisy, release, renew

BRIGHT = bytes(4 * 24) + (100).to_bytes(4, "little") * 8


def fill(home, patients, *, images=2, brightness=BRIGHT):
    with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
        for patient in patients:
            for image in range(images):
                digest = f"{patient:05d}{image}".ljust(64, "0")
                keys = ViewKeys(
                    instance=digest,
                    study=f"s{patient}",
                    study_uid="u",
                    accession="",
                    patient=PatientKey(f"p{patient}"),
                    patient_id="i",
                )
                sex = Sex.FEMALE if patient % 4 else Sex.MALE
                facts = {"sex": sex, "age": 50 + patient % 3 * 10, "study_year": 2024, "brightness": brightness}
                writer.add_view(
                    ViewRecord(digest=digest, keys=keys, split=Split.TRAIN, source_rows=2000, source_columns=900, **facts)
                )
                writer.record_file(FileRecord(source="/s", path=digest, size=1, mtime_ns=1, recipe="r", digest=digest))
                present = patient % 10 == 0
                writer.relabel({digest: [Label(finding=Finding.MASS, present=present, source="x")]})


@pytest.fixture
def silo(make_silo):
    def make(patients=100, **settings):
        home = make_silo(survey=settings)
        if not home.catalogue.is_file():
            fill(home, range(patients))
        return home

    return make


def test_every_patient_is_in_one_cell_of_every_table(silo):
    with Catalogue.open(silo(100).catalogue) as catalogue:
        counts = exact_counts(catalogue)
    assert set(counts) == {table.name for table in TABLES}
    assert {name: sum(cells) for name, cells in counts.items()} == {t.name: 100 * t.parts for t in TABLES}
    named = {table.name: dict(zip(table.labels, counts[table.name], strict=True)) for table in TABLES}
    assert named["images"]["2"] == 100
    assert named["sex"] == {"F": 75, "M": 25, "O": 0, "U": 0}
    assert named["finding:Mass"] == {"absent": 90, "present": 10, "unknown": 0}
    assert named["finding:Hernia"]["unknown"] == 100
    assert named["size"]["1024-2047"] == 100
    assert named["mean-brightness"]["0.88-0.94"] == 100
    assert sum(counts["brightness"][12:]) == 10_000
    assert named["year"]["2020-2024"] == 100


@pytest.mark.parametrize("patient", [0, 1, 57, 200])
def test_one_patient_more_changes_every_table_by_one(silo, patient):
    """The sensitivity that the noise is made for: in L1, one patient's parts in each table."""
    home = silo(50)
    with Catalogue.open(home.catalogue) as catalogue:
        before = exact_counts(catalogue)
    fill(home, [1000 + patient], images=7)
    with Catalogue.open(home.catalogue) as catalogue:
        after = exact_counts(catalogue)
    for table in TABLES:
        changed = sum(abs(a - b) for a, b in zip(after[table.name], before[table.name], strict=True))
        assert changed == table.parts


def test_exact_counts_hide_small_ones(silo):
    released = release(silo(100, epsilon=None), job="j")
    counts = dict(zip(("absent", "present", "unknown"), released.counts["finding:Mass"], strict=True))
    assert counts == {"absent": 0, "present": 0, "unknown": 0}  # 10 are few, and 90 of 100 would tell them
    assert released.counts["sex"] == [75, 25, 0, 0]
    assert released.epsilon is None


@pytest.mark.parametrize(
    ("dark", "told"), [(0, True), (1, False), (10, False), (11, True), (89, True), (90, False), (100, False)]
)
def test_brightness_does_not_tell_of_how_few_it_is_unknown_or_known(make_silo, dark, told):
    home = make_silo(survey={"epsilon": None})
    fill(home, range(100 - dark))
    fill(home, range(100 - dark, 100), brightness=bytes(len(BRIGHT)))
    released = release(home, job="j")
    assert sum(released.counts["brightness"]) == (100 * (100 - dark) if told else 0)
    hidden = 100 - sum(released.counts["mean-brightness"])
    assert hidden == 0 or hidden >= 11


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(2, 20))
def test_what_is_left_out_cannot_be_computed_from_the_sum(counts, least):
    shown = survey._cells(counts, least, exact=True)
    assert all(count == 0 or count >= least for count in shown)
    assert all(count in {0, true} for count, true in zip(shown, counts, strict=True))
    hidden = sum(counts) - sum(shown)
    assert hidden == 0 or hidden >= least or not any(shown)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(2, 20), st.booleans())
def test_a_stricter_policy_tells_no_more(counts, least, exact):
    loose, strict = (survey._cells(counts, number, exact=exact) for number in (least, least + 5))
    assert {place for place, count in enumerate(strict) if count} <= {place for place, count in enumerate(loose) if count}


def test_noise_is_upon_every_table_and_grows_with_a_smaller_epsilon():
    exact = {table.name: [500] * len(table.labels) for table in TABLES}

    def spread(epsilon):
        cells = [count - 500 for name, counts in noisy(exact, epsilon).items() if name != "brightness" for count in counts]
        return sum(abs(cell) for cell in cells) / len(cells)

    assert spread(0.5) > 3 * spread(5.0) > 0
    assert spread(5.0) == pytest.approx(len(TABLES) / 5.0, rel=0.6)  # the mean of |noise| is about its scale


def test_asking_again_gives_the_same_numbers_whatever_came_in(silo):
    home = silo(100)
    first = release(home, job="1")
    fill(home, range(100, 400))
    assert release(home, job="2") == first
    assert first.spent == first.epsilon == 5.0
    assert [(r["event"], r["job"], r["spent"]) for r in reversed([*newest_records(home.audit)])] == [
        ("survey", "1", 5.0),
        ("survey", "2", 5.0),
    ]
    assert home.survey.stat().st_mode & 0o077 == 0


def aged(home, days):
    content = json.loads(home.survey.read_text())
    content["at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    home.survey.write_text(json.dumps(content))


def test_an_old_release_is_renewed_until_the_budget_is_spent(silo):
    home = silo(100, epsilon=5.0, epsilon_total=12.0, renew_days=7)
    first = release(home, job="j")
    aged(home, 6)
    assert release(home, job="j").counts == first.counts
    aged(home, 8)
    second = release(home, job="j")
    assert (second.spent, second.counts == first.counts) == (10.0, False)
    aged(home, 800)
    third = release(home, job="j")
    assert (third.spent, third.counts) == (10.0, second.counts)


def test_the_owner_may_renew_as_far_as_the_budget_goes(silo):
    home = silo(100, epsilon=5.0, epsilon_total=10.0)
    release(home, job="j")
    assert renew(home).spent == 10.0
    with pytest.raises(ReleaseRefused, match="10 are spent"):
        renew(home)


def test_a_policy_that_became_stricter_holds_at_once(silo):
    exact = release(silo(500, epsilon=None), job="j")
    noisy_one = release(silo(epsilon=5.0), job="j")
    assert noisy_one.counts["patients"] != exact.counts["patients"] or noisy_one.counts["age"] != exact.counts["age"]
    assert release(silo(epsilon=1.0), job="j").spent == 6.0
    with pytest.raises(ReleaseRefused, match="no budget is left"):
        release(silo(epsilon=0.5, epsilon_total=6.2), job="j")
    counts = release(silo(epsilon=1.0, min_count=60), job="j").counts["sex"]
    assert all(count == 0 or count >= 60 for count in counts)


@pytest.mark.parametrize("settings", [{"join": False}, {"epsilon": None, "min_count": 200}])
def test_refusals(silo, settings):
    with pytest.raises(ReleaseRefused):
        release(silo(100, **settings), job="j")


def test_a_refusal_for_too_few_patients_is_in_the_audit_log(silo):
    home = silo(3, epsilon=None)
    with pytest.raises(ReleaseRefused, match="fewer than 11 patients"):
        release(home, job="j")
    assert [record["event"] for record in newest_records(home.audit)] == ["survey-refusal"]


def test_without_a_catalogue_nothing_is_drawn(make_silo):
    home = make_silo()
    with pytest.raises(NotReady):
        release(home, job="j")
    assert not home.survey.exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"counts": {}}', "null"])
def test_a_damaged_record_is_not_taken_for_an_unspent_budget(silo, content):
    home = silo(100)
    home.survey.write_text(content)
    with pytest.raises(NotReady, match="damaged"):
        release(home, job="j")


def test_a_release_is_on_disk_before_it_is_told(silo, monkeypatch):
    home = silo(100)
    monkeypatch.setattr(survey, "write_text", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        release(home, job="j")
    assert drawn_before(home) is None


def test_epsilon_within_the_total():
    with pytest.raises(ValueError, match="not even one release"):
        SurveySettings(epsilon=5, epsilon_total=1)
    assert isinstance(Drawn(at=datetime.now(UTC), epsilon=None, spent=0, counts={}), Drawn)
