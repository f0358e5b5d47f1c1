"""SCAFFOLD in one round of a silo: correct every gradient, and remember what the silo's own were on average.

The paper's option II takes c_i from how far the weights went, (x - y) / (K eta), less the correction. With plain gradient
steps that is the mean of the round's own gradients; here it is computed as that mean, since AdamW's steps do not tell
their gradients. They are clipped before, so that no batch weighs more in c_i than `training.clip_norm`.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Controls"]


class Controls:
    """The corrections of one round, for the first of a network's parameters that `correction` (P,) covers."""

    def __init__(self, model: nn.Module, correction: NDArray[np.float32]) -> None:
        """Take `correction`, c - c_i in the order of the flat vector; personal weights behind it are not corrected."""
        self._parameters: list[nn.Parameter] = []
        self._corrections: list[Tensor] = []
        start = 0
        for weight in model.parameters():
            if start >= len(correction):
                break
            part = torch.from_numpy(correction[start : start + weight.numel()]).to(weight.device)
            self._corrections.append(part.reshape(weight.shape))
            self._parameters.append(weight)
            start += weight.numel()
        self._gathered = [torch.zeros_like(weight) for weight in self._parameters]
        self._steps = 0

    def correct(self) -> None:
        """Remember the gradients and add the corrections; gradients that overflowed (float16) are no step."""
        gradients = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in self._parameters]
        if not _finite(gradients):
            return
        for weight, grad, correction, gathered in zip(
            self._parameters, gradients, self._corrections, self._gathered, strict=True
        ):
            gathered.add_(grad)
            weight.grad = grad + correction
        self._steps += 1

    def mean(self) -> NDArray[np.float32]:
        """Return the mean of the silo's own gradients, float32 (P,): its next c_i."""
        parts = [(one / max(self._steps, 1)).cpu().numpy().ravel() for one in self._gathered]
        return np.concatenate(parts)


def _finite(gradients: Iterable[Tensor]) -> bool:
    """Return whether all values are finite; asked once, since each question stops a graphics processor."""
    return bool(torch.stack([torch.isfinite(one).all() for one in gradients]).all())
