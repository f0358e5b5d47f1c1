"""What all silos learn from an opened sum, alike: weights from statistics, scales and bounds from an update."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.codec import next_scales
from silo_app.aggregation.opening import Opened, norm_of
from silo_app.aggregation.progress import Progress
from silo_app.aggregation.receiving import arrived
from silo_app.aggregation.terms import SAMPLES, Terms
from silo_app.aggregation.wire import Header

__all__ = ["learn"]


def learn(terms: Terms, progress: Progress, header: Header, opened: Opened, steps: NDArray[np.float64]) -> Progress:
    """Return `progress` with what the sum `opened` teaches; the round is not closed by it.

    `steps`, float64 (T,), are those of the round. Raises `UpdateRefused` for a sum that is not sane.
    """
    if header.content == "statistics":
        total = opened.numbers[SAMPLES]
        if total < len(header.silos) or not total.is_integer():
            raise terms.sum_refused(header.round_number, f"{len(header.silos)} silos have {total} images")
        return replace(progress, total=int(total), counted=header.silos)
    if opened.update is None:
        return progress
    resolution = steps / arrived(terms, progress, header, opened.numbers)
    norm = _inlying_norm(terms, progress, header, opened.update)
    settings = terms.settings
    # The first scale is a guess, not a measurement: nothing of it is kept.
    kept = progress.scales * (settings.persistence if progress.measured else 0.0)
    scales = next_scales(
        opened.update,
        terms.layout,
        resolution=resolution,
        kept=kept,
        headroom=settings.headroom,
        floor=settings.min_scale,
    )
    return replace(progress, scales=scales, measured=True, norm=max(progress.norm, norm), rejected="")


def _inlying_norm(terms: Terms, progress: Progress, header: Header, update: NDArray[np.float32]) -> float:
    """Return the norm of `update`; refuse one that is not finite, or far beyond all before it and what is declared."""
    norm, settings = norm_of(update), terms.settings
    if not np.isfinite(norm):
        raise terms.sum_refused(header.round_number, "it has values that are not finite")
    limits = [settings.norm_limit] if settings.norm_limit else []
    if progress.measured:
        smallest = settings.min_scale * math.sqrt(terms.layout.size)  # of a sum that fills the smallest scales
        limits.append(settings.norm_growth * max(progress.norm, smallest))
    if limits and norm > min(limits):
        raise terms.sum_refused(
            header.round_number, f"its norm is {norm:.3g}, an outlier: at most {min(limits):.3g} is expected"
        )
    return norm
