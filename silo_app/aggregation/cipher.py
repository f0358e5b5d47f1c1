"""BFV by SEAL (through TenSEAL): symmetric, seeded ciphertexts of 8,192 slots, and their sums.

A fresh symmetric ciphertext is half random; `SerializableCiphertext.save` writes the seed instead of that half, which
makes an upload half as large as a sum (65.7 against 131.2 KB). Security: 128 bits by SEAL's table for N = 8192 and a
coefficient modulus of 120 bits (HomomorphicEncryption.org standard 2018). Sums are exact modulo the plaintext modulus.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app.errors import KeyRefused, UpdateRefused

__all__ = ["SLOTS", "JobKey", "Sum", "modulus"]

SLOTS = 8192
_PLAIN_BITS = 50
_COEFFICIENT_BITS = [60, 60]
MAX_CIPHERTEXT_BYTES = 160 * 1024


@cache
def _seal() -> Any:
    import tenseal.sealapi as seal

    return seal


@cache
def _context() -> Any:
    seal = _seal()
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(SLOTS)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(SLOTS, _COEFFICIENT_BITS))
    parameters.set_plain_modulus(seal.PlainModulus.Batching(SLOTS, _PLAIN_BITS))
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)


@cache
def modulus() -> int:
    """Return the plaintext modulus t, a prime of 50 bits."""
    return int(_context().key_context_data().parms().plain_modulus().value())


@contextmanager
def _memory_file(content: bytes = b"") -> Iterator[tuple[int, str]]:
    """SEAL reads and writes paths only: give it one that never reaches a disk."""
    descriptor = os.memfd_create("siloscope", os.MFD_CLOEXEC)
    try:
        if content:
            os.write(descriptor, content)
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _saved(item: Any) -> bytes:
    with _memory_file() as (descriptor, path):
        item.save(path)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _loaded(message: bytes) -> Any:
    if len(message) > MAX_CIPHERTEXT_BYTES:
        raise _refused(f"a ciphertext of {len(message)} bytes")
    ciphertext = _seal().Ciphertext(_context())
    with _memory_file(message) as (_, path):
        try:
            ciphertext.load(_context(), path)
        except (RuntimeError, ValueError, IndexError):
            raise _refused("a ciphertext that SEAL cannot read") from None
    if ciphertext.size() != 2:
        raise _refused(f"a ciphertext of {ciphertext.size()} parts")
    return ciphertext


class JobKey:
    """The secret key of one job; only silos have it, in memory."""

    def __init__(self, secret: Any) -> None:
        self._secret = secret
        self._encryptor = _seal().Encryptor(_context(), secret)
        self._decryptor = _seal().Decryptor(_context(), secret)
        self._encoder = _seal().BatchEncoder(_context())

    @classmethod
    def generate(cls) -> "JobKey":
        """Make a new key."""
        return cls(_seal().KeyGenerator(_context()).secret_key())

    @classmethod
    def from_bytes(cls, content: bytes) -> "JobKey":
        """Read a key that `to_bytes` wrote. Raises `KeyRefused`."""
        secret = _seal().SecretKey()
        with _memory_file(content) as (_, path):
            try:
                secret.load(_context(), path)
            except (RuntimeError, ValueError, IndexError):
                raise KeyRefused("the job's key cannot be read", remedy="Submit the job again.") from None
        return cls(secret)

    def to_bytes(self) -> bytes:
        """Return the key's bytes, to be wrapped for another silo and never stored."""
        return _saved(self._secret)

    def encrypt(self, slots: NDArray[np.uint64]) -> Iterator[bytes]:
        """Yield seeded ciphertexts of `slots`, uint64 (S,) below the modulus, 8,192 at a time."""
        plaintext = _seal().Plaintext()
        for start in range(0, len(slots), SLOTS):
            part = np.zeros(SLOTS, np.uint64)
            part[: min(SLOTS, len(slots) - start)] = slots[start : start + SLOTS]
            self._encoder.encode(part, plaintext)
            yield _saved(self._encryptor.encrypt_symmetric(plaintext))

    def decrypt(self, ciphertexts: Iterable[bytes], count: int) -> NDArray[np.uint64]:
        """Return the `count` slots, uint64 (count,), of a sum. Raises `UpdateRefused` for what is no ciphertext."""
        plaintext = _seal().Plaintext()
        slots = np.empty(-(-count // SLOTS) * SLOTS, np.uint64)
        start = 0
        for message in ciphertexts:
            if start >= len(slots):
                raise _refused("more ciphertexts than the layout has")
            self._decryptor.decrypt(_loaded(message), plaintext)
            slots[start : start + SLOTS] = self._encoder.decode_uint64(plaintext)
            start += SLOTS
        if start != len(slots):
            raise _refused(f"{start // SLOTS} ciphertexts instead of {len(slots) // SLOTS}")
        return slots[:count]


class Sum:
    """Ciphertexts added as they arrive, without any key; holds one update's worth of memory."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._evaluator = _seal().Evaluator(_context())
        self._total: list[Any] = []

    def add(self, ciphertexts: Iterable[bytes]) -> None:
        """Add one silo's ciphertexts. Raises `UpdateRefused`, and then nothing of them was added."""
        items = [_loaded(message) for message in ciphertexts]
        if len(items) != self._count:
            raise _refused(f"{len(items)} ciphertexts instead of {self._count}")
        if not self._total:
            self._total = items
            return
        for own, other in zip(self._total, items, strict=True):
            self._evaluator.add_inplace(own, other)

    def ciphertexts(self) -> Iterator[bytes]:
        """Yield the sum's ciphertexts."""
        return (_saved(item) for item in self._total)


def _refused(what: str) -> UpdateRefused:
    return UpdateRefused(f"the message holds {what}", remedy="Nothing of it was used; the silo answers the next round.")
