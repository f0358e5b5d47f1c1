"""Small drawings as inline SVG, coloured by the page: lines over ordered ranges, one for each silo.

Colours are CSS variables, so that one drawing serves light, dark and paper; every series has a dash pattern of its own, so
that it can be told without colour; the numbers stand beside the drawing as a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["COLOURS", "Series", "lines"]

COLOURS = 8
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 4", "12 4", "6 2 1 2")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 220, 44, 34, 10


@dataclass(frozen=True, slots=True)
class Series:
    """One line: shares in [0, 1], one for each range; None is a gap."""

    name: str
    values: Sequence[float | None]


def lines(title: str, labels: Sequence[str], series: Sequence[Series], *, axis: str) -> Markup:
    """Draw shares over ordered ranges, as steps; `axis` names the ranges."""
    top = _top(max((value for one in series for value in one.values if value is not None), default=0.0))
    step = (_WIDTH - _LEFT - 8) / max(1, len(labels))
    parts = [_grid(top), *_axis(labels, step, axis)]
    for number, one in enumerate(series):
        dash = f' stroke-dasharray="{_DASHES[number % COLOURS]}"' if _DASHES[number % COLOURS] else ""
        parts.append(
            f'<path class="line" d="{_path(one.values, step, top)}" stroke="var(--silo-{number % COLOURS})"{dash}>'
            f"<title>{escape(one.name)}</title></path>"
        )
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704  (numbers and escaped words)


def _top(value: float) -> float:
    """Return the end of the scale: a round share that is not below `value`."""
    return next((top for top in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75) if value <= top), 1.0)


def _y(value: float, top: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(value, top) / top)


def _grid(top: float) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{_y(value, top):.1f}" y2="{_y(value, top):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{_y(value, top) + 4:.1f}" text-anchor="end">{value * 100:.3g} %</text>'
        for value in (0.0, top / 2, top)
    )


def _axis(labels: Sequence[str], step: float, axis: str) -> list[str]:
    """Write a label below every range, or below every few if there are many."""
    every = max(1, round(len(labels) / 10))
    ticks = [
        f'<text class="tick" x="{_LEFT + step * (number + 0.5):.1f}" y="{_HEIGHT - _BOTTOM + 14}" '
        f'text-anchor="middle">{escape(label)}</text>'
        for number, label in enumerate(labels)
        if number % every == 0
    ]
    middle = (_LEFT + _WIDTH) / 2
    return [*ticks, f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(axis)}</text>']


def _path(values: Sequence[float | None], step: float, top: float) -> str:
    """Return a staircase; it is broken where a value is not known."""
    path, drawn = [], False
    for number, value in enumerate(values):
        if value is None:
            drawn = False
            continue
        left, right, y = _LEFT + step * number, _LEFT + step * (number + 1), _y(value, top)
        path.append(f"{'L' if drawn else 'M'}{left:.1f} {y:.1f}L{right:.1f} {y:.1f}")
        drawn = True
    return "".join(path)
