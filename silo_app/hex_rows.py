"""Names of equal length in hexadecimal, digests and case ids, as rows of bytes: smaller in files, quick to compare."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["hex_rows", "row_values"]


def hex_rows(names: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Return hex names of `width` bytes each, (N,), as uint8 (N, width). Raises `ValueError` for what is none."""
    return np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(len(names), width)


def row_values(rows: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return each row of uint8 (N, width) as one value, (N,), ordered as its hexadecimal name is."""
    values: NDArray[np.void] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    return values
