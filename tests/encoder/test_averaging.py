import numpy as np

from silo_app.encoder.averaging import Momentum


def test_without_momentum_the_step_is_the_mean():
    mean = np.array([1, -2], np.float32)
    assert (Momentum.none(2).after(mean, 0.9).after(mean, 0.0).velocity == mean).all()


def test_equal_updates_add_up_to_a_geometric_series():
    momentum = Momentum.none(1)
    for _ in range(60):
        momentum = momentum.after(np.ones(1, np.float32), 0.5)
    assert np.allclose(momentum.velocity, 2)


def test_silos_that_saw_the_same_rounds_take_the_same_step_bit_by_bit():
    means = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    steps = []
    for _ in range(2):
        momentum = Momentum.none(7)
        for mean in means:
            momentum = momentum.after(mean, 0.9)
        steps.append(momentum.velocity.tobytes())
    assert steps[0] == steps[1]
