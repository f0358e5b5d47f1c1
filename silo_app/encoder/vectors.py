"""Flat vectors in files between a process and its trainer: one safetensors tensor, private to the silo, no torch."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from silo_app import durable
from silo_app.errors import CheckpointInvalid

__all__ = ["read_vector", "write_vector"]

_NAME = "weights"


def write_vector(path: Path, vector: NDArray[np.float32]) -> None:
    """Write `vector`, float32 (P,), for its owner's eyes only."""
    durable.write_bytes(path, save({_NAME: np.ascontiguousarray(vector, np.float32)}))


def read_vector(path: Path) -> NDArray[np.float32]:
    """Read a vector, float32 (P,). Raises `CheckpointInvalid`."""
    try:
        vector = load_file(path)[_NAME]
    except (SafetensorError, KeyError, OSError) as error:
        raise CheckpointInvalid(
            f"the weights cannot be read: {type(error).__name__}", where=str(path), remedy="Run the step again."
        ) from None
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise CheckpointInvalid(
            f"expected one flat float32 tensor, found {vector.dtype} {vector.shape}",
            where=str(path),
            remedy="Run the step again.",
        )
    return vector
