"""What a private training's rounds cost a silo, also those that are trained again."""

import functools

import pytest

from silo_app.encoder import charging as charging_module
from silo_app.encoder.charging import Charging
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.settings import PrivacyPlan, TrainSettings
from silo_app.encoder.telling import opening_of
from silo_app.errors import PrivacyRefused
from silo_app.privacy.accountant import epsilon_of
from silo_app.privacy.ledger import PrivacyLedger

EPSILON = 1.0
NOISE_FOR = functools.cache(charging_module.noise_for)
SETTINGS = TrainSettings(steps=2, batch_size=4, contrast=0)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Find the noise for all tests once: it takes seconds."""
    monkeypatch.setattr(charging_module, "noise_for", NOISE_FOR)


@pytest.fixture
def silo(make_silo):
    """A silo whose owner allows just what the job asks for."""
    return make_silo(training={"privacy": {"epsilon_total": EPSILON}})


def charging(silo, *jobs, **privacy):
    return Charging(silo, PrivacyPlan(**privacy or {"epsilon": EPSILON}), SETTINGS, rounds=4, patients=10, jobs=jobs)


def spent(silo):
    with PrivacyLedger(silo.privacy) as ledger:
        return [one.spent for one in ledger.charges()]


@pytest.mark.parametrize("resumed", [False, True])
def test_rounds_after_one_trained_again_make_up_for_it(silo, resumed):
    """The second round is void; the owner's budget has not one round more than the job."""
    job = charging(silo, "job-1")
    job.require(4)
    for number in (0, 1):
        job.pay("job-1", number)
    if resumed:
        job = charging(silo, "job-1", "job-2")
        job.require(3)
    for number in (1, 2, 3):
        job.pay("job-2" if resumed else "job-1", number)
    paid = spent(silo)
    assert [one.noise > paid[0].noise for one in paid] == [False, False, True, True, True]
    assert len({one.noise for one in paid}) == 2
    assert 0.92 * EPSILON < epsilon_of(paid, 1e-5) <= EPSILON
    assert job.spent(["job-1", "job-2"])["epsilon"] <= EPSILON


def test_another_job_of_before_is_not_made_up_for(make_silo):
    silo = make_silo()
    charging(silo, "other").pay("other", 0)
    job = charging(silo, "job-1")
    first = job.planned
    job.pay("job-1", 0)
    assert job.planned == first


def test_a_last_round_trained_again_costs_more_where_the_owner_allows_it(make_silo):
    silo = make_silo()
    job = charging(silo, "job-1")
    for number in (0, 1, 2, 3, 3):
        job.pay("job-1", number)
    assert epsilon_of(spent(silo), 1e-5) > EPSILON


def test_and_where_not_it_is_refused(silo):
    job = charging(silo, "job-1")
    for number in range(4):
        job.pay("job-1", number)
    with pytest.raises(PrivacyRefused, match="1 is allowed"):
        job.pay("job-1", 3)


def test_a_job_that_names_its_noise_keeps_it(make_silo):
    silo = make_silo()
    job = charging(silo, "job-1", noise=1.5)
    for number in (0, 0, 1):
        job.pay("job-1", number)
    assert {one.noise for one in spent(silo)} == {1.5}


def test_the_trainer_is_told_which_jobs_have_paid():
    plan = TrainingPlan.checked({"privacy": {"epsilon": 3}, "training": {"contrast": 0}})
    assert opening_of(plan, 2, ["job-1", "job-2"])["private"]["jobs"] == ["job-1", "job-2"]
    assert "private" not in opening_of(plan.model_copy(update={"privacy": None}), 2, ["job-1"])
