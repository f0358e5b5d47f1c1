"""How strongly tissue attenuates X-rays, by tube voltage.

Mass attenuation coefficients are those of NIST's tables for the ICRU-44 tissues (Hubbell and Seltzer, NISTIR 5632,
table 4), interpolated in log-log as the authors advise. One effective energy stands for the whole spectrum.
"""

from dataclasses import dataclass

import numpy as np

ENERGIES = np.array([40.0, 50.0, 60.0, 80.0, 100.0])  # keV

# Mass attenuation coefficients at these energies, cm2/g, and density, g/cm3.
SOFT = (np.array([0.2688, 0.2264, 0.2048, 0.1823, 0.1693]), 1.06)
FAT = (np.array([0.2396, 0.2123, 0.1974, 0.1800, 0.1688]), 0.95)
LUNG = (np.array([0.2699, 0.2270, 0.2053, 0.1826, 0.1695]), 0.26)
BONE = (np.array([0.6655, 0.4242, 0.3148, 0.2229, 0.1855]), 1.92)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attenuation:
    """Linear attenuation coefficients of the thorax's tissues at one beam quality, all in 1/mm."""

    soft: float
    fat: float
    lung: float
    bone: float


def effective_energy(kvp: float) -> float:
    """Return the energy in keV of the single line that stands for a filtered spectrum of `kvp` behind a patient.

    A filtered beam's mean energy is somewhat above half its peak (IEC 61267: RQA 9, 120 kV, has about 76 keV behind
    its added filter; RQA 5, 70 kV, about 54 keV); 0.6 of the peak fits both within 20 %.
    """
    return 0.6 * kvp


def attenuation(kvp: float) -> Attenuation:
    """Return what a beam of `kvp` loses in each tissue."""
    energy = effective_energy(kvp)
    return Attenuation(
        soft=_linear(SOFT, energy), fat=_linear(FAT, energy), lung=_linear(LUNG, energy), bone=_linear(BONE, energy)
    )


def _linear(tissue: tuple[np.ndarray, float], energy: float) -> float:
    coefficients, density = tissue
    mass = np.exp(np.interp(np.log(energy), np.log(ENERGIES), np.log(coefficients)))  # cm2/g
    return float(mass) * density / 10.0  # 1/mm
