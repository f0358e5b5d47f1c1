"""Smooth fields by Fourier transform: blurs of any width, and textures with the spectrum of anatomy.

numpy's transform runs on one thread and gives the same bits every time, which byte-identical files need.
"""

from functools import lru_cache

import numpy as np

from silo_app.imaging.samples.rays import Field

COARSE = 4  # px, blocks in which wide blurs are computed


def blur(image: Field, sigma: float) -> Field:
    """Return `image` (H, W) blurred by a Gaussian of `sigma` pixels; edges are continued.

    Wide blurs are made from an image of a quarter of the size: nothing finer is left in them.
    """
    if sigma < 0.05:
        return image
    if sigma < 3 * COARSE:
        return _transform(image, sigma)
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % COARSE), (0, -columns % COARSE)), mode="edge")
    small = padded.reshape(padded.shape[0] // COARSE, COARSE, -1, COARSE).mean(axis=(1, 3))
    return _enlarge(_enlarge(_transform(small, sigma / COARSE), rows, 0), columns, 1)


def _transform(image: Field, sigma: float) -> Field:
    margin = min(int(3 * sigma) + 1, min(image.shape) - 1)
    rows, columns = image.shape
    after = [(fast(n + 2 * margin) - n - margin) for n in (rows, columns)]
    padded = np.pad(image, ((margin, after[0]), (margin, after[1])), mode="edge")
    keep = np.exp(-2 * (np.pi * sigma * _frequency(*padded.shape)) ** 2)
    whole = np.fft.irfft2(np.fft.rfft2(padded) * keep, s=padded.shape)
    return np.asarray(whole[margin : margin + rows, margin : margin + columns], np.float32)


def _enlarge(small: Field, size: int, axis: int) -> Field:
    """Return `small` with `size` entries along `axis`, by linear interpolation between the blocks' middles."""
    at = np.clip((np.arange(size) - (COARSE - 1) / 2) / COARSE, 0, small.shape[axis] - 1)
    low = np.minimum(at.astype(np.intp), max(small.shape[axis] - 2, 0))
    share = (at - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None, :]
    high = np.minimum(low + 1, small.shape[axis] - 1)
    return np.asarray(np.take(small, low, axis) * (1 - share) + np.take(small, high, axis) * share)


@lru_cache(maxsize=1024)
def fast(size: int) -> int:
    """Return the smallest length from `size` on that a Fourier transform splits into 2s, 3s and 5s."""
    left = size
    for prime in (2, 3, 5):
        while left % prime == 0:
            left //= prime
    return size if left == 1 else fast(size + 1)


def texture(random: np.random.Generator, shape: tuple[int, int], *, slope: float, coarsest: float) -> Field:
    """Return noise (H, W), mean 0 and deviation 1, whose power falls as 1/f^slope.

    Below one cycle in `coarsest` pixels the power stays what it is there.
    """
    size = (fast(shape[0]), fast(shape[1]))
    spectrum = np.fft.rfft2(random.standard_normal(size, dtype=np.float32)) * _falling(*size, slope, coarsest)
    field = np.fft.irfft2(spectrum, s=size)[: shape[0], : shape[1]]
    return np.asarray(field / field.std(), np.float32)


@lru_cache(maxsize=16)
def _falling(rows: int, columns: int, slope: float, coarsest: float) -> Field:
    """Return the amplitude of every term of a texture, (H, W // 2 + 1)."""
    amplitude = np.maximum(_frequency(rows, columns), 1 / coarsest) ** (-slope / 2)
    amplitude[0, 0] = 0
    return np.asarray(amplitude, np.float32)


@lru_cache(maxsize=64)
def _frequency(rows: int, columns: int) -> Field:
    """Return the spatial frequency of every term of rfft2, cycles a pixel, (H, W // 2 + 1)."""
    return np.asarray(np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]), np.float32)
