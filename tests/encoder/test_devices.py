import pytest
import torch

from silo_app.encoder.devices import device_for, devices_for, graphics_processors
from silo_app.encoder.passes import Passes
from silo_app.errors import NotReady


def test_the_cpu_can_always_be_chosen():
    assert device_for("cpu") == torch.device("cpu")


def test_auto_takes_a_graphics_processor_where_there_is_one():
    assert device_for("auto").type == ("cuda" if graphics_processors() else "cpu")


def test_all_takes_every_graphics_processor():
    if not (found := graphics_processors()):
        with pytest.raises(NotReady, match="so there is no all"):
            devices_for("all")
    else:
        assert devices_for("all") == tuple(torch.device("cuda", number) for number in range(len(found)))


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
