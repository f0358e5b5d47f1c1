"""Jobs of silos that differ: no labels, little time, heads or networks of their own, corrected drift, a common start."""

import json
import math

import numpy as np
import pytest

from silo_app.aggregation.layout import Layout
from silo_app.encoder import checkpoint
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.train import RoundOutcome
from silo_app.errors import CheckpointInvalid, ConfigInvalid, EncoderMismatch
from tests.encoder.test_participation import PLAN, begin, homes  # noqa: F401  (fixtures)

HEAD = 1 * 16 + 1
KEPT = PLAN.training.model_dump() | {"squares": "kept"}


def plan_with(**changes):
    return TrainingPlan.checked(PLAN.model_dump(mode="json") | changes)


def finished(job, rounds=2):
    for _ in range(rounds):
        job.round()
    (version,) = set(job.finish().values())
    return version


def kept(homes, version):  # noqa: F811
    return {name: checkpoint.load(home.models, version) for name, home in homes.items()}


def lines_of(home, file, job="job-1"):
    return [json.loads(line) for line in (home.root / "jobs" / job / file).read_text().splitlines()]


def test_a_silo_without_labels_gives_a_useful_update(begin, fill_silo, homes):  # noqa: F811
    with_labels = finished(begin())
    for home in homes.values():
        home.models.rename(home.models.with_name("models-before"))
    unlabelled = homes["gamma"]
    from silo_app.catalogue import Catalogue

    with Catalogue.open(unlabelled.catalogue) as catalogue, catalogue.writing() as writer:
        writer.relabel({view.digest: [] for view in catalogue.views()})
    job = begin("job-2")
    without = finished(job)
    assert with_labels != without
    own = [line["own"] for line in lines_of(unlabelled, "rounds.jsonl", "job-2") if "own" in line]
    assert [one["steps"] for one in own] == [2, 2]
    assert lines_of(unlabelled, "held-out.jsonl", "job-2")[-1]["loss"] is None
    vector = kept(homes, without)["gamma"].vector
    assert np.isfinite(vector).all()


def test_heads_of_their_own_never_leave_and_are_no_part_of_the_version(begin, homes):  # noqa: F811
    job = begin(plan=plan_with(personal="head"))
    layout: Layout = job.parts["alpha"]._layout
    assert not any("findings" in name for name in layout.names)
    found = kept(homes, finished(job))
    heads = [one.personal for one in found.values()]
    assert {len(head) for head in heads} == {HEAD}
    assert not np.array_equal(heads[0], heads[1])
    for one in found.values():
        assert not one.vector[-HEAD:].any()
        np.testing.assert_array_equal(one.own_vector[-HEAD:], one.personal)
    begun = to_vector(build(PLAN.encoder, PLAN.seed))
    assert not np.array_equal(heads[0], begun[-HEAD:])


@pytest.mark.parametrize(
    "means",
    [
        {"training": KEPT},
        {"personal": "head"},
        {"personal": "ditto"},
        {"personal": "tuned", "tuning": 1.0},
        {"scaffold": True},
    ],
)
def test_what_silos_keep_for_themselves_survives_a_kill_bit_by_bit(begin, homes, means):  # noqa: F811
    """Gamma is away in the first round; the server is killed in the second, of which one update was made."""
    plan = plan_with(**means)
    killed = begin(plan=plan)
    killed.round(participants=["alpha", "beta"])
    killed.catch_up("gamma")
    killed.parts["beta"].round(killed.order("beta"))
    resumed = finished(begin("job-2", resume="job-1", plan=plan), 1)
    after = kept(homes, resumed)
    for home in homes.values():
        home.models.rename(home.models.with_name("models-before"))
    unharmed = begin("job-3", plan=plan)
    unharmed.round(participants=["alpha", "beta"])
    unharmed.catch_up("gamma")
    assert finished(unharmed, 1) == resumed
    for name, one in kept(homes, resumed).items():
        assert (one.personal is None) == (after[name].personal is None) == ("personal" not in means)
        if one.personal is not None:
            np.testing.assert_array_equal(one.personal, after[name].personal)


def test_what_a_silo_learned_of_its_gradients_goes_on_with_the_sums_that_it_is_in(begin, homes):  # noqa: F811
    job = begin(plan=plan_with(training=KEPT))
    job.round()
    job.round(participants=["alpha", "beta"])
    job.catch_up("gamma")
    job.finish()
    steps = {
        name: [line["own"]["steps"] for line in lines_of(home, "rounds.jsonl") if "own" in line]
        for name, home in homes.items()
    }
    known = {name: part._own.squares[-1] for name, part in job.parts.items()}
    assert known == {name: sum(made) for name, made in steps.items()}
    assert known["gamma"] < known["alpha"]


def test_a_network_of_its_own_is_judged_in_the_silo(begin, homes):  # noqa: F811
    found = kept(homes, finished(begin(plan=plan_with(personal="ditto"))))
    for one in found.values():
        assert len(one.personal) == len(one.vector)
        assert not np.array_equal(one.personal, one.vector)
    last = lines_of(homes["alpha"], "held-out.jsonl")[-1]
    assert last["personal"]["loss"] != last["loss"]


def test_a_copy_of_the_shared_network_is_tuned_in_the_last_rounds_and_changes_nothing_for_others(begin, homes):  # noqa: F811
    plain = kept(homes, finished(begin("job-0", plan=plan_with(rounds=3)), 3))
    for home in homes.values():
        home.models.rename(home.models.with_name("models-before"))
    found = kept(homes, finished(begin(plan=plan_with(personal="tuned", rounds=3, tuning=0.4)), 3))
    for name, one in found.items():
        assert len(one.personal) == len(one.vector)
        assert not np.array_equal(one.personal, one.vector)
        assert np.abs(one.personal - one.vector).max() < np.abs(one.vector - to_vector(build(PLAN.encoder, PLAN.seed))).max()
        np.testing.assert_array_equal(plain[name].vector, one.vector)
    assert not np.array_equal(found["alpha"].personal, found["beta"].personal)
    told = [line.get("personal") for line in lines_of(homes["alpha"], "held-out.jsonl")]
    assert [one is not None for one in told] == [False, False, False, True]


def test_a_round_lasts_as_long_as_both_of_a_silo_s_networks_train(begin, homes, monkeypatch):  # noqa: F811
    long = RoundOutcome(steps=1, samples=1, loss=0.0, seconds=1000.0, planned=1)
    monkeypatch.setattr("silo_app.encoder.worker.tune_round", lambda *_, **__: long)
    finished(begin(plan=plan_with(personal="tuned", rounds=2, tuning=0.5)))
    lasted = [line["own"]["train_seconds"] for line in lines_of(homes["alpha"], "rounds.jsonl") if "own" in line]
    assert [seconds > 1000 for seconds in lasted] == [False, True]


def test_who_missed_the_last_rounds_has_no_copy(begin, homes):  # noqa: F811
    job = begin(plan=plan_with(personal="tuned"))
    job.round()
    job.round(participants=["alpha", "beta"])
    job.catch_up("gamma")
    (version,) = set(job.finish().values())
    assert {name: one.personal is None for name, one in kept(homes, version).items()} == {
        "alpha": False,
        "beta": False,
        "gamma": True,
    }


def test_scaffold_doubles_the_update_and_changes_what_is_learned(begin):  # noqa: F811
    plain = begin()
    corrected = begin("job-2", plan=plan_with(scaffold=True))
    sizes = [part.parts["alpha"]._layout.size for part in (plain, corrected)]
    assert sizes[1] == 2 * sizes[0]
    assert finished(plain) != finished(corrected)
    assert all(part._own.shared_control.any() for part in corrected.parts.values())


def test_a_silo_with_little_time_trains_less_and_weighs_less(begin, homes):  # noqa: F811
    file = homes["beta"].kit / "local" / "silo.yaml"
    file.write_text(json.dumps({"name": "beta", "training": {"round_seconds": 1e-9}}))
    job = begin(plan=plan_with(training=PLAN.training.model_dump() | {"steps": 4}))
    job.round()
    job.round()
    (own, *_) = (line["own"] for line in lines_of(homes["beta"], "rounds.jsonl") if "own" in line)
    assert (own["steps"], own["steps_planned"]) == (1, 4)
    sums = [line["sums"] for line in lines_of(homes["alpha"], "rounds.jsonl") if "sums" in line]
    images = {name: part._samples for name, part in job.parts.items()}
    assert sums[0]["samples"] == sum(images.values())
    assert sums[1]["samples"] == images["alpha"] + images["gamma"] + round(images["beta"] / 4)
    assert (sums[1]["steps"], sums[1]["steps_planned"]) == (9, 12)


def test_with_fairness_a_silo_counts_for_as_much_of_its_images_as_its_findings_are_hard(begin, homes):  # noqa: F811
    job = begin(plan=plan_with(fairness=1.0))
    images = {name: part._samples for name, part in job.parts.items()}
    hard = {"alpha": math.log(2) / 2, "beta": 5.0, "gamma": None}
    for name, part in job.parts.items():
        part._trainer = _Unsure(part._trainer, hard[name])
    job.round()
    job.round()
    sums = [line["sums"] for line in lines_of(homes["alpha"], "rounds.jsonl") if "sums" in line]
    assert sums[-1]["samples"] == round(images["alpha"] / 2) + images["beta"] + round(images["gamma"] / 10)
    own = {name: [line["own"] for line in lines_of(home, "rounds.jsonl") if "own" in line] for name, home in homes.items()}
    assert {name: lines[-1]["weighed"] for name, lines in own.items()} == {"alpha": 0.5, "beta": 1.0, "gamma": 0.1}


class _Unsure:
    """A trainer that says of every round how hard the silo's findings were."""

    def __init__(self, trainer, unsure):
        self._trainer, self._unsure = trainer, unsure

    def request(self, op, **parameters):
        answer = self._trainer.request(op, **parameters)
        return answer | {"unsure": self._unsure} if op == "train" else answer


@pytest.mark.parametrize(
    ("changes", "share"),
    [({"weigh": "labels"}, 0.75), ({"weigh": "images"}, 1.0), ({"weigh": "labels", "privacy": {"noise": 1.5}}, 1.0)],
)
def test_silos_weigh_what_their_labels_tell_apart_if_the_job_says_so_and_promises_no_privacy(begin, homes, changes, share):  # noqa: F811
    """About a quarter of every silo's views has the finding then, and 4 x 1/4 x 3/4 is 3/4."""
    from silo_app.catalogue import Catalogue
    from silo_app.catalogue.records import Label

    for home in homes.values():
        with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
            views = sorted(catalogue.views(), key=lambda view: view.patient)
            train = [view for view in views if view.split.value == "train"]
            for place, view in enumerate(train):
                known = Label(finding=PLAN.encoder.findings[0], present=place % 4 == 0, source="test")
                writer.relabel({view.digest: [known]})
    job = begin(plan=plan_with(**changes, training=PLAN.training.model_dump() | {"contrast": 0.0}))
    assert {part._samples for part in job.parts.values()} == {round(share * 20)}


def test_all_silos_start_from_an_encoder_that_all_of_them_hold(begin, homes):  # noqa: F811
    first = finished(begin())
    started = begin("job-2", plan=plan_with(start=first))
    np.testing.assert_array_equal(started.parts["beta"]._weights, kept(homes, first)["beta"].vector)
    assert checkpoint.read_card(homes["alpha"].models, finished(started))["start"] == first
    other = PLAN.encoder.model_dump(mode="json") | {"findings": ["Nodule"]}
    with pytest.raises(EncoderMismatch, match="has other settings than the job: findings"):
        begin("job-4", plan=plan_with(start=first, encoder=other))
    with pytest.raises(CheckpointInvalid, match="model card is missing"):
        begin("job-3", plan=plan_with(start="0" * 32))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"scaffold": True, "privacy": {"noise": 1.0}}, "scaffold must be false"),
        ({"training": {"squares": "kept", "contrast": 0}, "privacy": {"noise": 1.0}}, "squares must be"),
        ({"personal": "ditto", "privacy": {"noise": 1.0}}, 'must not be "ditto"'),
        ({"personal": "tuned", "privacy": {"noise": 1.0}}, 'must not be "tuned"'),
        ({"personal": "norm"}, "personal"),
        ({"personal": "head", "training": {"prototypes": 0.5}}, "rows are not shared"),
        ({"privacy": {"noise": 1.0}, "training": {"contrast": 0, "round_seconds": 5}}, "round_seconds must be null"),
        ({"start": "mine"}, "start"),
    ],
)
def test_means_that_do_not_fit_together_are_refused(wrong, why):
    wrong.setdefault("training", {"contrast": 0})
    with pytest.raises(ConfigInvalid, match=why):
        TrainingPlan.checked(wrong)
