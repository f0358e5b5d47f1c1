"""Numbers that are summed beside an update, under the same encryption, for silos alone to see; pure."""

from collections.abc import Mapping
from typing import Any

__all__ = ["held_out_numbers", "numbers_beside"]


def numbers_beside(trained: Mapping[str, Any], held_out: Mapping[str, Any], *, private: bool) -> dict[str, float]:
    """Return what is summed beside an update, for silos alone to see: how much was trained, and how well it went.

    Of a private job only what follows from its plan: a loss would tell of patients, and nobody has paid for it.
    """
    return {
        "steps": float(trained["steps"]),
        "steps_planned": float(trained["planned"]),
        "images": float(trained["samples"]),
        "loss_steps": 0.0 if private else float(trained["loss"]) * trained["steps"],
        **held_out_numbers(held_out),
    }


def held_out_numbers(held_out: Mapping[str, Any]) -> dict[str, float]:
    """Return how much is known of the held-out views (labels, over all findings) and the sum of its losses.

    Not the number of views: a silo that labels few of them knows no more of the weights than these few tell.
    """
    loss = held_out.get("loss")
    known = float(held_out.get("known") or 0) if loss is not None else 0.0
    return {"held_out_known": known, "held_out_loss_known": known * float(loss or 0.0)}
