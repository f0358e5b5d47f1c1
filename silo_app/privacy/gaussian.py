"""Gaussian noise that nobody can foresee: normal numbers from a cipher's keystream.

A generator for simulations will not do. Torch's on the CPU keeps 32 bits of its seed, so whoever sees one update could try
all of them; and none of its kind is made to resist somebody who sees what it gave. The uniform numbers here are AES-256 in
counter mode (NIST SP 800-38A) under a key from the system's entropy.
"""

import numpy as np
from numpy.typing import NDArray

from silo_app.keystream import Keystream

__all__ = ["GaussianNoise"]

_BITS = np.uint64(52)
"""Of a uniform number, with half a step added: so none is 0 or 1, and normal numbers go to 8.5 deviations."""


class GaussianNoise(Keystream):
    """A stream of standard normal numbers."""

    def draw(self, count: int) -> NDArray[np.float64]:
        """Return the next standard normal numbers, float64 (count,): Box and Muller's transform of uniform ones (1958)."""
        pairs = -(-count // 2)
        drawn = np.frombuffer(self.octets(16 * pairs), "<u8") >> (np.uint64(64) - _BITS)
        first, second = ((drawn + 0.5) * 2.0 ** -float(_BITS)).reshape(2, pairs)
        radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
