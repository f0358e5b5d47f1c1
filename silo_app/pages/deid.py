"""The page of `silo deid-check`: what remains of files, or what a silo keeps, for a privacy officer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from silo_app.pages.render import render

__all__ = ["evidence_page"]


def evidence_page(data: Mapping[str, Any]) -> str:
    """Return the page of what `silo deid-check` prints as JSON."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return render("deid.html.j2", {"data": data, "when": when})
