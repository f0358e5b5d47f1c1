"""Held-out views with an encoder's scores: figures of a finding over some of them, and of how many patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Finding
from silo_app.encoder.dataset import Images
from silo_app.encoder.evaluation_answer import FindingFiguresTold, figure_of
from silo_app.encoder.metrics import findings_figures

__all__ = ["DRAWS", "HeldOut"]

DRAWS = 300
"""Bootstrap draws of an interval."""
_Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """Held-out views with the encoder's logits (N, F), and how few patients are too few."""

    images: Images
    logits: NDArray[np.float32]
    patients: NDArray[np.str_]
    names: Sequence[Finding]
    least: int

    @property
    def everything(self) -> _Rows:
        """All rows, bool (N,)."""
        return np.ones(len(self.images), np.bool_)

    def patients_of(self, column: int, rows: _Rows) -> tuple[set[str], set[str]]:
        """Return the patients with the finding, and without, in some rows, bool (N,)."""
        known, present = self.images.known[:, column] & rows, self.images.targets[:, column] > 0.5
        return set(self.patients[known & present]), set(self.patients[known & ~present])

    def figures(self, column: int, rows: _Rows) -> FindingFiguresTold:
        """Return a finding's figures over some rows, bool (N,), among which both classes are."""
        with_it, without = self.patients_of(column, rows)
        name, place = str(self.names[column]), np.ix_(np.flatnonzero(rows), np.array([column]))
        targets, known = self.images.targets[place], self.images.known[place]
        one = findings_figures([name], self.logits[place], targets, known, self.patients[rows], draws=DRAWS)[name]
        return FindingFiguresTold(
            present=one.present,
            absent=one.absent,
            present_patients=len(with_it),
            absent_patients=len(without),
            auc=figure_of(one.auc),
            average_precision=figure_of(one.average_precision),
            balanced_accuracy=figure_of(one.balanced_accuracy),
            sensitivity=figure_of(one.sensitivity),
            calibration_error=figure_of(one.calibration_error),
        )

    def tellable_columns(self) -> list[int]:
        """Return the findings with enough patients on either side."""
        return [c for c in range(len(self.names)) if min(map(len, self.patients_of(c, self.everything))) >= self.least]
