"""The page of one search: who answered, what the neighbours have, and the cases."""

import base64
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from silo_app.cases import Finding
from silo_app.pages.render import render

__all__ = ["search_page", "unanswered"]

_THE_SAME = 0.99995
"""A similarity that is shown as 1.0000: of the image that was asked with, or of a copy of it."""
_WORDS = {
    "late": "did not answer in time",
    "busy": "has too many queries",
    "denied": "does not answer this",
    "unreachable": "is not connected",
    "other-encoder": "has indexed with another encoder",
    "not-ready": "has no index at the moment",
    "error": "failed to answer",
    "invalid": "did not sign what came in its name; nothing of it is shown",
}


def search_page(
    data: Mapping[str, Any],
    *,
    private: bool,
    pictures: Sequence[bytes] = (),
    why: Sequence[Mapping[str, Any]] = (),
    asked_with: str = "",
    own: str = "",
    itself: Collection[str] = (),
) -> str:
    """Return the page of what `silo search` prints as JSON.

    With a picture (JPEG, or b"") for each hit, and then for each of those behind them elsewhere, if there are any.

    `why` holds pairs of images of this silo (`pages.why.drawn`), `asked_with` says why and among which cases was asked, and
    `own` names this silo, whose hits may be the very images that were asked with: its cases `itself`, and any of similarity
    1. They tell nothing of other patients, and are counted for no neighbours.
    """
    silos = [{**silo, "said": _said(silo)} for silo in data["silos"]]
    silent = [silo["silo"] for silo in silos if silo["state"] != "answered"]
    listed = [*data["hits"], *data["elsewhere"]]
    shown = [
        {
            **hit,
            "words": _findings(hit["card"]),
            "beyond": _beyond(hit),
            "picture": _inline(picture),
            "is_query": hit["silo"] == own and (hit["case"] in itself or hit["score"] >= _THE_SAME),
        }
        for hit, picture in zip(listed, pictures or [b""] * len(listed), strict=True)
    ]
    facts = {
        "silos": silos,
        "silent": silent,
        "answered": len(silos) - len(silent),
        "asked": len(silos),
        "pictured": any(pictures),
        "hits": shown[: len(data["hits"])],
        "elsewhere": shown[len(data["hits"]) :],
        "findings": _neighbours([hit for hit in shown if not hit["is_query"]]),
        "themselves": sum(hit["is_query"] for hit in shown),
        "private": private,
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "took_ms": data["took_us"] / 1000,
        "why": _ranked(why, data["hits"]),
        "asked_with": asked_with,
        "withheld": any(silo.get("withheld", 0) is None for silo in silos),
        "unheard": data.get("unheard", ""),
    }
    return render("search.html.j2", {**data, **facts})


def _ranked(why: Sequence[Mapping[str, Any]], hits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each pair with its hit's rank and score."""
    places = {(hit["case"]): (rank, hit["score"]) for rank, hit in reversed(list(enumerate(hits, start=1)))}
    return [{**pair, "rank": places[pair["case"]][0], "score": places[pair["case"]][1]} for pair in why]


def _said(silo: Mapping[str, Any]) -> str:
    if silo["state"] == "answered":
        said = f"{silo['released']} of {silo['indexed']} cases, {silo['took_ms']:.0f} ms"
        return f"{said}; {_withheld(silo['withheld'])}" if silo.get("withheld", 0) != 0 else said
    return unanswered(silo)


def unanswered(silo: Mapping[str, Any]) -> str:
    """Return in words why a silo did not answer."""
    return str(silo["public"] or f"This silo {_WORDS.get(silo['state'], silo['state'])}.")


def _withheld(patients: int | None) -> str:
    if patients is None:
        return "cases that may be of the query's own patient are kept back, if there are any"
    return f"withheld: cases of {patients} patient{'' if patients == 1 else 's'}"


def _inline(picture: bytes) -> str:
    """Return a JPEG as an address that holds it, so that the page needs no other file; "" for none."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" if picture else ""


def _beyond(hit: Mapping[str, Any]) -> str:
    beyond = hit.get("beyond")
    return "-" if beyond is None else f"{beyond:.1f} %"


def _findings(card: Mapping[str, Any]) -> str:
    present = [name for name, is_present in card["findings"].items() if is_present]
    return ", ".join(present) or ("none of those looked for" if card["findings"] else "not told")


def _neighbours(hits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return by finding in how many of the cases it is present, and of how many it is told; most frequent first.

    "No Finding" is told by every case of which any finding is: where something was found, it is absent.
    """
    present: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for hit in hits:
        findings = hit["card"]["findings"]
        known = {Finding.NO_FINDING.value: False, **findings} if findings else {}
        for name, is_present in known.items():
            told[name] += 1
            present[name] += is_present
    return [{"name": name, "present": count, "told": told[name]} for name, count in present.most_common() if count]
