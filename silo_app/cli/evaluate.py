"""`silo evaluate`: how good an encoder is on held-out patients, beside what no training achieves."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from silo_app import config, durable
from silo_app.cli.edge import FormatOption, OutputFormat, emit, people, writable_file
from silo_app.cli.progress import work
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.errors import ConfigInvalid

SCHEMA_VERSION = 1
"""Of the JSON file."""


def evaluate(
    silos: Annotated[
        list[Path] | None,
        typer.Option("--silo", envvar="SILO", help="A silo's startup kit; may be given again.", show_default=False),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(help="Instead show what silos told `jobs/evaluate`: the folder that `silo job download` printed."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="An encoder version; its first 8 digits do [default: the current].", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option(help="Neighbours that count for precision.", min=1, max=1000)] = 10,
    floors: Annotated[bool, typer.Option(help="Also raw pixels, an untrained encoder and image statistics.")] = True,  # noqa: FBT002
    federated: Annotated[  # noqa: FBT002
        bool, typer.Option("--federated", help="Also ask the running federation with held-out views, and judge its hits.")
    ] = False,
    queries: Annotated[int, typer.Option(help="Federated queries a silo.", min=1, max=100_000)] = 200,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write everything to this file.", callback=writable_file, show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="With --job: also write a page with plots into this file; it needs no network.",
            callback=writable_file,
            show_default=False,
        ),
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Evaluate an encoder on held-out patients: findings (AUC with intervals) and neighbours (precision, mAP).

    Several silos are pooled; that only makes sense on a machine that holds them all (demo, development). Nothing that is
    printed or written names a patient or an image.

    Examples:
        silo evaluate --silo consortium/hospital-a

        silo evaluate --silo consortium/hospital-a --silo consortium/hospital-b --json evaluation.json

        silo evaluate --job 7f2c1e9a-0000/workspace --html evaluation.html
    """
    if job is not None:
        _show_job(job, json_file, html, output)
        return
    if not silos or html is not None:
        problem = "--html needs --job" if html is not None else "name a silo (--silo) or an evaluation's record (--job)"
        raise ConfigInvalid(problem, where="silo evaluate", remedy="See silo evaluate --help.")
    from silo_app.encoder import checkpoint
    from silo_app.encoder.evaluate import evaluate as evaluate_silos

    homes = [config.load(silo) for silo in silos]
    version = checkpoint.named(encoder, *(home.models for home in homes)) if encoder else None
    with work("evaluating") as progress:
        kept, evaluation = evaluate_silos(homes, version, k=k, with_floors=floors, progress=progress)
    data = {"encoder_version": kept.version, "card": dict(kept.card), **asdict(evaluation)}
    data["federated_search"] = None
    if federated:
        from silo_app.search.precision import federated_precision

        with work("asking the federation") as progress:
            tell = None if progress is None else lambda done, total: progress("queries", done, total)
            measured = federated_precision(homes, kept.version, k=k, queries_per_silo=queries, progress=tell)
        data["federated_search"] = asdict(measured)
    if json_file is not None:
        content = {"schema_version": SCHEMA_VERSION, **data}
        durable.write_text(json_file.absolute(), json.dumps(content, indent=2) + "\n", mode=durable.SHARED)
    if len(homes) > 1:
        people.print(
            "several silos are pooled: this is for a machine that holds them all, as in a demo", style="dim", soft_wrap=True
        )
    emit(data, output, _show)


def _show_job(job: Path, json_file: Path | None, html: Path | None, output: OutputFormat) -> None:
    from silo_app.cli.evaluation import show_record
    from silo_app.encoder.evaluation_record import read_record

    content = read_record(job).content()
    if json_file is not None:
        durable.write_text(json_file.absolute(), json.dumps(content, indent=2) + "\n", mode=durable.SHARED)
    if html is not None:
        from silo_app.pages.evaluation import evaluation_page
        from silo_app.pages.render import write_page

        people.print(f"wrote {write_page(html, evaluation_page(content))}", highlight=False, markup=False)
    emit(content, output, show_record)


def _show(data: dict[str, Any]) -> None:
    screen = data_screen()
    screen.print(f"encoder {data['encoder_version']} ({data['card'].get('kind', 'of unknown origin')})")
    screen.print(_findings_table(data))
    screen.print(_retrieval_table(data["retrieval"], f"neighbours: {data['k']} nearest of all other patients"))
    if data["retrieval_other_silos"]:
        screen.print(_retrieval_table(data["retrieval_other_silos"], f"neighbours: {data['k']} nearest of other silos"))
    if data["federated_search"]:
        one = data["federated_search"]
        screen.print(
            f"federated search: balanced precision@{one['k']} {_number(one['precision'])} over {one['queries']} queries, "
            f"{_number(one['own_silo_share'])} of the hits from the own silo"
        )


def _findings_table(data: dict[str, Any]) -> WholeTable:
    table = WholeTable(
        "finding",
        "silo",
        "present",
        "absent",
        "AUC (95 %)",
        "balanced accuracy",
        "sens. at 0.9",
        "ECE",
        "floor AUC",
        copied=("finding", "silo"),
        gap=1,
    )
    table.title = "findings on held-out patients (floor: image statistics alone)"
    for silo, findings in data["findings"].items():
        for name, one in findings.items():
            floor = data["statistics_auc"].get(name) if silo == "pooled" else None
            counts = str(one["present"]), str(one["absent"])
            numbers = [_number(one[key]["value"]) for key in ("balanced_accuracy", "sensitivity", "calibration_error")]
            table.add_row(name, silo, *counts, _interval(one["auc"]), *numbers, _number(floor))
    return table


def _retrieval_table(ways: dict[str, Any], title: str) -> WholeTable:
    table = WholeTable(
        "by", "queries", "balanced precision", "balanced mAP", "balanced nDCG", "from own silo (chance)", title=title
    )
    for way, one in ways.items():
        own = f"{_number(one['own_silo_share'])} ({_number(one['own_silo_chance'])})"
        numbers = [_number(one[key]) for key in ("precision", "mean_average_precision", "ndcg")]
        table.add_row(way, str(one["queries"]), *numbers, own)
    return table


def _interval(one: dict[str, float | None]) -> str:
    return f"{_number(one['value'])} ({_number(one['low'])} to {_number(one['high'])})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
