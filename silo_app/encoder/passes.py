"""How a batch goes through the network on this silo's hardware: where, how precisely, and how many views at a time.

A silo whose memory does not hold the job's batch passes it in parts and still gets the whole batch's gradient, also of
losses that compare views with each other: the loss is taken of all outputs, and its gradients by the outputs are carried
back part by part in a second pass (Gao et al., "Scaling deep contrastive learning batch size under memory limited setup",
RepL4NLP 2021). The network has no batch statistics, so the parts do not differ from the whole. It costs one more forward
pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Passes", "Precision"]

_FIRST_SCALE = 4096.0
"""Every round begins anew: a scale that overflows costs a step each time until it has fallen."""

Precision = str
"""As in `TrainSettings.precision`: auto, float32, bfloat16 or float16."""


@dataclass(frozen=True)
class Passes:
    """A silo's way of passing batches through a network on `device`."""

    device: torch.device
    dtype: torch.dtype
    """Of what the network computes; weights, losses and sums stay float32."""
    at_once: int | None
    """The most views in one pass; None for all of a batch."""
    scaler: torch.amp.GradScaler
    """With float16 the loss is scaled, so that small gradients do not vanish; otherwise it does nothing."""

    @classmethod
    def on(cls, device: torch.device, precision: Precision, at_once: int | None = None) -> "Passes":
        """Return the passes on `device` with the precision that the job asks for and the device is good at."""
        dtype = _dtype_on(device, precision)
        scaler = torch.amp.GradScaler(device.type, init_scale=_FIRST_SCALE, enabled=dtype is torch.float16)
        return cls(device, dtype, at_once, scaler)

    def through(self, network: nn.Module, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, D) and logits (B, F) of `views` (B, 1, S, S), float32."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            embedding, logits = network(views)
        return embedding.float(), logits.float()  # a softmax over similarities needs more than 8 bits

    @staticmethod
    def over(model: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
        """Return what divides a pass of `model` among graphics processors; the model itself for one device or none.

        The model stays on the first, with all of the gradient; the others have copies for as long as a pass lasts.
        """
        if len(devices) < 2:
            return model
        return nn.DataParallel(model, device_ids=[device.index for device in devices])

    def backward(self, network: nn.Module, views: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Add the (scaled) gradient of `loss_of(embedding, logits)` to the parameters' and return the loss, a scalar."""
        if self.at_once is None or len(views) <= self.at_once:
            loss = loss_of(*self.through(network, views))
            _back(self.scaler.scale(loss))
            return loss.detach()
        parts = torch.split(views, self.at_once)
        with torch.no_grad():
            outputs = [self.through(network, part) for part in parts]
        embedding, logits = (torch.cat(each).requires_grad_() for each in zip(*outputs, strict=True))
        loss = loss_of(embedding, logits)
        _back(self.scaler.scale(loss))
        gradients = [torch.split(_gradient(one), self.at_once) for one in (embedding, logits)]
        for part, *of_part in zip(parts, *gradients, strict=True):
            torch.autograd.backward(self.through(network, part), of_part)
        return loss.detach()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer step with gradients that `unscaled` has seen; with float16 one that overflowed is left out."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def unscaled(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the scale off the gradients, before anything looks at their size."""
        self.scaler.unscale_(optimizer)


def _dtype_on(device: torch.device, precision: Precision) -> torch.dtype:
    """Return what the network computes in: float16 is for graphics processors, a CPU takes what it is quick at instead."""
    on_cpu = device.type == "cpu"
    if precision == "float16" and not on_cpu:
        return torch.float16
    if precision in {"float32", "bfloat16"}:
        return torch.float32 if precision == "float32" else torch.bfloat16
    quick = _cpu_is_quick_at_bfloat16() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)
    if quick:
        return torch.bfloat16
    return torch.float32 if on_cpu else torch.float16


def _cpu_is_quick_at_bfloat16() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our oldest torch
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _gradient(output: Tensor) -> Tensor:
    return output.grad if output.grad is not None else torch.zeros_like(output)


def _back(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
