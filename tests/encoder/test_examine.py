"""What a silo finds out about an encoder, with real images and a real network: figures, and what is held back."""

import json

import pytest

from silo_app.cases import Finding, Split
from silo_app.catalogue import Catalogue, Label
from silo_app.config import EvaluationSettings
from silo_app.encoder import checkpoint
from silo_app.encoder.dataset import load
from silo_app.encoder.evaluate import evaluate
from silo_app.encoder.evaluation_answer import SiloAnswer
from silo_app.encoder.examine import examine
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.settings import TrainSettings
from silo_app.errors import NotReady, ReleaseRefused


def with_policy(home, **settings):
    config = home.config.model_copy(update={"evaluation": EvaluationSettings(**settings)})
    return home.model_copy(update={"config": config})


def keep(home, spec, seed=1, *, kind="federated", silos=("alpha",), current=True, own=None):
    card = {"kind": kind, "silos": dict.fromkeys(silos, 1)}
    version = checkpoint.save(home.models, spec, to_vector(build(spec, seed)), card, own)
    if current:
        checkpoint.set_current(home.models, version)
    return version


@pytest.fixture
def home(fill_silo, spec):
    home = fill_silo("alpha", views=128, seed=1)
    keep(home, spec)
    return with_policy(home, min_patients=4, groups=("sex", "age_band", "device"))


def test_figures_are_those_of_silo_evaluate(home):
    answer = examine(home, None)
    _, known = evaluate([home], with_floors=True)
    told, true = answer.findings["Pneumonia"], known.findings["alpha"]["Pneumonia"]
    assert (answer.held_out_patients, answer.held_out_views) == (16, 32)
    assert (told.present, told.absent, told.present_patients, told.absent_patients) == (16, 16, 8, 8)
    for name in ("auc", "balanced_accuracy", "sensitivity", "calibration_error"):
        assert getattr(told, name).value == pytest.approx(getattr(true, name).value, abs=1e-4)
    assert answer.statistics_auc["Pneumonia"] == pytest.approx(known.statistics_auc["Pneumonia"], abs=1e-4)
    assert set(answer.retrieval) == {"encoder", "untrained encoder", "raw pixels"}
    for way, one in answer.retrieval.items():
        assert one.balanced("precision") == pytest.approx(known.retrieval[way].precision, abs=1e-3)
        assert one.balanced("ndcg") == pytest.approx(known.retrieval[way].ndcg, abs=1e-3)
    for side in (told.present_scores, told.absent_scores):
        assert (sum(one.views for one in side), sum(one.patients for one in side)) == (16, 8)
        assert {one.stop * 10 for one in told.reliability} <= {one.stop for one in side}
    assert answer.local == {}


def test_the_answer_passes_its_own_form_and_names_no_patient(home, spec):
    said = examine(home, None, with_floors=False).model_dump_json()
    SiloAnswer.checked(json.loads(said))
    assert not any(view.patient in said or view.digest in said or view.case in said for view in load(home, spec).views)


def test_groups_are_told_where_enough_patients_are_in_them(home):
    answer = examine(home, None, with_floors=False)
    by = {(one.by, one.value): one for one in answer.groups}
    assert ("device", "Maker Model") in by
    whole, device = answer.findings["Pneumonia"], by["device", "Maker Model"].findings["Pneumonia"]
    assert device.auc == whole.auc
    for one in answer.groups:
        assert all(min(told.present_patients, told.absent_patients) >= 4 for told in one.findings.values())
    assert {one.by for one in answer.groups} <= {"sex", "age_band", "device"}


@pytest.mark.parametrize("groups", [(), ("sex",), ("device",)])
def test_only_the_policys_groups_are_told(home, groups):
    answer = examine(with_policy(home, min_patients=4, groups=groups), None, with_floors=False)
    assert {one.by for one in answer.groups} == set(groups)


def test_the_gap_to_the_silos_own_local_only_encoder(home, spec):
    keep(home, spec, seed=2, kind="local only", silos=("beta",), current=False)
    assert examine(home, None, with_floors=False).local == {}, "it is another silo's"
    local = keep(home, spec, seed=3, kind="local only", current=False)
    answer, other = (examine(home, version, with_floors=False) for version in (None, local))
    gap = answer.local["Pneumonia"]
    here, there = answer.findings["Pneumonia"].auc.value, other.findings["Pneumonia"].auc.value
    assert gap.local_auc == there
    assert gap.value == pytest.approx(here - there, abs=2e-4)
    assert gap.low <= gap.value <= gap.high
    assert answer.retrieval["local-only encoder"] == other.retrieval["encoder"]
    assert other.local == {}, "it is not compared with itself"
    assert answer.local_training is None, "its card does not say how it was trained"


def with_nodules(home):
    """Give every view a second finding, which follows nothing that the first does."""
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        for place, view in enumerate(catalogue.views()):
            pneumonia, nodule = view.findings[Finding.PNEUMONIA], place // 4 % 2 == 0
            said = {Finding.PNEUMONIA: pneumonia, Finding.NODULE: nodule}
            writer.relabel({view.digest: [Label(finding=f, present=p, source="test") for f, p in said.items()]})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((Finding.PNEUMONIA, Finding.NODULE), (Finding.NODULE,)),
        ((Finding.NODULE,), (Finding.PNEUMONIA, Finding.NODULE)),
        ((Finding.PNEUMONIA, Finding.NODULE), (Finding.NODULE, Finding.PNEUMONIA)),
    ],
)
def test_a_local_only_encoder_of_other_findings_is_compared_by_those_in_common(fill_silo, spec, ours, theirs):
    home = with_policy(fill_silo("alpha", views=192, seed=1), min_patients=4)
    with_nodules(home)
    removed = spec.model_copy(update={"looks": "removed"})
    keep(home, removed.model_copy(update={"findings": ours}))
    local = keep(home, removed.model_copy(update={"findings": theirs}), 3, kind="local only", current=False)
    answer, other = (examine(home, version, with_floors=False) for version in (None, local))
    assert set(answer.local) == set(ours) & set(theirs)
    assert all(gap.local_auc == other.findings[finding].auc.value for finding, gap in answer.local.items())
    near, alone = answer.retrieval["local-only encoder"].classes, other.retrieval["encoder"].classes
    assert near[Finding.NODULE] == alone[Finding.NODULE], "the look is that of its own findings"


@pytest.mark.parametrize("damage", ["preprocessing", "json", "weights", "silos", "findings"])
def test_a_local_only_encoder_that_does_not_fit_is_passed_over_for_the_next(home, spec, damage, caplog):
    sound = keep(home, spec, seed=3, kind="local only", current=False)
    other = spec.model_copy(update={"findings": (Finding.MASS,)}) if damage == "findings" else spec
    folder = home.models / keep(home, other, seed=4, kind="local only", current=False)
    card = json.loads((folder / "card.json").read_text())
    changed = {"preprocessing": {"preprocessing": "an older one"}, "silos": {"silos": 3}}.get(damage, {})
    (folder / "card.json").write_text("{" if damage == "json" else json.dumps(card | changed))
    if damage == "weights":
        (folder / "encoder.safetensors").write_bytes(b"")
    answer = examine(home, None, with_floors=False)
    assert answer.local["Pneumonia"].local_auc == examine(home, sound, with_floors=False).findings["Pneumonia"].auc.value
    assert damage == "silos" or f"no comparison with encoder {folder.name[:8]}" in caplog.text


@pytest.mark.parametrize(("rounds", "rate", "differs"), [(2, 0.001, ()), (3, 0.002, ("rounds", "training.learning_rate"))])
def test_how_the_local_only_encoder_was_trained_is_told_beside_the_gap(home, spec, rounds, rate, differs):
    def trained(seed, kind, rounds, rate):
        training = TrainSettings(learning_rate=rate).model_dump(mode="json")
        card = {"kind": kind, "silos": {"alpha": 1}, "rounds": rounds, "seed": 1, "training": training}
        return checkpoint.save(home.models, spec, to_vector(build(spec, seed)), card)

    checkpoint.set_current(home.models, trained(5, "federated", 2, 0.001))
    trained(6, "local only", rounds, rate)
    told = examine(home, None, with_floors=False).local_training
    assert (told.rounds, told.training.learning_rate, told.differs) == (rounds, rate, differs)


def test_a_silos_own_network_is_told_of_beside_the_shared_one(home, spec):
    plain = examine(home, None, with_floors=False)
    assert plain.own == {}
    own = to_vector(build(spec, 5))
    keep(home, spec, seed=2, own=own)
    shared = examine(home, None, with_floors=False)
    alone = keep(home, spec, seed=5)
    there = examine(home, alone, with_floors=False)
    assert shared.own["Pneumonia"].auc == there.findings["Pneumonia"].auc
    assert shared.own["Pneumonia"].balanced_accuracy == there.findings["Pneumonia"].balanced_accuracy
    assert shared.findings["Pneumonia"].auc != shared.own["Pneumonia"].auc
    assert shared.retrieval != there.retrieval, "neighbours are the shared encoder's"


def test_a_head_of_its_own_is_no_network(home, spec):
    keep(home, spec, seed=2, own=to_vector(build(spec, 5))[-3:])
    assert examine(home, None, with_floors=False).own == {}


def test_too_few_held_out_patients_tell_nothing(home):
    with pytest.raises(
        ReleaseRefused, match="16 patients with labels are held out, and figures over fewer than 17 are not told"
    ):
        examine(with_policy(home, min_patients=17), None)


def test_a_finding_with_few_patients_on_a_side_is_left_out(home):
    answer = examine(with_policy(home, min_patients=9), None)
    assert answer.findings == answer.statistics_auc == {}
    assert all(not one.classes for one in answer.retrieval.values())
    assert answer.groups == ()


def test_a_version_that_the_silo_does_not_hold_is_said(home):
    with pytest.raises(NotReady, match="this silo does not hold encoder 0000"):
        examine(home, "0" * 32)


def relabel(home, present):
    """Give every held-out view pneumonia, or none, or no label, as `present` says of its patient's place among all."""
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        held_out = catalogue.views(Split.HELD_OUT)
        places = {patient: place for place, patient in enumerate(sorted({view.patient for view in held_out}))}
        for view in held_out:
            said = present(places[view.patient])
            labels = [] if said is None else [Label(finding=Finding.PNEUMONIA, present=said, source="test")]
            writer.relabel({view.digest: [*labels, Label(finding=Finding.NODULE, present=False, source="test")]})


@pytest.mark.parametrize("sick", [True, False])
def test_a_single_patient_on_one_side_is_not_told_by_the_other(home, sick):
    relabel(home, lambda place: (place == 0) == sick)
    answer = examine(home, None, with_floors=False)
    assert answer.findings == {}
    assert all(not one.classes for one in answer.retrieval.values())
    assert answer.groups == ()


@pytest.mark.parametrize(("unknown", "told"), [(0, True), (3, False), (4, True)])
def test_a_finding_that_is_unknown_of_few_patients_is_left_out(home, unknown, told):
    relabel(home, lambda place: None if place < unknown else place % 2 == 0)
    assert (Finding.PNEUMONIA in examine(home, None, with_floors=False).findings) is told


def test_patients_of_whom_nothing_is_known_are_in_no_figure(home):
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        one = catalogue.views(Split.HELD_OUT)[0].patient
        for view in catalogue.views(Split.HELD_OUT):
            if view.patient == one:
                writer.relabel({view.digest: []})
    answer = examine(home, None, with_floors=False)
    assert (answer.held_out_patients, answer.held_out_views) == (15, 30)
    assert Finding.PNEUMONIA in answer.findings


def test_a_patient_with_views_of_both_kinds_counts_as_one_with_the_finding(home):
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        view = next(each for each in catalogue.views(Split.HELD_OUT) if not each.findings[Finding.PNEUMONIA])
        writer.relabel({view.digest: [Label(finding=Finding.PNEUMONIA, present=True, source="test")]})
    told = examine(home, None, with_floors=False).findings[Finding.PNEUMONIA]
    assert (told.present, told.absent, told.present_patients, told.absent_patients) == (17, 15, 9, 7)
