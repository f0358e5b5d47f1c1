"""What a page says of why images are similar: pairs of images with maps over them, and the page of one such pair."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from silo_app.encoder.region import Region
from silo_app.pages.overlay import layers
from silo_app.pages.render import render
from silo_app.search.why import Pair, Part

__all__ = ["drawn", "explain_page"]


def drawn(pairs: Sequence[Pair], region: Region | None = None) -> list[dict[str, Any]]:
    """Return each pair's figures; the two images of a pair share one scale of colours."""
    return [{"case": pair.case, **_figures(pair.query, pair.hit), "region": _percents(region)} for pair in pairs]


def explain_page(data: Mapping[str, Any], first: Part, second: Part) -> str:
    """Return the page of what `silo explain` prints as JSON."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    pair = {"case": "", **_figures(first, second), "region": None}
    return render("explain.html.j2", {**data, "pair": pair, "when": when})


def _figures(left: Part | None, right: Part) -> dict[str, Any]:
    parts = [part for part in (left, right) if part is not None]
    strongest = max(float(abs(part.shares - part.similarity).max()) for part in parts)
    figures = [layers(part.radiograph, part.shares, strongest) for part in parts]
    return {
        "left": figures[0] if left is not None else None,
        "right": figures[-1],
        "strongest": strongest,
    }


def _percents(region: Region | None) -> dict[str, float] | None:
    """Return where a region's frame lies, in percent of the image."""
    if region is None:
        return None
    width, height = region.right - region.left, region.bottom - region.top
    return {"left": 100 * region.left, "top": 100 * region.top, "width": 100 * width, "height": 100 * height}
