"""What a count says: patients, with noise, and nothing where they are few. Pure rules over the silo's settings.

The unit is the patient: one more or less changes each number by at most one, however many cases it has. The noise of a
number is drawn once, for the patient who is nearest to the query, the generation of the index, and what is counted: not for
the query itself, whose last digits could be changed until the noise averages away. What is suppressed is decided after the
noise, which costs nothing (post-processing) and says no more than the number would have.
"""

import json
from collections.abc import Iterable, Mapping

import numpy as np

from silo_app.cases import Finding, PatientKey, View
from silo_app.config import ReleaseSettings
from silo_app.policy.filters import Filters
from silo_app.policy.noise import keyed_noise

__all__ = ["ALL", "CountSubject", "count_subject", "counted", "noise_within", "numbers_of", "told_counts"]

ALL = ""
"""The name of the number of all who are counted; other numbers are named by their finding."""

CountSubject = str
"""What the noise of a count belongs to."""


def numbers_of(settings: ReleaseSettings, *, by_finding: bool) -> int:
    """Return how many numbers such a count tells, and costs."""
    return 1 + (len(Finding) if _tells_findings(settings, by_finding=by_finding) else 0)


def count_subject(
    nearest: PatientKey, *, generation: str, alike: float, similarity: float, filters: Filters
) -> CountSubject:
    """Return what the noise of a count belongs to; the order of a filter's words makes no other question of it."""
    asked = {
        name: sorted(map(str, value)) if isinstance(value, list) else value
        for name, value in filters.model_dump(mode="json").items()
    }
    thresholds = round(alike, 1) + 0.0, round(similarity, 2) + 0.0  # -0.0 is no other number than 0.0
    return json.dumps([nearest, generation, *thresholds, asked], sort_keys=True)


def counted(settings: ReleaseSettings, views: Iterable[View], *, by_finding: bool) -> dict[str, int]:
    """Return exactly how many patients these cases are of, and how many have each finding; nothing of it leaves as it is."""
    patients: set[PatientKey] = set()
    having: dict[Finding, set[PatientKey]] = {finding: set() for finding in Finding}
    for view in views:
        patients.add(view.patient)
        for finding, is_present in view.findings.items():
            if is_present:
                having[finding].add(view.patient)
    numbers = {ALL: len(patients)}
    if _tells_findings(settings, by_finding=by_finding):
        numbers |= {finding.value: len(those) for finding, those in having.items()}
    return numbers


def told_counts(
    settings: ReleaseSettings, exact: Mapping[str, int], *, secret: bytes, subject: CountSubject, most: int
) -> dict[str, int | None]:
    """Return the numbers with their noise, at most `most`; None where that is fewer than the policy tells."""
    least = settings.count.min_count
    told = {}
    for name, count in exact.items():
        noisy = min(most, count + keyed_noise(secret, "count", f"{subject}\0{name}", settings.count.epsilon))
        told[name] = noisy if noisy >= least else None
    return told


def noise_within(epsilons: Iterable[float], share: float = 0.95) -> int:
    """Return the least whole number that the noise of a sum stays within with at least this probability.

    Each silo's number has two-sided geometric noise of its own epsilon; the characteristic function of one is
    (1 - a)^2 / (1 - 2 a cos t + a^2) with a = exp(-epsilon), that of their sum is the product.
    """
    ratios = np.exp(-np.array(list(epsilons), np.float64))
    if not len(ratios):
        return 0
    spread = float(np.sqrt(np.sum(2 * ratios / (1 - ratios) ** 2)))
    size = 2 ** int(np.ceil(np.log2(20 * spread + 80 / -np.log(ratios.max()) + 2)))  # far beyond all that matters
    cosines = np.cos(2 * np.pi * np.arange(size // 2 + 1) / size)
    product = np.ones(size // 2 + 1)
    for ratio in ratios:
        product *= (1 - ratio) ** 2 / (1 - 2 * ratio * cosines + ratio**2)
    density = np.fft.irfft(product, size)  # of 0, 1, 2, ...; negative ones are as probable
    within = density[0] + 2 * np.concatenate([[0.0], np.cumsum(density[1 : size // 2])])
    return int(np.argmax(within >= share))


def _tells_findings(settings: ReleaseSettings, *, by_finding: bool) -> bool:
    return by_finding and "findings" in settings.fields
