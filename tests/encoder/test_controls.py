import numpy as np
import pytest
import torch

from silo_app.encoder.controls import Controls
from silo_app.encoder.model import build, to_vector


def stepped(model, correction, gradients):
    """Give every parameter constant gradients, step by step; return the controls and the gradients as corrected."""
    controls, seen = Controls(model, correction), []
    for value in gradients:
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, value)
        controls.correct()
        seen.append(torch.cat([weight.grad.ravel() for weight in model.parameters()]).numpy())
    return controls, seen


def test_gradients_are_corrected_and_their_own_mean_is_remembered(spec):
    model = build(spec, 1)
    correction = np.random.default_rng(0).normal(size=len(to_vector(model))).astype(np.float32)
    controls, seen = stepped(model, correction, [1.0, 3.0])
    np.testing.assert_allclose(seen[0], 1 + correction, atol=1e-6)
    np.testing.assert_allclose(seen[1], 3 + correction, atol=1e-6)
    np.testing.assert_allclose(controls.mean(), 2.0)


def test_a_personal_head_is_not_corrected(spec):
    model = build(spec, 1)
    head = 2 * 16 + 2
    controls, (seen,) = stepped(model, np.ones(len(to_vector(model)) - head, np.float32), [1.0])
    assert (seen[:-head] == 2).all()
    assert (seen[-head:] == 1).all()
    assert len(controls.mean()) == len(seen) - head


def test_gradients_that_overflowed_are_no_step(spec):
    model = build(spec, 1)
    controls, seen = stepped(model, np.ones(len(to_vector(model)), np.float32), [float("inf"), 2.0])
    assert np.isinf(seen[0]).all()
    np.testing.assert_allclose(controls.mean(), 2.0)


def test_for_plain_steps_it_is_option_two_of_the_paper(spec):
    """c_i+ = c_i - c + (x - y) / (K eta): the distance gone, less the correction."""
    model, rate = build(spec, 1), 0.01
    start = to_vector(model)
    correction = np.random.default_rng(1).normal(size=len(start)).astype(np.float32)
    controls = Controls(model, correction)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(3):
        optimizer.zero_grad()
        images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(step))
        model(images)[1].square().sum().backward()
        controls.correct()
        optimizer.step()
    paper = (start - to_vector(model)) / (3 * rate) - correction
    assert controls.mean() == pytest.approx(paper, abs=1e-2)
