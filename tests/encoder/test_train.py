import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from silo_app.encoder.dataset import Images, load
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import findings_auc
from silo_app.encoder.model import build, load_vector, to_vector
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import Beginning, Means, learning_rate_at, train_round
from silo_app.encoder.transforms import augment
from silo_app.errors import NotReady, UpdateRefused

QUICK = TrainSettings(batch_size=8, steps=3, precision="float32")


@pytest.fixture
def images(fill_silo, spec):
    return load(fill_silo(), spec)


def trained(spec, images, settings=QUICK, seed=1, round_number=0, rounds=2):
    model = build(spec, 1)
    outcome = train_round(model, images, settings, round_number=round_number, rounds=rounds, seed=seed)
    return to_vector(model), outcome


def test_a_round_reports_what_it_did_and_tells_its_progress(spec, images):
    told = []
    model = build(spec, 1)
    outcome = train_round(
        model, images, QUICK, round_number=0, rounds=1, seed=1, progress=lambda done, total: told.append((done, total))
    )
    assert (outcome.steps, outcome.samples) == (3, 24)
    assert np.isfinite(outcome.loss)
    assert outcome.seconds > 0
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_round_goes_on_from_the_squares_of_the_one_before(spec, images):
    first, second, anew = build(spec, 1), build(spec, 2), build(spec, 2)
    kept = QUICK.model_copy(update={"squares": "kept"})
    one = partial(train_round, data=images, settings=kept, rounds=2, seed=1)
    squares = one(first, round_number=0).squares
    assert squares[-1] == 3
    assert one(second, round_number=1, squares=squares).squares[-1] == 6
    one(anew, round_number=1)
    assert not np.array_equal(to_vector(second), to_vector(anew))


def test_a_round_begins_anew_unless_the_job_keeps_squares(spec, images):
    first, second, anew = build(spec, 1), build(spec, 2), build(spec, 2)
    one = partial(train_round, data=images, rounds=2, seed=1)
    squares = one(first, settings=QUICK.model_copy(update={"squares": "kept"}), round_number=0).squares
    assert len(one(second, settings=QUICK, round_number=1, squares=squares).squares) == 0
    one(anew, settings=QUICK, round_number=1)
    assert to_vector(second).tobytes() == to_vector(anew).tobytes()


def test_the_same_seed_gives_the_same_weights_bit_by_bit(spec, images):
    first, again = (trained(spec, images)[0] for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("other", [{"seed": 2}, {"round_number": 1}])
def test_another_seed_or_round_sees_other_batches(spec, images, other):
    assert not np.array_equal(trained(spec, images)[0], trained(spec, images, **other)[0])


def test_training_learns_what_brightness_cannot_tell(spec, images):
    """The floor of this picture set is checked in test_evaluate."""
    model = build(spec, 1)
    settings = TrainSettings(batch_size=16, steps=60, learning_rate=3e-3, precision="float32")
    train_round(model, images.where(~images.held_out), settings, round_number=0, rounds=1, seed=1)
    held_out = images.where(images.held_out)
    assert findings_auc(spec, embed(model, held_out.pixels)[1], held_out)["Pneumonia"] > 0.9


def test_without_labels_and_self_supervision_weights_only_decay(spec, fill_silo):
    images = load(fill_silo(labelled=False), spec)
    vector, outcome = trained(spec, images, QUICK.model_copy(update={"self_supervised": 0.0}))
    assert outcome.loss == 0
    assert outcome.unsure is None
    assert np.allclose(vector, to_vector(build(spec, 1)), atol=1e-4)


def test_a_silo_without_labels_learns_to_know_a_view_again(spec, fill_silo):
    """What it learns of itself holds for patients that it never saw: their views find their own second augmentation."""
    images = load(fill_silo(labelled=False, views=96), spec)
    model = build(spec, 1)
    before = found_again(model, images.where(images.held_out))
    settings = TrainSettings(batch_size=16, steps=60, learning_rate=3e-3, precision="float32")
    outcome = train_round(model, images.where(~images.held_out), settings, round_number=0, rounds=1, seed=1)
    assert np.isfinite(outcome.loss)
    assert found_again(model, images.where(images.held_out)) > before + 0.2


def found_again(model, images):
    """Return the share of views whose second augmentation is nearer to them than any other view's."""
    pixels, generator = torch.from_numpy(images.pixels)[:, None], torch.Generator().manual_seed(3)
    one, other = (embed(model, augment(pixels, generator)[:, 0].numpy())[0] for _ in range(2))
    return float(((one @ other.T).argmax(axis=1) == np.arange(len(one))).mean())


@pytest.mark.parametrize("side", [0.0, 1.0])
def test_a_finding_that_all_views_have_or_none_is_not_learned_from(spec, images, side):
    """A silo with ill patients alone would teach that everybody is ill, and that all images are alike."""
    targets, known = images.targets.copy(), images.known.copy()
    targets[:], known[:] = side, True
    one_sided = Images(images.views, images.pixels, targets, known)
    unknown = Images(images.views, images.pixels, np.zeros_like(targets), np.zeros_like(known))
    assert trained(spec, one_sided)[0].tobytes() == trained(spec, unknown)[0].tobytes()


def test_findings_with_both_sides_are_learned_from_beside_one_sided_ones(spec, images):
    apart = images.told_apart()
    both = [(images.targets[images.known[:, f], f] > 0.5) for f in range(images.known.shape[1])]
    kept = [bool(one.any() and not one.all()) for one in both]
    assert any(kept)
    np.testing.assert_array_equal(apart.known, images.known & np.array(kept))
    np.testing.assert_array_equal(apart.targets[apart.known], images.targets[apart.known])
    assert not apart.targets[~apart.known].any()


def test_labelled_views_learn_as_if_there_were_no_self_supervision(spec, images):
    off = QUICK.model_copy(update={"self_supervised": 0.0})
    assert trained(spec, images)[0].tobytes() == trained(spec, images, off)[0].tobytes()


def test_views_without_labels_beside_labelled_ones_change_what_is_learned(spec, images):
    known = images.known.copy()
    known[::3] = False
    mixed = Images(images.views, images.pixels, images.targets, known)
    off = QUICK.model_copy(update={"self_supervised": 0.0})
    assert not np.array_equal(trained(spec, mixed)[0], trained(spec, mixed, off)[0])


@pytest.mark.parametrize("at_once", [1, 3, 8, 9])
def test_a_batch_in_parts_has_the_gradient_of_the_whole_batch(spec, images, at_once):
    """Also of what compares views with each other; unlabelled ones come twice."""
    known = images.known.copy()
    known[::3] = False
    mixed = Images(images.views, images.pixels, images.targets, known)
    settings = QUICK.model_copy(update={"steps": 1, "contrast": 1.0, "proximal": 0.1, "self_supervised": 1.0})
    whole, parted = build(spec, 1), build(spec, 1)
    losses = [
        train_round(one, mixed, settings, round_number=0, rounds=1, seed=1, means=means).loss
        for one, means in ((whole, Means()), (parted, Means(at_once=at_once)))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_a_round_tells_how_unsure_of_its_findings_it_was_apart_from_contrast(spec, images):
    model = build(spec, 1)
    for one in model.findings.parameters():
        nn.init.zeros_(one)
    one_step = QUICK.model_copy(update={"steps": 1, "contrast": 1.0})
    outcome = train_round(model, images, one_step, round_number=0, rounds=1, seed=1)
    assert outcome.unsure == pytest.approx(math.log(2), abs=1e-5)
    assert outcome.loss > outcome.unsure + 0.1


def test_a_round_ends_when_its_time_is_over_but_not_without_a_step(spec, images):
    model = build(spec, 1)
    outcome = train_round(model, images, QUICK, round_number=0, rounds=1, seed=1, means=Means(seconds=1e-9))
    assert (outcome.steps, outcome.planned, outcome.samples) == (1, 3, 8)
    timely = train_round(model, images, QUICK, round_number=0, rounds=1, seed=1, means=Means(seconds=3600))
    assert timely.steps == timely.planned == 3


def test_on_a_cpu_float16_is_what_it_is_quick_at(spec, images):
    first, again = (trained(spec, images, QUICK.model_copy(update={"precision": p}))[0] for p in ("float16", "auto"))
    assert first.tobytes() == again.tobytes()


def test_a_loss_that_is_not_finite_ends_the_round(spec, images):
    model = build(spec, 1)
    with torch.no_grad():
        model.findings.bias.fill_(float("nan"))
    with pytest.raises(UpdateRefused, match="the loss is not finite at step 1 of round 1"):
        train_round(model, images, QUICK, round_number=0, rounds=1, seed=1)


def test_no_images_is_said(spec, images):
    with pytest.raises(NotReady, match="no images to train on"):
        trained(spec, images.where(np.zeros(len(images), np.bool_)))


def test_bfloat16_is_close_to_float32(spec, images):
    losses = [trained(spec, images, QUICK.model_copy(update={"precision": p}))[1].loss for p in ("float32", "bfloat16")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_contrast_counts_the_root_of_how_many_findings_are_known(spec, images):
    """Two findings that are always there together make views as alike as one of them does."""
    twice = np.repeat(images.targets[:, :1], 2, axis=1)
    both = Images(images.views, images.pixels, twice, np.ones_like(images.known))
    one = Images(images.views, images.pixels, twice, both.known & (np.arange(2) == 0))

    def contrast(data):
        losses = [
            trained(spec, data, QUICK.model_copy(update={"steps": 1, "contrast": weight}))[1].loss for weight in (0.0, 1.0)
        ]
        return losses[1] - losses[0]

    assert contrast(both) == pytest.approx(contrast(one) * math.sqrt(2), rel=1e-5)


def test_what_the_network_sees_does_not_depend_on_its_precision(spec, images):
    """A grid of bfloat16 would move what it samples by most of a pixel."""
    seen = []
    for precision in ("float32", "bfloat16"):
        model = build(spec, 1)
        model.register_forward_pre_hook(lambda _, views: seen.append(views[0].clone()))
        settings = QUICK.model_copy(update={"precision": precision, "steps": 1})
        train_round(model, images, settings, round_number=0, rounds=1, seed=1)
    assert torch.equal(*seen)


def test_the_learning_rate_rises_and_falls_over_the_whole_job():
    settings = TrainSettings(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate_at(settings, done) for done in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] == rates[-1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 4),
        ({"epochs": 0.5}, 2),
        ({"epochs": 0.001}, 1),
        ({"steps": 7}, 7),
        ({"epochs": 10, "max_steps": 5}, 5),
        ({"steps": 7, "max_steps": 5}, 5),
    ],
)
def test_steps_of_a_round(settings, steps):
    assert TrainSettings(batch_size=32, **settings).steps_for(128) == steps


@pytest.mark.parametrize("option", [{"prototypes": 0.5}, {"proximal": 1.0}, {"photometry": "strong"}, {"smoothing": 0.1}])
def test_every_option_changes_what_is_learned(spec, images, option):
    settings = QUICK.model_copy(update=option)
    assert not np.array_equal(trained(spec, images)[0], trained(spec, images, settings)[0])


def test_the_proximal_term_holds_a_silo_near_the_round_s_start(spec, images):
    start = to_vector(build(spec, 1))
    free, held = (
        np.linalg.norm(trained(spec, images, QUICK.model_copy(update={"proximal": mu, "steps": 20}))[0] - start)
        for mu in (0.0, 100.0)
    )
    assert held < free


def test_averaged_heads_have_the_mean_of_the_silos_prototypes(spec):
    """Prototypes are rows of the findings head, so the sum of the weights averages them and nothing else is sent."""
    first, second, mean = build(spec, 1), build(spec, 2), build(spec, 3)
    load_vector(mean, (to_vector(first) + to_vector(second)) / 2)
    expected = (first.findings.weight + second.findings.weight) / 2
    assert torch.equal(Beginning.of(mean).prototypes, expected.detach())


def test_training_does_not_move_what_a_round_began_with(spec):
    model = build(spec, 1)
    began = Beginning.of(model)
    before = began.prototypes.clone()
    with torch.no_grad():
        model.findings.weight += 1
    assert torch.equal(began.prototypes, before)
