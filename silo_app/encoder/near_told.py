"""What a silo tells of its neighbours by class, so that no class and no rest of one is of few patients; no torch.

How many views and patients there are in all is always told. So the queries without a class can be counted by whoever is
told of those with it, and what is told of two classes that no view has both of says how many have neither.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Finding
from silo_app.encoder.evaluation_answer import ClassFigures, RetrievalTold
from silo_app.encoder.retrieval import Ranked
from silo_app.encoder.small_groups import is_small

__all__ = ["near_told", "patients_of_class", "tellable_classes"]

_DECIMALS = 4


def near_told(ranked: Ranked, only: Collection[str]) -> RetrievalTold:
    """Return the figures of the classes `only`."""
    classes = {}
    for column, name in enumerate(ranked.names):
        if name not in only:
            continue
        rows = _asked(ranked, column)
        means = (round(float(one[rows, column].mean()), _DECIMALS) for one in (ranked.share, ranked.average, ranked.gain))
        precision, average, gain = means
        classes[Finding(name)] = ClassFigures(
            queries=int(rows.sum()),
            patients=len(patients_of_class(ranked, column)[0]),
            precision=precision,
            average_precision=average,
            ndcg=gain,
        )
    return RetrievalTold(classes=classes)


def tellable_classes(ranked: Ranked, least: int) -> set[str]:
    """Return the classes that have enough patients and leave none or enough, with "No Finding" beside each too."""
    everybody = set(ranked.patients)
    with_it = {name: patients_of_class(ranked, column)[0] for column, name in enumerate(ranked.names)}
    rows = {name: _asked(ranked, column) for column, name in enumerate(ranked.names)}

    def left_over(*names: str) -> bool:
        """Return whether few patients are left, as views or as patients, beside these classes."""
        rest = set(ranked.patients[~np.any([rows[name] for name in names], axis=0)])
        return is_small(rest, least) or is_small(everybody.difference(*(with_it[name] for name in names)), least)

    told = {name for name in ranked.names if len(with_it[name]) >= least and not left_over(name)}
    nothing = str(Finding.NO_FINDING)
    if nothing in told and any(left_over(nothing, name) for name in told - {nothing}):
        told.discard(nothing)
    return told


def patients_of_class(ranked: Ranked, column: int) -> tuple[set[str], set[str]]:
    """Return the patients who count for a class, and those of queries without it.

    For "No Finding" those count who have no other class: nobody counts for it and a finding.
    """
    rows = _asked(ranked, column)
    with_it = set(ranked.patients[rows])
    if ranked.names[column] == Finding.NO_FINDING:
        others = np.delete(ranked.classes, column, axis=1).any(axis=1)
        with_it -= set(ranked.patients[others])
    return with_it, set(ranked.patients[~rows])


def _asked(ranked: Ranked, column: int) -> NDArray[np.bool_]:
    """Return which queries have the class and found it somewhere, bool (Q,)."""
    return np.asarray(ranked.classes[:, column] & ~np.isnan(ranked.average[:, column]), np.bool_)
