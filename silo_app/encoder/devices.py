"""Which graphics processors PyTorch can compute on, and which of them a silo computes on."""

import os
from typing import TYPE_CHECKING

from silo_app.errors import NotReady

if TYPE_CHECKING:
    import torch

__all__ = ["device_for", "devices_for", "graphics_processors"]

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def graphics_processors() -> tuple[str, ...]:
    """Return their names; none if PyTorch was built without support for them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def device_for(wanted: str) -> "torch.device":
    """Return the (first) device that `training.device` of silo.yaml names. Raises as `devices_for` does."""
    return devices_for(wanted)[0]


def devices_for(wanted: str) -> "tuple[torch.device, ...]":
    """Return the devices that `training.device` of silo.yaml names: auto, cpu, all, cuda, or cuda:1 and so on.

    "auto" is the first graphics processor, or the CPU where there is none; "all" is every graphics processor. From then on
    this process computes on them the same from the same, bit by bit, and in float32 what is to be float32.
    Raises `NotReady` for one that is not there.
    """
    import torch

    found = graphics_processors()
    if wanted == "cpu" or (wanted == "auto" and not found):
        return (torch.device("cpu"),)
    numbers = range(max(1, len(found))) if wanted == "all" else (int(wanted.partition(":")[2] or 0),)
    if max(numbers) >= len(found):
        raise NotReady(
            f"PyTorch finds {len(found)} graphics processors, so there is no {wanted}",
            where="silo.yaml: training.device",
            remedy='Set training.device to "auto" or "cpu", or install a PyTorch that supports it (`silo doctor`).',
        )
    _repeat_exactly()
    return tuple(torch.device("cuda", number) for number in numbers)


def _repeat_exactly() -> None:
    """Choose the same kernels every time, and none that add in any order (PyTorch's notes on reproducibility).

    TensorFloat-32 is turned off: what a job wants less precise it says (`training.precision`), and embeddings of one
    encoder must be the same on every silo's hardware.
    """
    import torch

    os.environ.setdefault(_CUBLAS, ":4096:8")  # read when the first product is made
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
