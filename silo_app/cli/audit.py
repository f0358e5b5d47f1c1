"""`silo audit`: what the silo's privacy officer looks at: planted cases that were found, and whether the log is whole."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit, people
from silo_app.config import load
from silo_app.printable import printable

if TYPE_CHECKING:
    from silo_app.audit.whole import WholeLog

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


@app.command("verify")
def verify(
    silo: SiloOption,
    noted: Annotated[
        str | None, typer.Option("--noted", help="A digest that was noted before: one of the lines must have it.")
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Verify the audit log: no line was changed, put in or taken out, and no file between others is missing.

    The log and what it was rotated to in the same folder, as `silo audit alerts` reads it. That lines are missing at its
    end cannot be seen: note the last digest elsewhere, and give it with --noted the next time. The exit status is 1 if the
    log is not whole.

    Examples:
        silo audit verify --silo kits/st-anna

        silo audit verify --silo kits/st-anna --noted 5c0d... --format json
    """
    from dataclasses import asdict

    from silo_app.audit.chain import REMEDY
    from silo_app.audit.whole import whole_log
    from silo_app.errors import AuditDamaged

    path = load(silo).audit
    log = whole_log(path, noted)
    if log.problems:
        raise AuditDamaged("; ".join(log.problems), where=str(path), remedy=REMEDY)
    emit({**asdict(log), "digest": log.digest, "has_older": log.has_older}, output, lambda _: _print_whole(log))


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


def _print_whole(log: "WholeLog") -> None:
    for file in log.files:
        events = ", ".join(f"{count} {event}" for event, count in file.events.items())
        typer.echo(printable(f"{' = '.join(file.names)}: {file.first_at} to {file.last_at}, {file.lines} lines ({events})"))
    if not log.files:
        typer.echo("nothing was written yet")
        return
    if log.has_older:
        typer.echo("Older files are not here: what they said cannot be verified.")
    for name in log.anew:
        typer.echo(f"{printable(name)} begins anew: whether something was between it and the one before cannot be seen.")
    typer.echo(f"The log is whole. Note its last digest elsewhere: {log.digest}")


def _print(found: list[dict[str, Any]]) -> None:
    for one in found:
        line = f"{one['at']}  {one['asker']}  {one['user'] or '-'}  {one['purpose']}  {', '.join(one['cases'])}"
        typer.echo(printable(line))  # older logs hold users' names as they came
    if not found:
        typer.echo("no alerts")
