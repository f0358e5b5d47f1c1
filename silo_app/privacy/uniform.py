"""Whole numbers that nobody can foresee, each as likely as any other: from a cipher's keystream, as `gaussian`'s are.

A generator for simulations gives its state away to whoever sees some of its numbers, and with the state all others.
"""

import numpy as np
from numpy.typing import NDArray

from silo_app.keystream import Keystream

__all__ = ["UniformNumbers"]

_ALL = 1 << 32


class UniformNumbers(Keystream):
    """A stream of uniform numbers: AES-256 in counter mode (NIST SP 800-38A), read 32 bits at a time."""

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """Return the next numbers from 0 to `bound` - 1, int64 (count,); `bound` is at most 2^32.

        Words beyond the last multiple of `bound` are passed over: their remainders would make small numbers likelier.
        """
        found = np.empty(0, np.int64)
        while len(found) < count:
            words = np.frombuffer(self.octets(4 * (count - len(found))), "<u4").astype(np.int64)
            found = np.concatenate([found, words[words < _ALL - _ALL % bound] % bound])
        return found
