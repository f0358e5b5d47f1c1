"""The page of one silo's catalogue, for the silo itself."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from silo_app.pages.drawing import Series, lines
from silo_app.pages.render import render

__all__ = ["catalogue_page"]


def catalogue_page(data: Mapping[str, Any]) -> str:
    """Return the page of what `silo catalogue show` prints as JSON."""
    shares = data["brightness"]
    labels = [f"{number / max(1, len(shares)):.2f}" for number in range(len(shares))]
    chart = lines("Mean share of each brightness", labels, [Series("images", shares)], axis="brightness, dark to bright")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return render("catalogue.html.j2", {**data, "when": when, "brightness_chart": chart})
