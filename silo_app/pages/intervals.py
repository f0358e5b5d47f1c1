"""Figures with their intervals, one row for each thing that is measured, one mark for each silo; inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from silo_app.pages.drawing import COLOURS

__all__ = ["Mark", "Row", "intervals"]

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 170, 14, 8, 34
_GAP, _ROW_SPACE = 12, 14


@dataclass(frozen=True, slots=True)
class Mark:
    """One figure in [0, 1] with an interval; `series` chooses the colour, None draws it in ink (all silos together)."""

    name: str
    series: int | None
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured, and its marks from top to bottom."""

    name: str
    marks: Sequence[Mark]


def intervals(title: str, rows: Sequence[Row], *, axis: str, chance: float) -> Markup:
    """Draw the rows over one axis, which ends at 1 and shows `chance` as a line; a mark in ink may begin before the axis."""
    marks = [mark for row in rows for mark in row.marks]
    edges = [mark.value if mark.series is None or mark.low is None else mark.low for mark in marks]
    start = min([int(edge * 10) / 10 for edge in edges] + [chance])
    height = _TOP + _BOTTOM + sum(_GAP * len(row.marks) + _ROW_SPACE for row in rows)
    parts = [_scale(start, chance, height, axis)]
    y = _TOP + _ROW_SPACE / 2
    for row in rows:
        middle = y + _GAP * len(row.marks) / 2
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(row.name)}</text>')
        for mark in row.marks:
            parts.append(_mark(mark, start, y + _GAP / 2))
            y += _GAP
        y += _ROW_SPACE
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height:.0f}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704  (numbers and escaped words)


def _x(value: float, start: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (max(value, start) - start) / (1 - start)


def _scale(start: float, chance: float, height: float, axis: str) -> str:
    ticks = sorted({start, chance, 1.0, round((start + 1) / 2, 2)})
    lines = "".join(
        f'<line class="grid" x1="{_x(tick, start):.1f}" x2="{_x(tick, start):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        f'<text class="tick" x="{_x(tick, start):.1f}" y="{height - _BOTTOM + 14}" text-anchor="middle">{tick:.3g}</text>'
        for tick in ticks
    )
    middle = (_LEFT + _WIDTH) / 2
    return lines + f'<text class="tick" x="{middle}" y="{height - 4}" text-anchor="middle">{escape(axis)}</text>'


def _mark(mark: Mark, start: float, y: float) -> str:
    colour = "var(--ink)" if mark.series is None else f"var(--silo-{mark.series % COLOURS})"
    said = f"<title>{escape(mark.name)}: {mark.value:.3f}</title>"
    x, line = _x(mark.value, start), ""
    if mark.low is not None and mark.high is not None:
        ends = f'x1="{_x(mark.low, start):.1f}" x2="{_x(mark.high, start):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        line = f'<line {ends} stroke="{colour}" stroke-width="2"/>'
    if mark.series is None:
        shape = f'<path d="M{x - 5:.1f} {y:.1f}l5 -5l5 5l-5 5z" fill="{colour}">{said}</path>'
    else:
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}">{said}</circle>'
    return line + shape
