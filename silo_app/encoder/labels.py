"""What a silo knows of its views, as arrays in the order of an encoder's findings head; no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import View
from silo_app.encoder.spec import EncoderSpec

__all__ = ["labels_of"]


def labels_of(views: Sequence[View], spec: EncoderSpec) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return targets, float32 (N, F), and what is known of them, bool (N, F)."""
    targets = np.zeros((len(views), len(spec.findings)), np.float32)
    known = np.zeros(targets.shape, np.bool_)
    for row, view in enumerate(views):
        for column, finding in enumerate(spec.findings):
            if finding in view.findings:
                known[row, column] = True
                targets[row, column] = view.findings[finding]
    return targets, known
