"""Which cases have a card for which filters hold: `policy.filters.Filters.holds`, by columns, for millions of cases."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CASE_BYTES, Finding, Sex, ViewPosition
from silo_app.hex_rows import hex_rows, row_values
from silo_app.policy.filters import Filters

__all__ = ["CardColumns", "Rows", "read_columns"]

Rows = Callable[[str], Iterator[list[tuple]]]  # type: ignore[type-arg]
"""Gives what a query finds, block by block."""

# SQLite takes the other columns from the row of the smallest digest: the view that a card is made of.
_CARDS = """
    SELECT case_id, min(digest), position, sex, ifnull(age, -1), ifnull(study_year, -1) FROM views
    GROUP BY case_id ORDER BY case_id
"""
_BITS = {finding: 1 << number for number, finding in enumerate(Finding)}
_BIT = "CASE finding " + " ".join(f"WHEN '{finding}' THEN {bit}" for finding, bit in _BITS.items()) + " ELSE 0 END"
_LABELS = f"SELECT digest, sum({_BIT} << 32 * present) FROM labels GROUP BY digest ORDER BY digest"  # noqa: S608  (ours)
_POSITIONS = {position.value: code for code, position in enumerate(ViewPosition)}
_SEXES = {sex.value: code for code, sex in enumerate(Sex)}
_OLDEST = 90


@dataclass(frozen=True, slots=True)
class CardColumns:
    """What the cards of all cases say, in columns of as many rows as there are cases."""

    cases: NDArray[np.uint8]
    """uint8 (n, 16): the cases, ascending."""
    positions: NDArray[np.uint8]
    """uint8 (n,): the place in `ViewPosition`."""
    sexes: NDArray[np.uint8]
    """uint8 (n,): the place in `Sex`."""
    ages: NDArray[np.int32]
    """int32 (n,), years; -1 where unknown."""
    years: NDArray[np.int32]
    """int32 (n,), of the study; -1 where unknown."""
    present: NDArray[np.uint32]
    """uint32 (n,): a bit for each finding that is there, in the order of `Finding`."""
    absent: NDArray[np.uint32]
    """uint32 (n,): a bit for each finding that is known not to be there."""

    def where(self, filters: Filters) -> NDArray[np.bool_]:
        """Return for which cases the filters hold, bool (n,)."""
        kept = np.ones(len(self.cases), np.bool_)
        if filters.positions:
            kept &= np.isin(self.positions, [_POSITIONS[word] for word in filters.positions])
        if filters.sexes:
            kept &= np.isin(self.sexes, [_SEXES[word] for word in filters.sexes])
        if filters.age_bands:
            lows = [_OLDEST if band.endswith("+") else int(band.partition("-")[0]) for band in filters.age_bands]
            kept &= (self.ages >= 0) & np.isin(np.minimum(self.ages // 10 * 10, _OLDEST), lows)
        if filters.year_from is not None or filters.year_to is not None:
            kept &= self.years >= max(filters.year_from or 0, 0)
        if filters.year_to is not None:
            kept &= self.years <= filters.year_to
        for findings, known in ((filters.present, self.present), (filters.absent, self.absent)):
            asked = np.uint32(sum(_BITS[finding] for finding in findings))
            kept &= known & asked == asked
        return kept


def read_columns(rows: Rows) -> CardColumns:
    """Return the columns of a catalogue that answers queries with `rows`; both see it as it is at one time."""
    cards = [_card_block(block) for block in rows(_CARDS)]
    cases, digests, positions, sexes, ages, years = (
        np.concatenate([empty, *parts]) for empty, *parts in zip(_card_block(()), *cards, strict=True)
    )
    labelled, bits = (
        np.concatenate([empty, *parts])
        for empty, *parts in zip(_label_block(()), *(_label_block(block) for block in rows(_LABELS)), strict=True)
    )
    place = np.searchsorted(row_values(labelled), row_values(digests))  # (n,)
    place[place == len(labelled)] = 0
    if len(labelled):
        known = row_values(labelled)[place] == row_values(digests)
        found = np.where(known, bits[place], 0)  # (n,)
    else:
        found = np.zeros(len(cases), np.int64)
    present, absent = (found >> 32).astype(np.uint32), (found & 0xFFFFFFFF).astype(np.uint32)
    return CardColumns(cases, positions, sexes, ages, years, present, absent)


def _card_block(rows: Sequence[tuple]) -> tuple[NDArray, ...]:  # type: ignore[type-arg]
    """Return rows of `_CARDS` as columns."""
    cases, digests, positions, sexes, ages, years = zip(*rows, strict=True) if rows else ((),) * 6
    return (
        hex_rows(cases, CASE_BYTES),
        hex_rows(digests, 32),
        _column(map(_POSITIONS.__getitem__, positions), np.uint8),
        _column(map(_SEXES.__getitem__, sexes), np.uint8),
        _column(ages, np.int32),
        _column(years, np.int32),
    )


def _label_block(rows: Sequence[tuple]) -> tuple[NDArray, ...]:  # type: ignore[type-arg]
    """Return rows of `_LABELS` as columns."""
    digests, bits = zip(*rows, strict=True) if rows else ((),) * 2
    return hex_rows(digests, 32), _column(bits, np.int64)


def _column(values: Iterable[int], kind: type) -> NDArray:  # type: ignore[type-arg]
    return np.array(list(values), kind)
