"""From what the demo's commands return to the report's facts: nothing is lost, nothing is invented."""

import copy

import pytest

from provisioning.report import Missing, Pictures, facts_of
from provisioning.report import facts as f
from provisioning.report.page import render

SILOS = ("hospital-a", "hospital-b")
OWN = {"train_seconds": 9.0, "encrypt_seconds": 0.5, "open_seconds": 0.1}
MACHINE = f.Machine(processor="p", cores=2, memory_bytes=1, system="s")


def catalogue() -> dict:
    return {
        "patients": 40,
        "cases": 44,
        "views": 50,
        "splits": {"train": 40, "held-out": 10},
        "positions": {"PA": 50},
        "sexes": {"F": 50},
        "devices": {"unknown": 50},
        "findings": {"Effusion": {"present": 10, "absent": 30, "unknown": 10}},
        "unlabelled": 4,
        "refused": {"not-dicom": 2},
    }


ABSENT = {
    1: {"code": "not-ready", "public": "This silo is not ready for this.", "step": "update"},
    2: {"code": "gone", "public": "Its job process was not there.", "step": "update"},
}


def round_record(number: int) -> dict:
    return {
        "round": number,
        "seconds": 12.5,
        "accepted": ["hospital-b"] if number else list(SILOS),
        "quarantined": {"hospital-a": ABSENT[number]} if number else {},
        "upload_bytes": dict.fromkeys(SILOS, 900 - 100 * number),
        "download_bytes": 1800,
    }


def curve(end: float, views: int = 20) -> list[dict]:
    return [{"round": n, "auc": {"Effusion": 0.5 + (end - 0.5) * n / 3, "Nodule": 0.5}, "views": views} for n in range(4)]


def whole() -> dict:
    neighbours = {"queries": 20, "precision": 0.6, "mean_average_precision": 0.55, "own_silo_share": 0.7}
    floor = neighbours | {"precision": 0.3, "mean_average_precision": None}
    hit = {"silo": "hospital-b", "case": "0" * 32, "score": 0.9}
    return {
        "started": "2026-11-23T14:00:00+0000",
        "settings": {"seed": 1, "alpha": 0.5, "data": []},
        "seconds": {"Train": 30.0},
        "data": [{"name": silo, "display_name": silo.title(), "synthetic": True} for silo in SILOS],
        "silos": [{"name": silo, "ingest": {}, "catalogue": catalogue()} for silo in SILOS],
        "training": {
            "job": "j",
            "scores": curve(0.9),
            "own": {silo: dict.fromkeys(range(3), OWN) for silo in SILOS},
            "record": {
                "plan": {"encryption": "bfv"},
                "rounds": [round_record(n) for n in range(3)],
                "finish": {"encoder_versions": dict.fromkeys(SILOS, "ab" * 16)},
            },
        },
        "local": {silo: {"curve": curve(0.7)} for silo in SILOS},
        "search": {
            "asker": "hospital-a",
            "query": "/nowhere/image.dcm",
            "result": {
                "encoder_version": "ab" * 16,
                "took_us": 31_400,
                "hits": [
                    hit | {"card": {"position": "PA", "sex": "F", "age_band": "50-59", "findings": {"Effusion": True}}},
                    hit | {"card": {"position": None, "sex": None, "age_band": None, "findings": {"Effusion": False}}},
                    hit | {"card": {"position": None, "sex": None, "age_band": None, "findings": {}}},
                ],
                "silos": [
                    {"silo": "hospital-a", "state": "answered", "took_ms": 12.0, "indexed": 44, "released": 3},
                    {"silo": "hospital-b", "state": "denied", "code": "asker-not-allowed", "public": "No.", "took_ms": 0},
                ],
            },
        },
        "evaluation": {
            "encoder_version": "ab" * 16,
            "k": 10,
            "card": {"kind": "federated", "job": "j", "rounds": 3, "encryption": "bfv", "silos": list(SILOS)},
            "silos": {silo: {"held_out_patients": 8} for silo in SILOS},
            "statistics_auc": {"Effusion": 0.6, "Nodule": 0.5},
            "retrieval": {"encoder": neighbours | {"own_silo_chance": 0.5}, "raw pixels": floor},
            "federated_search": {"queries": 18, "precision": 0.62},
        },
        "server": {"files": 210, "bytes": 4_000_000, "needles": 300, "leaks": []},
    }


def gathered(raw: dict, **changes) -> f.DemoFacts:
    arguments = {"command": "consortium demo", "machine": MACHINE, "pictures": Pictures(), "plain_bytes": 2800}
    return facts_of(raw, **(arguments | changes))


def test_what_the_commands_returned_is_in_the_facts():
    facts = gathered(whole())
    assert facts.run.data is f.DataKind.SYNTHETIC
    assert facts.silos[0].findings == (f.FindingCount(finding="Effusion", present=10, absent=30, unknown=10),)
    assert facts.learning.measure == "mean of 2 findings"
    assert facts.learning.federated[-1] == f.CurvePoint(3, pytest.approx(0.7))
    assert facts.learning.floors == {"image statistics": pytest.approx(0.55)}
    assert facts.learning.patients == 16
    assert facts.traffic.rounds[0].silos["hospital-a"].upload_bytes == 900
    assert facts.searches[0].milliseconds == 31.4
    assert facts.retrieval.precision[0] == f.Bar("federated search", 0.62)
    assert {check.outcome for check in facts.checks} == {f.CheckOutcome.PASSED, f.CheckOutcome.FAILED}
    render(facts)


def test_a_silo_without_an_update_in_a_round_is_named_with_why():
    rounds = gathered(whole()).traffic.rounds
    assert rounds[1].silos["hospital-a"].state == "not-ready: This silo is not ready for this."
    assert rounds[2].silos["hospital-a"].state == "gone: Its job process was not there."
    assert rounds[2].silos["hospital-b"].state == "accepted"


def test_no_finding_differs_from_findings_that_are_not_known():
    hits = gathered(whole()).searches[0].hits
    assert [hit.findings for hit in hits] == [("Effusion",), (), None]


def test_a_silo_that_denied_has_its_reason_and_no_time():
    denied = gathered(whole()).searches[0].silos[1]
    assert (denied.state, denied.detail, denied.milliseconds) == ("denied", "No.", None)


STEPS = ["training", "local", "search", "evaluation", "server"]


@pytest.mark.parametrize("reached", range(len(STEPS)))
def test_a_demo_that_ended_early_is_a_report_with_gaps(reached):
    raw = whole()
    for step in STEPS[reached:]:
        del raw[step]
    facts = gathered(raw)
    assert facts.retrieval == Missing("the demo ended before this step") or reached > 3
    assert isinstance(facts.learning, Missing) is (reached < 2)
    assert f.CheckOutcome.NOT_RUN in {check.outcome for check in facts.checks}
    render(facts)


def test_a_curve_measured_on_other_views_is_not_compared():
    raw = whole()
    raw["local"]["hospital-b"]["curve"] = curve(0.99, views=7)
    assert gathered(raw).learning.alone["hospital-b"] == Missing("it was measured on 7 other views")


def test_a_leak_is_a_failed_check_that_names_it():
    raw = whole()
    raw["server"]["leaks"] = ["jobs/x: plaintext weights"]
    check = gathered(raw).checks[0]
    assert check.outcome is f.CheckOutcome.FAILED
    assert check.detail.endswith("jobs/x: plaintext weights")


@pytest.mark.parametrize(
    ("synthetic", "kind"),
    [([True, True], f.DataKind.SYNTHETIC), ([False, False], f.DataKind.REAL), ([True, False], f.DataKind.MIXED)],
)
def test_real_images_are_never_called_synthetic(synthetic, kind):
    raw = whole()
    for archive, each in zip(raw["data"], synthetic, strict=True):
        archive["synthetic"] = each
    assert gathered(raw).run.data is kind


def test_without_a_word_about_the_data_they_count_as_real():
    raw = whole()
    del raw["data"]
    assert gathered(raw).run.data is f.DataKind.REAL


def test_pictures_are_shown_only_where_they_were_given():
    picture = f.Picture(b"png", "alt")
    pictures = Pictures(silos={"hospital-a": (picture,)}, cases={("hospital-b", "0" * 32): picture})
    facts = gathered(whole(), pictures=pictures)
    assert facts.silos[0].pictures == (picture,)
    assert facts.silos[1].pictures == Missing("real images are not put into a report")
    assert facts.searches[0].hits[0].picture is picture
    assert "no answer carried an image" in facts.searches[0].query.note


def test_gathering_changes_nothing():
    raw = whole()
    before = copy.deepcopy(raw)
    gathered(raw)
    assert raw == before
