"""What holds on a graphics processor: the same results as on a CPU, the same again, and memory that runs out."""

import numpy as np
import pytest
import torch
import yaml

from silo_app.encoder.controls import Controls
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.devices import device_for, graphics_processors
from silo_app.encoder.embed import embed
from silo_app.encoder.examine import examine
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.passes import Passes
from silo_app.encoder.private import Draws, train_round_privately
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import Means, train_round
from silo_app.encoder.trainer import Trainer
from silo_app.encoder.vectors import read_vector
from silo_app.keystream import KEY_BYTES
from silo_app.privacy.accountant import Steps
from silo_app.privacy.gaussian import GaussianNoise
from tests.encoder.test_examine import keep, with_policy

pytestmark = pytest.mark.skipif(not graphics_processors(), reason="needs a graphics processor")
QUICK = TrainSettings(batch_size=8, steps=6, contrast=1.0, self_supervised=0.5, precision="float32")
PRECISIONS = ("float32", "bfloat16", "float16")


@pytest.fixture
def images(fill_silo, spec):
    """Half of the views without labels, so that every loss takes part."""
    whole = load(fill_silo(), spec)
    known = whole.known.copy()
    known[::2] = False
    return Images(whole.views, whole.pixels, whole.targets, known)


def trained(spec, images, device, settings=QUICK, **means):
    model = build(spec, 1).to(device_for(device))
    outcome = train_round(model, images, settings, round_number=0, rounds=1, seed=1, means=Means(**means))
    return to_vector(model), outcome


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_learns_what_a_cpu_learns(spec, precision):
    views = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    losses, norms = [], []
    for device in ("cpu", "cuda"):
        model = build(spec, 1).to(device_for(device))
        passes = Passes.on(torch.device(device), "float32" if device == "cpu" else precision)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        loss = passes.backward(model, views.to(device), lambda embedding, logits: (embedding**2).mean() + logits.sum())
        passes.unscaled(optimizer)
        passes.step(optimizer)
        losses.append(loss.item())
        norms.append(sum(float((weight.grad**2).sum()) for weight in model.parameters()))
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.05)
    assert norms[0] == pytest.approx(norms[1], rel=0.2)


@pytest.mark.parametrize("backbone", ["densenet-small", "densenet121", "mednext-small"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_seed_gives_the_same_weights_bit_by_bit(spec, images, precision, backbone):
    spec, settings = spec.model_copy(update={"backbone": backbone}), QUICK.model_copy(update={"precision": precision})
    first, again = (trained(spec, images, "cuda", settings)[0] for _ in range(2))
    assert np.isfinite(first).all()
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("at_once", [3, 8])
def test_a_batch_in_parts_is_learned_as_a_whole(spec, images, at_once):
    whole, parted = trained(spec, images, "cuda")[1], trained(spec, images, "cuda", at_once=at_once)[1]
    assert whole.loss == pytest.approx(parted.loss, rel=1e-2)


def test_a_batch_divided_among_processors_is_learned_as_a_whole(spec, images):
    """One processor twice, where there is no second."""
    second = torch.device("cuda", len(graphics_processors()) - 1)
    whole = trained(spec, images, "cuda")[1]
    divided = trained(spec, images, "cuda", devices=(torch.device("cuda", 0), second))[1]
    assert whole.loss == pytest.approx(divided.loss, rel=1e-2)


def test_embeddings_are_those_of_a_cpu(spec):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32), np.uint8)
    for backbone in ("densenet-small", "densenet121"):
        model = build(spec.model_copy(update={"backbone": backbone}), 1)
        expected = embed(model, pixels)
        found = embed(model.to(device_for("cuda")), pixels)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_private_round_gives_what_it_gives_on_a_cpu(spec, images):
    vectors = []
    for device in ("cpu", "cuda"):
        model = build(spec, 1).to(device_for(device))
        draws = Draws(np.random.default_rng(1), GaussianNoise(bytes(KEY_BYTES)))
        settings = QUICK.model_copy(update={"contrast": 0.0, "movement": 0.0, "learning_rate": 1e-4})
        train_round_privately(
            model, images, settings, Steps(1.0, 0.5, 2), clip_norm=0.5, round_number=0, rounds=1, draws=draws
        )
        vectors.append(to_vector(model))
    assert np.isfinite(vectors[1]).all()
    # Augmentation's draws differ between devices; the noise, which is most of a step, does not.
    start = to_vector(build(spec, 1))
    steps = [vector - start for vector in vectors]
    assert np.corrcoef(*steps)[0, 1] > 0.8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_round_goes_on_there_from_the_squares_of_the_one_before(spec, images, precision):
    chosen = QUICK.model_copy(update={"precision": precision, "squares": "kept"})
    _, first = trained(spec, images, "cuda", chosen)
    model = build(spec, 1).to(device_for("cuda"))
    second = train_round(model, images, chosen, round_number=1, rounds=2, seed=1, squares=first.squares)
    assert 0 < first.squares[-1] < second.squares[-1] <= 2 * QUICK.steps
    assert np.isfinite(to_vector(model)).all()


def test_gradients_are_corrected_there(spec, images):
    model = build(spec, 1).to(device_for("cuda"))
    controls = Controls(model, np.zeros(len(to_vector(model)), np.float32))
    train_round(model, images, QUICK, round_number=0, rounds=1, seed=1, controls=controls)
    assert np.abs(controls.mean()).max() > 0


def test_an_evaluation_tells_what_it_tells_on_a_cpu(fill_silo, spec):
    home = fill_silo("alpha", views=128, seed=1)
    keep(home, spec)
    answers = []
    for device in ("cpu", "cuda"):
        ours = with_policy(home, min_patients=4)
        training = ours.config.training.model_copy(update={"device": device})
        ours = ours.model_copy(update={"config": ours.config.model_copy(update={"training": training})})
        answers.append(examine(ours, None))
    (finding, expected), *_ = answers[0].findings.items()
    assert answers[1].findings[finding].auc.value == pytest.approx(expected.auc.value, abs=0.01)


def test_the_trainer_child_trains_in_parts_where_memory_is_short(fill_silo, spec, tmp_path):
    """Somebody else holds most of the processor's memory; the same round then goes on with fewer views at once."""
    home, folder = fill_silo(views=64), tmp_path / "work"
    folder.mkdir(mode=0o700)
    content = {"name": "alpha", "training": {"device": "cuda"}}
    (home.kit / "local" / "silo.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    big = spec.model_copy(update={"backbone": "densenet121", "input_size": 224}).model_dump(mode="json")
    settings = {"batch_size": 64, "steps": 1, "precision": "float32"}
    losses = []
    for left in (None, 3_000_000_000):
        free, _ = torch.cuda.mem_get_info()
        held = torch.empty(0 if left is None else free - left, dtype=torch.uint8, device="cuda")
        with Trainer.start(home.kit, folder, threads=1) as trainer:
            opened = trainer.request("open", spec=big, seed=1)
            answer = trainer.request("train", weights=opened["weights"], settings=settings, round=0, rounds=1, seed=1)
        del held
        torch.cuda.empty_cache()
        losses.append(answer["loss"])
        assert ("views_at_once" in answer) == (left is not None)
        assert np.isfinite(read_vector(folder / "trained.safetensors")).all()
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_embeddings_are_made_in_parts_where_memory_is_short(spec):
    """As `silo index build` on a processor whose memory somebody else holds."""
    big = spec.model_copy(update={"backbone": "densenet121", "input_size": 224})
    pixels = np.random.default_rng(0).integers(0, 256, (100, 224, 224), np.uint8)
    model = build(big, 1).to(device_for("cuda"))
    expected, told = embed(model, pixels), []
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - 400_000_000, dtype=torch.uint8, device="cuda")
    found = embed(model, pixels, lambda done, total: told.append(done))
    del held
    torch.cuda.empty_cache()
    assert told[0] < 64
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, atol=1e-3)
