"""A silo's own copy of the shared encoder: when it is trained, and with which learning rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.encoder.dataset import load
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import train_round
from silo_app.encoder.tuning import tune_round, tuning_round

QUICK = TrainSettings(batch_size=8, steps=3, precision="float32", proximal=0.5)


@given(rounds=st.integers(1, 200), tuning=st.floats(0.001, 1))
def test_the_last_rounds_tune_one_after_the_other(rounds, tuning):
    plan = TrainingPlan.checked({"rounds": rounds, "personal": "tuned", "tuning": tuning})
    numbers = [tuning_round(number, rounds, plan.tuned_rounds) for number in range(rounds)]
    assert [one for one in numbers if one is not None] == list(range(plan.tuned_rounds))
    assert numbers[-1] == plan.tuned_rounds - 1


@pytest.mark.parametrize("personal", ["none", "head", "ditto"])
def test_without_a_copy_no_round_tunes(personal):
    plan = TrainingPlan.checked({"rounds": 3, "personal": personal})
    assert [tuning_round(number, 3, plan.tuned_rounds) for number in range(3)] == [None] * 3


def test_a_copy_has_a_course_of_rates_of_its_own_and_is_held_by_nothing(fill_silo, spec):
    images = load(fill_silo(), spec)
    tuned, plain = build(spec, 1), build(spec, 1)
    tune_round(tuned, images, QUICK.model_copy(update={"proximal": 1.0}), number=1, tuned=2, seed=3)
    free = QUICK.model_copy(update={"proximal": 0.0})
    train_round(plain, images, free, round_number=1, rounds=2, seed=3)
    vectors = [to_vector(one) for one in (tuned, plain)]
    assert vectors[0].tobytes() == vectors[1].tobytes()
    assert not np.array_equal(vectors[0], to_vector(build(spec, 1)))
