"""`silo audit`: what the silo's privacy officer looks at: planted cases that were found, and whether the log is whole."""

from typing import Annotated, Any

import typer

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit, people
from silo_app.config import load
from silo_app.printable import printable

app = typer.Typer(no_args_is_help=True, help="Alerts, planted cases, and the audit log itself.")

_CaseArgument = Annotated[list[str], typer.Argument(help="Whole case ids, as `silo search --format json` prints them.")]
_CANARY = "canary"


@app.command("alerts")
def alerts(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """List who has found planted cases: when, which silo and user, for what purpose, and which cases; newest last.

    From the silo's audit log and what it was rotated to in the same folder: audit.jsonl.1, audit.jsonl-20261130.gz (or .xz),
    audit-20261130.jsonl. A file or line that cannot be read is an error and not passed over. The exit status is 0, with or
    without alerts.

    Examples:
        silo audit alerts --silo kits/st-anna

        silo audit alerts --silo kits/st-anna --format json
    """
    from silo_app.audit.kept import verified_records

    told = ("at", "asker", "user", "purpose", "query", "cases")
    found = [{key: record.get(key) for key in told} for record in verified_records(load(silo).audit, _CANARY)]
    emit(found, output, _print)


@app.command("plant")
def plant(cases: _CaseArgument, silo: SiloOption) -> None:
    """Mark cases as planted: whoever finds one causes an alert, and is not told.

    Plant studies that are nobody's (phantoms: `silo sample phantom`), ingested and indexed as any other.

    Examples:
        silo audit plant 3f2a9c0d4b5e6f708192a3b4c5d6e7f8 --silo kits/st-anna
    """
    _change(silo, add=cases)


@app.command("unplant")
def unplant(cases: _CaseArgument, silo: SiloOption) -> None:
    """Take the mark of planted cases away again.

    Examples:
        silo audit unplant 3f2a9c0d4b5e6f708192a3b4c5d6e7f8 --silo kits/st-anna
    """
    _change(silo, remove=cases)


def _change(silo: Any, *, add: list[str] | None = None, remove: list[str] | None = None) -> None:
    from silo_app.cases import CaseId
    from silo_app.catalogue import Catalogue
    from silo_app.errors import CaseUnknown
    from silo_app.policy.canaries import read_canaries, write_canaries

    home = load(silo)
    with Catalogue.open(home.catalogue) as catalogue:
        if missing := [case for case in add or () if catalogue.card(CaseId(case)) is None]:
            raise CaseUnknown(f"this silo holds no case {missing[0]}", remedy="Give the whole case id; nothing was changed.")
    before = read_canaries(home.canaries)
    planted = (before | set(map(CaseId, add or ()))) - set(map(CaseId, remove or ()))
    write_canaries(home.canaries, planted)
    for case in remove or ():
        if case not in before:
            people.print(f"{printable(case)} was not planted: give the whole case id.", highlight=False, markup=False)
    typer.echo(f"{len(planted)} planted cases")


def _print(found: list[dict[str, Any]]) -> None:
    for one in found:
        line = f"{one['at']}  {one['asker']}  {one['user'] or '-'}  {one['purpose']}  {', '.join(one['cases'])}"
        typer.echo(printable(line))  # older logs hold users' names as they came
    if not found:
        typer.echo("no alerts")
