"""Another accountant, from the definition: the privacy loss of a sampled Gaussian step on a grid, composed by FFT.

For a silo with a patient (P, the mixture (1-q) N(0, s^2) + q N(1, s^2)) and without (Q, N(0, s^2)) the loss log P/Q is
put on a grid, rounded to the nearest; its n-fold convolution gives delta(epsilon) = E[(1 - exp(epsilon - loss))+]; the
larger of both directions.
"""

import numpy as np

GRID, HALF_WIDTH = 2e-4, 2**18


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """Return the epsilon of `steps` steps at `delta`; below 40."""
    return max(_one_way(noise, rate, steps, delta, removed=removed) for removed in (True, False))


def _one_way(noise: float, rate: float, steps: int, delta: float, *, removed: bool) -> float:
    x = np.linspace(-14 * noise, 1 + 14 * noise, 1_500_001)
    without = np.exp(-0.5 * (x / noise) ** 2)
    with_patient = (1 - rate) * without + rate * np.exp(-0.5 * ((x - 1) / noise) ** 2)
    loss = np.log1p(rate * np.expm1((2 * x - 1) / (2 * noise**2)))
    mass, loss = (with_patient, loss) if removed else (without, -loss)
    bins = np.rint(loss / GRID).astype(np.int64) + HALF_WIDTH
    if bins.min() < 0 or bins.max() >= 2 * HALF_WIDTH:
        raise ValueError("the grid is too small for these losses")
    density = np.bincount(bins, mass / mass.sum(), minlength=2 * HALF_WIDTH)
    composed = np.fft.irfft(np.fft.rfft(np.fft.ifftshift(density)) ** steps, 2 * HALF_WIDTH)
    losses, masses = (np.arange(2 * HALF_WIDTH) - HALF_WIDTH) * GRID, np.clip(np.fft.fftshift(composed), 0, None)
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        above = losses > middle
        spent = float((masses[above] * -np.expm1(middle - losses[above])).sum())
        low, high = (middle, high) if spent > delta else (low, middle)
    return high
