"""What an optimizer has learned of the gradients' sizes goes on from round to round, and nothing else does."""

import numpy as np
import pytest
import torch

from silo_app.encoder.model import build, to_vector
from silo_app.encoder.optimizer import adamw, squares_of
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import set_rate
from silo_app.errors import CheckpointInvalid

SETTINGS = TrainSettings(weight_decay=0.0)
RATE = 1e-3


def stepped(model, optimizer, gradients):
    set_rate(optimizer, RATE)
    for one in gradients:
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, one)
        optimizer.step()
    return optimizer


def test_an_optimizer_without_a_step_has_learned_nothing(spec):
    assert squares_of(adamw(build(spec, 1), SETTINGS)).shape == (0,)


def test_squares_go_on_as_if_there_were_no_rounds(spec):
    """Those of two rounds of two steps each are those of four steps."""
    model, whole = build(spec, 1), build(spec, 1)
    first = squares_of(stepped(model, adamw(model, SETTINGS), [1.0, 2.0]))
    second = squares_of(stepped(model, adamw(model, SETTINGS, first), [0.5, 3.0]))
    np.testing.assert_allclose(second, squares_of(stepped(whole, adamw(whole, SETTINGS), [1.0, 2.0, 0.5, 3.0])), rtol=1e-6)
    assert second.shape == (len(to_vector(model)) + 1,)
    assert second[-1] == 4


def test_a_direction_does_not_go_on(spec):
    """Steps with the gradient 1, then one of a new round with -1: down at once, and not still up."""
    model = build(spec, 1)
    squares = squares_of(stepped(model, adamw(model, SETTINGS), [1.0] * 20))
    before = to_vector(model)
    stepped(model, adamw(model, SETTINGS, squares), [-1.0])
    assert (to_vector(model) > before).all()


def test_a_round_begins_gently(spec):
    """The first step of a later round is a tenth of one that begins anew, whose length is the learning rate."""
    model = build(spec, 1)
    squares = squares_of(stepped(model, adamw(model, SETTINGS), [1.0] * 20))
    before = to_vector(model)
    stepped(model, adamw(model, SETTINGS, squares), [1.0])
    np.testing.assert_allclose(before - to_vector(model), 0.1 * RATE, rtol=0.2)


def test_squares_of_another_network_are_refused(spec):
    model = build(spec, 1)
    with pytest.raises(CheckpointInvalid, match="squared gradients of 3 weights"):
        adamw(model, SETTINGS, np.ones(4, np.float32))
