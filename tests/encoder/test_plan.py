"""What a silo's update counts for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import ConfigInvalid

losses = st.floats(0, 1e6)


def plan_with(fairness):
    return TrainingPlan.checked({"fairness": fairness})


@given(fairness=st.floats(0, 10), one=losses, other=losses)
def test_a_silo_counts_the_more_the_harder_its_findings_are_and_never_nothing(fairness, one, other):
    plan = plan_with(fairness)
    less, more = (plan.counted(loss) for loss in sorted([one, other]))
    assert 0 < less <= more <= 1


@given(fairness=st.floats(0, 10), loss=losses)
def test_who_guesses_counts_whole_and_so_does_any_silo_without_fairness(fairness, loss):
    assert plan_with(fairness).counted(math.log(2)) == plan_with(0).counted(loss) == plan_with(0).counted(None) == 1


def test_who_learns_no_finding_counts_no_more_than_who_can_tell_them():
    assert plan_with(1).counted(None) == pytest.approx(0.1)
    assert plan_with(1).counted(0.15) > plan_with(1).counted(None) > plan_with(1).counted(0.01)


def test_with_fairness_1_a_silo_counts_in_proportion_to_its_loss():
    assert plan_with(1).counted(math.log(2) / 4) == pytest.approx(0.25)
    assert plan_with(2).counted(math.log(2) / 4) == pytest.approx(0.0625)


def test_a_private_job_does_not_ask_how_hard_findings_are():
    with pytest.raises(ConfigInvalid, match="fairness must be 0"):
        TrainingPlan.checked({"fairness": 1, "privacy": {"noise": 1.0}, "training": {"contrast": 0}})
