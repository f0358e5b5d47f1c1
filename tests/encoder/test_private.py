"""DP-SGD for whole patients: what one patient can change is bounded, and the noise is what was paid for."""

import dataclasses

import numpy as np
import pytest
import torch

from silo_app.encoder.dataset import load
from silo_app.encoder.losses import each_findings_loss
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.private import Draws, clipped_gradients, planned_steps, train_round_privately
from silo_app.encoder.settings import TrainSettings
from silo_app.errors import NotReady
from silo_app.keystream import KEY_BYTES
from silo_app.privacy.accountant import Steps
from silo_app.privacy.gaussian import GaussianNoise

QUICK = TrainSettings(batch_size=8, steps=3, contrast=0.0)


@pytest.fixture
def images(fill_silo, spec):
    return load(fill_silo(), spec)


def draws(seed):
    return Draws(np.random.default_rng(seed), GaussianNoise(seed.to_bytes(KEY_BYTES, "big")))


def private(spec, images, planned, seed=1, clip_norm=0.5, **more):
    model = build(spec, 1)
    outcome = train_round_privately(
        model, images, QUICK, planned, clip_norm=clip_norm, round_number=0, rounds=1, draws=draws(seed), **more
    )
    return model, outcome


@pytest.mark.parametrize(
    ("backbone", "channels", "clip_norm"),
    [
        ("densenet-small", "grey", 0.05),
        ("densenet-small", "grey", 0.5),
        ("densenet-small", "grey", 100.0),
        ("densenet-small", "contrasts", 0.5),
        ("mednext-small", "grey", 0.5),
    ],
)
def test_clipped_gradients_are_those_of_each_view_alone(spec, backbone, channels, clip_norm):
    torch.manual_seed(0)
    spec = spec.model_copy(update={"backbone": backbone, "channels": channels})
    model, views, findings = build(spec, 1), torch.randn(5, 1, 32, 32), len(spec.findings)
    targets, known = (torch.rand(5, findings) > 0.5).float(), torch.rand(5, findings) > 0.3
    expected = [torch.zeros_like(weight) for weight in model.parameters()]
    for one in range(5):
        model.zero_grad()
        part = slice(one, one + 1)
        each_findings_loss(model(views[part])[1], targets[part], known[part]).sum().backward()
        norm = float(torch.stack([(w.grad**2).sum() for w in model.parameters()]).sum().sqrt())
        for sum_, weight in zip(expected, model.parameters(), strict=True):
            sum_.add_(weight.grad * min(1.0, clip_norm / max(norm, 1e-9)))
    for _ in range(2):  # nothing is left over from the first time
        losses = clipped_gradients(model, views, targets, known, clip_norm)
        assert losses.shape == (5,)
        for sum_, weight in zip(expected, model.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, sum_, rtol=1e-3, atol=1e-6)
    assert not any(hasattr(w, "grad_sample") or hasattr(w, "_norm_sample") for w in model.parameters())


def test_what_one_patient_changes_in_a_step_is_bounded(spec, images, monkeypatch):
    """The patient with all views is exchanged for another one; every other draw stays, and there is no noise."""
    seen = []
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: seen.append([p.grad.clone() for g in self.param_groups for p in g["params"]])
    )
    patient = images.patients[0]
    pixels = images.pixels.copy()
    pixels[images.patients == patient] = 255 - pixels[images.patients == patient]
    targets = np.where((images.patients == patient)[:, None], 1 - images.targets, images.targets).astype(np.float32)
    planned = Steps(noise=0.0, rate=1.0, steps=1)
    clip_norm, patients = 0.01, len(set(images.patients))
    for one in (images, dataclasses.replace(images, pixels=pixels, targets=targets)):
        private(spec, one, planned, clip_norm=clip_norm)
    difference = torch.stack([((a - b) ** 2).sum() for a, b in zip(*seen, strict=True)]).sum().sqrt()
    assert 0 < difference <= 2 * clip_norm / patients * 1.001


def test_many_views_of_a_patient_count_as_one(spec, images):
    counts = []
    planned = Steps(noise=0.5, rate=1.0, steps=2)
    one_patient = dataclasses.replace(
        images, views=[dataclasses.replace(view, patient=images.views[0].patient) for view in images.views]
    )
    for data in (images, one_patient):
        _, outcome = private(spec, data, planned)
        counts.append(outcome.samples)
    assert counts == [2 * len(set(images.patients)), 2]


def test_a_step_without_patients_is_noise_alone(spec, images, monkeypatch):
    grads = []
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: grads.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]])),
    )
    rate = 1e-9
    _, outcome = private(spec, images, Steps(noise=2.0, rate=rate, steps=2), clip_norm=0.5)
    assert outcome.loss == 0.0
    expected = rate * len(set(images.patients))
    for grad in grads:
        assert float(grad.std() * expected) == pytest.approx(2.0 * 0.5, rel=0.02)
        assert abs(float(grad.mean() * expected)) < 0.02
    assert not torch.equal(*grads)


def test_fedprox_holds_near_the_rounds_begin(spec, images):
    """Its pull has no image in it, so that it needs no noise and no clipping; it must not be left out either."""
    away = []
    for proximal in (0.0, 100.0):
        model, settings = build(spec, 1), QUICK.model_copy(update={"proximal": proximal, "steps": 30, "learning_rate": 1e-2})
        planned = Steps(noise=1.0, rate=0.5, steps=30)
        begin = to_vector(model)
        train_round_privately(model, images, settings, planned, clip_norm=0.5, round_number=0, rounds=1, draws=draws(1))
        away.append(np.linalg.norm(to_vector(model) - begin))
    assert away[1] < 0.7 * away[0]


def test_the_jobs_seed_says_nothing_of_draws_and_noise(spec, images):
    planned = Steps(noise=1.0, rate=0.5, steps=1)
    results = []
    for _ in range(2):
        model = build(spec, 1)
        train_round_privately(model, images, QUICK, planned, clip_norm=0.5, round_number=0, rounds=1)
        results.append(to_vector(model))
    assert not np.array_equal(*results)


def test_a_round_without_noise_learns(spec, images):
    settings = TrainSettings(batch_size=16, steps=60, learning_rate=3e-3, contrast=0.0)
    model = build(spec, 1)
    first = train_round_privately(
        model, images, QUICK, planned_steps(QUICK, 24, 0.0), clip_norm=1.0, round_number=0, rounds=2, draws=draws(1)
    )
    planned = planned_steps(settings, len(set(images.patients)), 0.0)
    last = train_round_privately(model, images, settings, planned, clip_norm=1.0, round_number=0, rounds=1, draws=draws(2))
    assert last.loss < first.loss


def test_what_is_planned_follows_from_the_number_of_patients_alone():
    assert planned_steps(TrainSettings(batch_size=8, epochs=2), 40, 1.5) == Steps(1.5, 0.2, 10)
    assert planned_steps(TrainSettings(batch_size=32, epochs=1), 5, 1.5) == Steps(1.5, 1.0, 1)


def test_without_images_there_is_nothing_to_train_on(spec, images):
    with pytest.raises(NotReady, match="no images"):
        private(spec, images.where(np.zeros(len(images), bool)), Steps(1.0, 0.5, 1))
