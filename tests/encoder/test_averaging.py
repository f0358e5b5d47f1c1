import numpy as np
import pytest

from silo_app.encoder.averaging import Moments, step_of
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.settings import AveragingPlan
from silo_app.errors import ConfigInvalid


def steps(means, **options):
    """The steps that a silo takes after `means`, in order."""
    plan = AveragingPlan(**options)
    moments, taken = Moments.none(plan, len(means[0])), []
    for mean in means:
        step, moments = step_of(plan, moments, np.asarray(mean, np.float32))
        taken.append(step)
    return taken


def test_without_memory_the_step_is_the_mean():
    means = np.array([[1, -2], [3, 4]], np.float32)
    assert np.array_equal(steps(means), means)
    assert np.array_equal(steps(means, method="momentum", keep=0), means)


def test_with_momentum_equal_updates_add_up_to_a_geometric_series():
    assert steps(np.ones((60, 1)), method="momentum", keep=0.5)[-1] == pytest.approx([2])
    assert steps(np.ones((60, 1)), method="momentum", keep=0.5, rate=0.5)[-1] == pytest.approx([1])


def test_adam_takes_the_steps_that_its_paper_writes_down():
    """Reddi et al., ICLR 2021, algorithm 2: no correction of the bias, and the squares begin at the floor's square."""
    means, first, second = [[0.3, 0.0], [-0.1, 0.0]], 0.0, 1e-3**2
    for (mean, _), step in zip(means, steps(means, method="adam"), strict=True):
        first = 0.9 * first + 0.1 * mean
        second = 0.99 * second + 0.01 * mean**2
        assert step == pytest.approx([0.01 * first / (second**0.5 + 1e-3), 0], rel=1e-5)


def test_adam_steps_alike_whatever_the_updates_scale():
    large, small = (steps([[scale]] * 3, method="adam", floor=1e-8)[-1] for scale in (1.0, 1e-3))
    assert large == pytest.approx(small, rel=1e-3)


@pytest.mark.parametrize("method", ["mean", "momentum", "adam"])
def test_silos_that_saw_the_same_rounds_take_the_same_steps_bit_by_bit(method):
    means = np.random.default_rng(0).normal(size=(5, 1001)).astype(np.float32)
    one, other = steps(means, method=method), steps(means.copy(), method=method)
    assert [step.tobytes() for step in one] == [step.tobytes() for step in other]
    assert {step.dtype for step in one} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"method": "mean", "keep": 0.5}, 'method "mean" does not use keep'),
        ({"method": "momentum", "floor": 0.1, "keep_squares": 0.9}, 'method "momentum" does not use floor, keep_squares'),
        ({"method": "momentum", "keep": 1.0}, "averaging.keep"),
        ({"method": "yogi"}, "averaging.method"),
    ],
)
def test_settings_that_are_wrong_or_unused_are_refused(wrong, why):
    with pytest.raises(ConfigInvalid, match=why):
        TrainingPlan.checked({"averaging": wrong})
