"""How an encoder's tensors lie in one flat vector: names and shapes, in an order that all silos share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Self

import msgpack
import numpy as np
from numpy.typing import ArrayLike, NDArray

from silo_app.errors import UpdateRefused

__all__ = ["Layout", "digest_of"]


@dataclass(frozen=True)
class Layout:
    """The tensors of an update: T names and T shapes; what travels is float32 (P,), P the sum of their sizes."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a layout without values, with a name twice, or of names and shapes that do not pair."""
        if len(self.names) != len(self.shapes) or len(set(self.names)) != len(self.names) or not self.size:
            raise UpdateRefused(
                f"{len(self.names)} tensor names ({len(set(self.names))} different), {len(self.shapes)} shapes",
                where="layout",
                remedy="Give every tensor one name and one shape, and at least one value in all.",
            )

    @classmethod
    def of(cls, tensors: Mapping[str, ArrayLike]) -> Self:
        """Return the layout of `tensors`, in their order."""
        return cls(tuple(tensors), tuple(np.shape(tensor) for tensor in tensors.values()))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of values of each tensor, int64 (T,)."""
        return np.array([prod(shape) for shape in self.shapes], dtype=np.int64)

    @cached_property
    def size(self) -> int:
        """The number of values of all tensors, P."""
        return sum(prod(shape) for shape in self.shapes)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of names and shapes."""
        return sha256(msgpack.packb([list(self.names), [list(shape) for shape in self.shapes]])).digest()

    def slices(self) -> Iterator[slice]:
        """Yield where each tensor lies in the flat vector."""
        ends = np.cumsum(self.sizes).tolist()
        return (slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))

    def flatten(self, tensors: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Return `tensors` as one float32 (P,), in the layout's order. Raises `UpdateRefused` if they do not fit."""
        shapes = {name: np.shape(tensor) for name, tensor in tensors.items()}
        if shapes != dict(zip(self.names, self.shapes, strict=True)):
            raise UpdateRefused(
                f"{len(tensors)} tensors do not have the names and shapes of this layout of {len(self.names)}",
                where="layout",
                remedy="Train with the encoder settings of the job.",
            )
        return np.concatenate([np.asarray(tensors[name], dtype=np.float32).ravel() for name in self.names])

    def unflatten(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the tensors in `vector`, float32 (P,), as views of it."""
        return {
            name: vector[place].reshape(shape)
            for name, shape, place in zip(self.names, self.shapes, self.slices(), strict=True)
        }


def digest_of(vector: NDArray[np.float32]) -> bytes:
    """Return SHA-256 of a flat vector, little-endian, for silos to compare their initial weights."""
    return sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).digest()
