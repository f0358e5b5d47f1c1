import pytest
import torch

from silo_app.encoder.devices import device_for, graphics_processors
from silo_app.encoder.passes import Passes
from silo_app.errors import NotReady


def test_the_cpu_can_always_be_chosen():
    assert device_for("cpu") == torch.device("cpu")


def test_auto_takes_a_graphics_processor_where_there_is_one():
    assert device_for("auto").type == ("cuda" if graphics_processors() else "cpu")


def test_a_graphics_processor_that_is_not_there_is_named():
    with pytest.raises(NotReady, match="so there is no cuda:99"):
        device_for("cuda:99")


@pytest.mark.parametrize(
    ("device", "precision", "dtype", "scaled"),
    [
        ("cpu", "float32", torch.float32, False),
        ("cpu", "bfloat16", torch.bfloat16, False),
        ("cuda", "float32", torch.float32, False),
        ("cuda", "bfloat16", torch.bfloat16, False),
        ("cuda", "float16", torch.float16, True),
    ],
)
def test_only_float16_needs_its_loss_scaled(device, precision, dtype, scaled, monkeypatch):
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)  # a scaler is made here too
    passes = Passes.on(torch.device(device), precision)
    assert (passes.dtype, passes.scaler.is_enabled()) == (dtype, scaled)


@pytest.mark.parametrize(("quick", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_graphics_processor_takes_the_half_that_it_has(quick, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: quick)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    assert Passes.on(torch.device("cuda"), "auto").dtype is dtype


@pytest.mark.skipif(not graphics_processors(), reason="needs a graphics processor")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_graphics_processor_learns_what_a_cpu_learns(spec, precision):
    from silo_app.encoder.model import build

    views = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    losses, norms = [], []
    for device in ("cpu", "cuda"):
        model, passes = (
            build(spec, 1).to(device),
            Passes.on(torch.device(device), "float32" if device == "cpu" else precision),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        loss = passes.backward(model, views.to(device), lambda embedding, logits: (embedding**2).mean() + logits.sum())
        passes.unscaled(optimizer)
        passes.step(optimizer)
        losses.append(loss.item())
        norms.append(sum(float((weight.grad**2).sum()) for weight in model.parameters()))
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.05)
    assert norms[0] == pytest.approx(norms[1], rel=0.2)
