"""Held-out views with an encoder's scores: figures of a finding over some of them, and of how many patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Finding
from silo_app.encoder.dataset import Images
from silo_app.encoder.evaluation_answer import FindingFiguresTold, figure_of
from silo_app.encoder.metrics import findings_figures
from silo_app.encoder.small_groups import is_small

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
        """Return the patients with the finding on some view, and those without on all, in some rows, bool (N,).

        Each counts on one side: who has views of both kinds could be counted by whoever adds the sides.
        """
        with_it = set(self.patients[rows & self._present(column)])
        return with_it, self.patients_without(column, rows) - with_it

    def counted(self, column: int) -> _Rows:
        """Return by which one view each patient counts, bool (N,): the first with the finding, or else without."""
        present, known = self._present(column), self.images.known[:, column]
        order = np.concatenate([np.flatnonzero(present), np.flatnonzero(known & ~present)])
        _, first = np.unique(self.patients[order], return_index=True)
        chosen = np.zeros(len(known), np.bool_)
        chosen[order[first]] = True
        return chosen

    def patients_without(self, column: int, rows: _Rows) -> set[str]:
        """Return the patients who have a view without the finding, whatever their other views have."""
        return set(self.patients[rows & self.images.known[:, column] & ~self._present(column)])

    def _present(self, column: int) -> _Rows:
        return np.asarray(self.images.known[:, column] & (self.images.targets[:, column] > 0.5), np.bool_)

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
        """Return the findings with enough patients on either side, and with none or enough of whom it is unknown.

        How many views and patients there are in all is told: those of whom a finding is unknown are what its sides leave.
        """
        return [column for column in range(len(self.names)) if self._is_tellable(column)]

    def _is_tellable(self, column: int) -> bool:
        sides = self.patients_of(column, self.everything)
        unknown = set(self.patients[~self.images.known[:, column]])
        left_over = set(self.patients).difference(*sides)
        return min(map(len, sides)) >= self.least and not any(is_small(each, self.least) for each in (unknown, left_over))
