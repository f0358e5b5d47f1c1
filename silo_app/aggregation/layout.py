"""The order of a network's tensors in one flat vector, agreed by all silos before the first round."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a network's tensors, in order; a flat vector of P values follows it."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, Iterable[int]]]) -> "Layout":
        """Return the layout of (name, shape) pairs."""
        pairs = [(name, tuple(int(side) for side in shape)) for name, shape in tensors]
        return cls(tuple(name for name, _ in pairs), tuple(shape for _, shape in pairs))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of values of each tensor, int64 (T,)."""
        return np.array([math.prod(shape) for shape in self.shapes], dtype=np.int64)

    @property
    def size(self) -> int:
        """P, the number of values in all."""
        return int(self.sizes.sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and shapes, hex."""
        text = json.dumps([self.names, self.shapes])
        return hashlib.sha256(text.encode()).hexdigest()

    def spread(self, per_tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Repeat one value a tensor (T,) to one a weight (P,)."""
        return np.repeat(per_tensor, self.sizes)

    def largest(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the largest magnitude of each tensor of `vector` (P,), float32 (T,)."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return np.maximum.reduceat(np.abs(vector), starts).astype(np.float32)
