"""Batches in ever smaller parts, where a graphics processor's memory does not hold them: others may be using it too."""

from collections.abc import Callable
from typing import TypeVar

import torch

from silo_app.errors import NotReady

__all__ = ["in_parts", "short_of_memory"]

Made = TypeVar("Made")


def in_parts(work: Callable[[int | None], Made], at_once: int | None, *, batch: int) -> tuple[Made, int | None]:
    """Return what `work(at_once)` gives, and the number of views at once with which memory sufficed.

    `work` begins anew each time, with half as many views: whatever it changes it must set back first. None stands for all
    of `batch` views. Raises `NotReady` where memory does not hold one view.
    """
    while True:
        try:
            return work(at_once), at_once
        except torch.OutOfMemoryError:
            tried = min(at_once or batch, batch)
        if tried <= 1:
            raise short_of_memory("does not hold one view")
        at_once = tried // 2
        torch.cuda.empty_cache()


def short_of_memory(problem: str) -> NotReady:
    """Return the error of a graphics processor whose memory has this problem."""
    return NotReady(
        f"the graphics processor's memory {problem}",
        where="silo.yaml: training.device",
        remedy='Free it (`nvidia-smi` shows who uses it), or set training.device to "cpu".',
    )
