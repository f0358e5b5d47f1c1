"""Reliability diagrams: what was predicted against what was there, one line for each silo; inline SVG, as `drawing`."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from silo_app.pages.drawing import COLOURS

__all__ = ["Points", "diagonal"]

_SIZE, _LEFT, _TOP, _BOTTOM = 300, 44, 10, 34


@dataclass(frozen=True, slots=True)
class Points:
    """One silo's bins from low to high: (predicted, there), each in [0, 1]; `series` chooses the colour."""

    name: str
    series: int
    values: Sequence[tuple[float, float]]


def diagonal(title: str, lines: Sequence[Points]) -> Markup:
    """Draw points over the unit square, where the diagonal is perfect."""
    parts = [f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(0)}" y2="{_y(1)}" stroke-dasharray="4 3"/>']
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(tick)}" y2="{_y(tick)}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text class="tick" x="{_x(tick)}" y="{_SIZE - _BOTTOM + 14}" text-anchor="middle">{tick:g}</text>')
    middle = (_x(0) + _x(1)) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{_SIZE - 4}" text-anchor="middle">predicted, against present</text>')
    for one in lines:
        colour = f"var(--silo-{one.series % COLOURS})"
        places = [(_x(predicted), _y(there)) for predicted, there in one.values]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line" d="M{path}" stroke="{colour}"><title>{escape(one.name)}</title></path>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>' for x, y in places]
    head = f'<svg class="chart square" role="img" aria-label="{escape(title)}" viewBox="0 0 {_SIZE} {_SIZE}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704  (numbers and escaped words)


def _x(value: float) -> float:
    return round(_LEFT + (_SIZE - _LEFT - 8) * value, 1)


def _y(value: float) -> float:
    return round(_TOP + (_SIZE - _TOP - _BOTTOM) * (1 - value), 1)
