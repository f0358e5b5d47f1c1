"""AdamW in a silo's rounds: what it has learned of the gradients' sizes goes on from one round to the next.

A round is a few dozen steps. An optimizer that begins each of them anew knows the size of a gradient from one batch, then
from two, and its first steps are as long for a weight that hardly matters as for one that does. So where a job asks for it
(`training.squares`) the silo keeps the mean squared gradients of its last round (the "second moment" of Kingma and Ba,
"Adam", ICLR 2015), for itself: they never leave.
The mean direction (the first moment) is not kept: it is of weights that others have moved since. It grows from nothing over
the first steps of a round, which warms them up.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from silo_app.encoder.model import Encoder
from silo_app.encoder.settings import TrainSettings
from silo_app.errors import CheckpointInvalid

__all__ = ["Squares", "adamw", "squares_of"]

Squares = NDArray[np.float32]
"""AdamW's mean squared gradients in the order of the parameters, and last over how many steps; float32 (P + 1,), or (0,)."""


def adamw(model: Encoder, settings: TrainSettings, squares: Squares | None = None) -> torch.optim.Optimizer:
    """Return a round's optimizer, going on from `squares` if there are any.

    On a graphics processor one kernel steps for all weights. Raises `CheckpointInvalid` for squares of another network.
    """
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=settings.weight_decay, fused=model.device.type == "cuda")
    if squares is None or not len(squares):
        return optimizer
    sizes = [weight.numel() for weight in weights]
    if squares.shape != (sum(sizes) + 1,):
        raise CheckpointInvalid(
            f"squared gradients of {len(squares) - 1} weights for a network of {sum(sizes)}",
            remedy="They are of another job's network; the silo takes part again in the next job.",
        )
    state = {
        number: {"step": torch.tensor(float(squares[-1])), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": part}
        for number, (weight, part) in enumerate(zip(weights, _parts(squares[:-1], weights), strict=True))
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return optimizer


def squares_of(optimizer: torch.optim.Optimizer) -> Squares:
    """Return what the next round's optimizer goes on from; none if this one has made no step."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    states = [optimizer.state.get(weight) for weight in weights]
    if not all(states):
        return np.empty(0, np.float32)
    flat = torch.cat([state["exp_avg_sq"].float().ravel() for state in states if state])
    steps = max(float(state["step"]) for state in states if state)
    return np.append(flat.cpu().numpy(), np.float32(steps))


def _parts(squares: NDArray[np.float32], weights: list[torch.nn.Parameter]) -> list[Tensor]:
    values = torch.from_numpy(np.array(squares, np.float32)).to(weights[0].device)
    parts = torch.split(values, [weight.numel() for weight in weights])
    return [part.reshape(weight.shape) for part, weight in zip(parts, weights, strict=True)]
