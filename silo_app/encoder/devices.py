"""Which graphics processors PyTorch can compute on, and which device a silo trains on."""

from typing import TYPE_CHECKING

from silo_app.errors import NotReady

if TYPE_CHECKING:
    import torch

__all__ = ["device_for", "graphics_processors"]


def graphics_processors() -> tuple[str, ...]:
    """Return their names; none if PyTorch was built without support for them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def device_for(wanted: str) -> "torch.device":
    """Return the device that `training.device` of silo.yaml names: auto, cpu, cuda, or cuda:1 and so on.

    "auto" is the first graphics processor, or the CPU where there is none. Raises `NotReady` for one that is not there.
    """
    import torch

    found = graphics_processors()
    if wanted == "cpu" or (wanted == "auto" and not found):
        return torch.device("cpu")
    number = int(wanted.partition(":")[2] or 0)
    if number >= len(found):
        raise NotReady(
            f"PyTorch finds {len(found)} graphics processors, so there is no {wanted}",
            where="silo.yaml: training.device",
            remedy='Set training.device to "auto" or "cpu", or install a PyTorch that supports it (`silo doctor`).',
        )
    return torch.device("cuda", number)
