"""Write the report: one HTML file that needs no network, and the facts beside it as JSON for machines."""

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import jinja2

from provisioning.report import words
from provisioning.report.charts import Chart, learning_chart, seconds_chart, upload_chart
from provisioning.report.facts import DataKind, DemoFacts, Missing, Picture, Silo
from provisioning.report.headlines import headlines, mean_alone
from silo_app import durable
from silo_app.cases import Finding

__all__ = ["as_json", "case_mix", "render", "write_report"]

_SHOWN_FINDINGS = 20


def write_report(facts: DemoFacts, path: Path) -> Path:
    """Write `path` and, beside it with the suffix .json, the facts; returns the page's absolute path.

    A page with real images is readable by its owner only.
    """
    path = path.absolute()
    mode = durable.SHARED if facts.run.data is DataKind.SYNTHETIC else durable.PRIVATE
    durable.write_text(path.with_suffix(".json"), as_json(facts), mode=mode)
    durable.write_text(path, render(facts), mode=mode)
    return path


def render(facts: DemoFacts) -> str:
    """Return the page."""
    silos = {silo.name: silo.display_name or silo.name for silo in facts.silos}
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            headlines=headlines(facts),
            mean_alone=mean_alone,
            silos=silos,
            places={name: number % 8 for number, name in enumerate(silos)},
            case_mix=case_mix(facts.silos),
            charts=_charts(facts, silos),
        )
    )


def as_json(facts: DemoFacts) -> str:
    """Return the facts as JSON; a picture becomes its description and size, without a pixel."""
    return json.dumps({"schema_version": 1, "facts": _plain(facts)}, indent=2, ensure_ascii=False) + "\n"


def case_mix(silos: tuple[Silo, ...]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return by finding, the most frequent first, each silo's views with it present and views in which it is known."""
    totals: Counter[str] = Counter()
    for silo in silos:
        totals.update({count.finding: count.present for count in silo.findings if count.present})
    table: dict[str, dict[str, tuple[int, int]]] = {finding: {} for finding, _ in totals.most_common(_SHOWN_FINDINGS)}
    for silo in silos:
        for count in silo.findings:
            if count.finding in table:
                # A view with a finding has no entry for "No Finding": it is known of every view with a label.
                none = count.finding == Finding.NO_FINDING
                known = silo.views - silo.unlabelled if none else count.present + count.absent
                table[count.finding][silo.name] = (count.present, known)
    return table


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("provisioning.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in words.__all__}
    environment.filters["data_address"] = _data_address
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    return environment


def _charts(facts: DemoFacts, silos: Mapping[str, str]) -> dict[str, Chart]:
    charts = {}
    if not isinstance(facts.learning, Missing):
        charts["learning"] = learning_chart(facts.learning, silos)
    if not isinstance(facts.traffic, Missing) and facts.traffic.rounds:
        charts["upload"] = upload_chart(facts.traffic)
        charts["seconds"] = seconds_chart(facts.traffic)
    return charts


def _data_address(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Missing):
        return {"missing": value.reason}
    if isinstance(value, Picture):
        return {"alt": value.alt, "png_bytes": len(value.png)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value
