"""Encrypt and decrypt blocks of slots with BFV, symmetric and seeded. The only importer of tenseal.

`tenseal.sealapi` carries Microsoft SEAL (https://github.com/microsoft/SEAL). Slots are the coefficients of a plaintext
polynomial: they add like SEAL's batched slots do, without its number theoretic transform and its lists of Python's
integers, by which encoding and decoding took a third of the time of a round. Two habits keep SEAL away from what others send
and from what is secret:

- A key travels as the 64 random bytes from which SEAL's generator makes it, so no key is ever written, even in memory
  files.
- SEAL reads and writes ciphertexts through file names only. What it writes is constant except for the c0 words and the
  seed; those alone travel. On arrival they are put into our own frame, so its parser never sees foreign structure. What it
  writes of a plaintext is packed by Zstandard, and never leaves the process.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256

import numpy as np
import tenseal.sealapi as seal
import zstandard
from numpy.typing import NDArray

from silo_app.aggregation.ring import DEGREE, MODULUS, MODULUS_BITS, SEED_BYTES, SLOT_MODULUS
from silo_app.errors import KeyRefused, NotReady
from silo_app.memory_file import content_of, memory_file

__all__ = ["SECRET_BYTES", "Cipher", "new_secret"]

SECRET_BYTES = 64
SEED_HEADER_BYTES = 17  # of SEAL's UniformRandomGeneratorInfo: its 16-byte header and the generator's type
WORD_BYTES = 8 * DEGREE
ATTEMPTS = 8
HEADER_BYTES = 16  # of SEAL's SEALHeader: magic number, header length, version, packing, reserved, size
PACKING = 5  # where in it
UNPACKED, ZSTANDARD = 0, 2  # SEAL's compr_mode_type
COUNT_AT = 32  # in a plaintext: after the parameters' id come the number of coefficients, the scale and the coefficients
COUNT_BYTES = 8


def new_secret() -> bytes:
    """Return the random bytes from which a new BFV key is made."""
    return secrets.token_bytes(SECRET_BYTES)


@cache
def _parameters() -> seal.EncryptionParameters:
    """Return the one parameter set: BFV, N = 8192, 60-bit ciphertexts, 2^50 as plaintext modulus."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, list(MODULUS_BITS)))
    parameters.set_plain_modulus(seal.Modulus(SLOT_MODULUS))
    if parameters.coeff_modulus()[0].value() != MODULUS:
        raise NotReady(
            f"this SEAL has the ciphertext modulus {parameters.coeff_modulus()[0].value()}, not {MODULUS}",
            remedy="Install the tenseal of constraints.txt.",
        )
    return parameters


def _context(parameters: seal.EncryptionParameters) -> seal.SEALContext:
    """Return SEAL's context for `parameters`, refused by SEAL itself below 128-bit security."""
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise NotReady(
            f"SEAL refuses the parameters: {context.parameters_error_message()}",
            remedy="Install the tenseal of constraints.txt.",
        )
    return context


def _secret_key(secret: bytes) -> seal.SecretKey:
    """Return the key that SEAL's generator makes when `secret` seeds it; the same at every silo."""
    seed = np.frombuffer(secret, dtype="<u8").tolist()
    parameters = seal.EncryptionParameters(_parameters())
    parameters.set_random_generator(seal.Blake2xbPRNGFactory(seed))
    return seal.KeyGenerator(_context(parameters)).secret_key()


def _key_id(key: seal.SecretKey) -> bytes:
    """Return 16 bytes that tell keys apart: a digest of the key itself, so that a silo checks what it was given."""
    coefficients = key.data()
    values = [coefficients.data(index) for index in range(0, DEGREE, 8)]
    return sha256(b"siloscope/bfv-key/1" + np.array(values, dtype="<u8").tobytes()).digest()[:16]


class Cipher:
    """One BFV key: encrypts slots and decrypts sums. It never shows the key, not in `repr` and not to pickle."""

    def __init__(self, secret: bytes) -> None:
        """Make the key from `SECRET_BYTES` random bytes."""
        if len(secret) != SECRET_BYTES:
            raise KeyRefused(
                f"a key of {len(secret)} bytes instead of {SECRET_BYTES}",
                remedy="Compare the versions of siloscope at the silos.",
            )
        key = _secret_key(secret)
        self.key_id = _key_id(key)
        self._context = _context(_parameters())  # of its own: the key's context repeats its randomness
        self._encryptor = seal.Encryptor(self._context, key)
        self._decryptor = seal.Decryptor(self._context, key)
        self._evaluator = seal.Evaluator(self._context)
        with memory_file("ciphertext") as (descriptor, path):
            self._frame = self._learn_frame(descriptor, path)
            self._plain_frame = _learn_plain_frame(descriptor, path)

    def __reduce__(self) -> str:
        """Refuse to be copied or pickled."""
        raise TypeError("a Cipher holds a key and is not serialized")

    def encrypt(self, rows: Iterable[NDArray[np.uint64]]) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint8]]]:
        """Encrypt rows of slots, each uint64 (DEGREE,) below t, one at a time.

        Yield c0, uint64 (DEGREE,) below Q, and the seed of c1, uint8 (SEED_BYTES,), of each.
        """
        plain = seal.Plaintext()
        with memory_file("ciphertext") as (descriptor, path):
            for row in rows:
                os.pwrite(descriptor, self._plain_frame + row.astype("<u8", copy=False).tobytes(), 0)
                plain.load(self._context, path)
                yield self._encrypt_block(plain, descriptor, path)

    def decrypt(self, rows: Iterable[NDArray[np.uint64]], seeds: NDArray[np.uint8]) -> Iterator[NDArray[np.uint64]]:
        """Decrypt a sum: rows of c0 summed, uint64 (DEGREE,), and the seeds of n silos, uint8 (n, blocks, SEED_BYTES).

        Yield the slots of the sum, uint64 (DEGREE,) below t, row by row.
        """
        zeros = np.zeros(DEGREE, dtype=np.uint64)
        total, other, plain = seal.Ciphertext(), seal.Ciphertext(), seal.Plaintext()
        with memory_file("ciphertext") as (descriptor, path):
            for block, c0 in enumerate(rows):
                self._load(total, c0, seeds[0, block], descriptor, path)
                for seed in seeds[1:, block]:
                    self._load(other, zeros, seed, descriptor, path)
                    self._evaluator.add_inplace(total, other)
                self._decryptor.decrypt(total, plain)
                plain.save(path)
                yield self._coefficients(content_of(descriptor))

    def _learn_frame(self, descriptor: int, path: str) -> tuple[bytes, bytes]:
        """Return the constant bytes that SEAL writes before c0 and between c0 and the seed."""
        self._encryptor.encrypt_zero_symmetric().save(path)
        saved = content_of(descriptor)
        words_end = len(saved) - SEED_BYTES - SEED_HEADER_BYTES
        return saved[: words_end - WORD_BYTES], saved[words_end:-SEED_BYTES]

    def _encrypt_block(
        self, plain: seal.Plaintext, descriptor: int, path: str
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Encrypt one block, again in the freak case that SEAL finds the random words worth compressing."""
        before, between = self._frame
        words_end = len(before) + WORD_BYTES
        for _ in range(ATTEMPTS):
            self._encryptor.encrypt_symmetric(plain).save(path)
            saved = content_of(descriptor)
            framed = saved.startswith(before) and saved[words_end:-SEED_BYTES] == between
            if framed and len(saved) == words_end + len(between) + SEED_BYTES:
                words = np.frombuffer(saved, dtype="<u8", count=DEGREE, offset=len(before))
                return words, np.frombuffer(saved, dtype=np.uint8, offset=len(saved) - SEED_BYTES)
        raise _other_form("ciphertexts")

    def _coefficients(self, saved: bytes) -> NDArray[np.uint64]:
        """Return the coefficients of a plaintext as SEAL wrote it, uint64 (DEGREE,); it leaves out zeros at the end."""
        content = _unpacked(saved)
        count = int.from_bytes(content[COUNT_AT : COUNT_AT + COUNT_BYTES], "little")
        start = len(self._plain_frame) - HEADER_BYTES
        if not 0 < count <= DEGREE or len(content) != start + 8 * count:
            raise _other_form("plaintexts")
        row = np.zeros(DEGREE, dtype=np.uint64)
        row[:count] = np.frombuffer(content, dtype="<u8", offset=start)
        return row

    def _load(
        self,
        into: seal.Ciphertext,
        words: NDArray[np.uint64],
        seed: NDArray[np.uint8],
        descriptor: int,
        path: str,
    ) -> None:
        """Let SEAL expand c1 from `seed` beside the c0 in `words`; all structure is our own."""
        before, between = self._frame
        os.pwrite(descriptor, b"".join([before, words.astype("<u8", copy=False).tobytes(), between, seed.tobytes()]), 0)
        into.load(self._context, path)


def _learn_plain_frame(descriptor: int, path: str) -> bytes:
    """Return the constant bytes before the coefficients of a plaintext, not packed, as SEAL reads them."""
    seal.Plaintext(DEGREE, DEGREE).save(path)
    saved = content_of(descriptor)
    before = _unpacked(saved)[:-WORD_BYTES]
    length = HEADER_BYTES + len(before) + WORD_BYTES
    return saved[:PACKING] + bytes([UNPACKED, 0, 0]) + length.to_bytes(8, "little") + before


def _unpacked(saved: bytes) -> bytes:
    """Return what this process's SEAL wrote behind its header."""
    if saved[PACKING] == UNPACKED:
        return saved[HEADER_BYTES:]
    if saved[PACKING] != ZSTANDARD:
        raise _other_form("plaintexts")
    return zstandard.ZstdDecompressor().decompress(saved[HEADER_BYTES:], max_output_size=2 * WORD_BYTES)


def _other_form(what: str) -> NotReady:
    return NotReady(f"SEAL writes {what} in another form", remedy="Install the tenseal of constraints.txt.")
