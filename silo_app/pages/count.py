"""The page of one count: how many patients, with which findings, and what every hospital said."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from silo_app.pages.render import render
from silo_app.pages.search import unanswered

__all__ = ["count_page"]


def count_page(data: Mapping[str, Any], *, asked_with: str = "") -> str:
    """Return the page of what `silo count` prints as JSON; `asked_with` says why and among which cases was counted."""
    silos = [{**silo, "said": _said(silo)} for silo in data["silos"]]
    silent = [silo["silo"] for silo in silos if silo["told"] is None]
    most = max((total["most"] for total in data["findings"].values()), default=0)
    facts = {
        "silos": silos,
        "silent": silent,
        "answered": len(silos) - len(silent),
        "total": _between(data["patients"]) if data["patients"] else None,
        "within": data["patients"]["noise"] if data["patients"] else None,
        "asked_with": asked_with,
        "findings": [
            {"name": name, "words": _between(total), "silos": total["silos"], **_shares(total, max(1, most))}
            for name, total in data["findings"].items()
        ],
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return render("count.html.j2", {**data, **facts})


def _between(total: Mapping[str, Any]) -> str:
    least, most = total["least"], total["most"]
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _shares(total: Mapping[str, Any], most: int) -> dict[str, float]:
    """Return how long a bar is: of how many patients is told, and how many more it leaves open."""
    return {"told": total["least"] / most, "open": (total["most"] - total["least"]) / most}


def _said(silo: Mapping[str, Any]) -> str:
    told = silo["told"]
    if told is None:
        return unanswered(silo)
    return f"fewer than {told['min_count']}" if told["patients"] is None else f"about {told['patients']:,}"
