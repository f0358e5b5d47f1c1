"""`silo model`: the encoders that a silo holds, and training one alone."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from silo_app import config
from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit, people
from silo_app.cli.job import parse_settings
from silo_app.cli.progress import work
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.errors import ConfigInvalid, NotReady

app = typer.Typer(no_args_is_help=True, help="The encoders of a silo.")


@app.command("list")
def list_models(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """List the encoders that the silo holds, oldest first.

    Example:
        silo model list --silo consortium/hospital-a
    """
    from silo_app.encoder import checkpoint

    models = config.load(silo).models
    try:
        current = checkpoint.current_version(models)
    except NotReady:
        current = None
    held = [
        {"version": version, "current": version == current, "card": checkpoint.read_card(models, version)}
        for version in checkpoint.versions(models)
    ]
    emit({"encoders": held}, output, _show_list)


@app.command()
def show(
    silo: SiloOption,
    version: Annotated[
        str | None,
        typer.Argument(help="A version (its first 8 digits do), or an exported file [default: the current]."),
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Print an encoder's model card, after verifying that its weights are those that the card speaks of.

    Examples:
        silo model show --silo consortium/hospital-a

        silo model show encoder.zip --silo consortium/hospital-a
    """
    from silo_app.encoder import checkpoint

    if version is not None and Path(version).is_file():
        from silo_app.encoder import export
        from silo_app.identity import Identity

        emit(dict(export.verify(Path(version), Identity.load(silo).trust).provenance), output, _show_card)
        return
    models = config.load(silo).models
    kept = checkpoint.load(models, checkpoint.named(version, models) if version else checkpoint.current_version(models))
    emit(dict(kept.card), output, _show_card)


@app.command()
def use(
    version: Annotated[str, typer.Argument(help="An encoder version; its first 8 digits do.", show_default=False)],
    silo: SiloOption,
) -> None:
    """Make an encoder the one that indexing and queries use, after verifying it.

    Example:
        silo model use 0f3a91c2 --silo consortium/hospital-a
    """
    from silo_app.encoder import checkpoint

    models = config.load(silo).models
    kept = checkpoint.load(models, checkpoint.named(version, models))
    checkpoint.set_current(models, kept.version)
    people.print(f"{kept.version} is current; run `silo index build`: the index is of the encoder before", soft_wrap=True)


@app.command("export")
def export_model(
    version: Annotated[str, typer.Argument(help='An encoder version, its first 8 digits do, or "current".')],
    silo: SiloOption,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    audience: Annotated[Literal["silo", "researcher"], typer.Option("--for", help="Who will be given it.")] = "silo",
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Write an encoder as one file, signed by this silo, that says where it comes from; the audit log has it first.

    Example:
        silo model export current --silo consortium/hospital-a --out encoder.zip
    """
    from silo_app.encoder import checkpoint, export

    home = config.load(silo)
    chosen = checkpoint.current_version(home.models) if version == "current" else checkpoint.named(version, home.models)
    written = export.export(home, chosen, out, audience)
    emit(written, output, lambda data: _show_card(data["provenance"]))


@app.command()
def verify(
    file: Path,
    root: Annotated[Path | None, typer.Option("--root", help="The federation's root certificate (rootCA.pem).")] = None,
    silo: Annotated[Path | None, typer.Option("--silo", envvar="SILO", help="Or a startup kit.")] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Check an exported encoder, and print where it comes from; only the root certificate is needed.

    Example:
        silo model verify encoder.zip --root rootCA.pem
    """
    from silo_app.encoder import export
    from silo_app.identity import Identity, Trust

    if root is not None:
        trust = Trust.of_root(root)
    elif silo is not None:
        trust = Identity.load(silo).trust
    else:
        raise ConfigInvalid("nothing says whom to believe", where="--root", remedy="Give --root rootCA.pem or --silo KIT.")
    emit(dict(export.verify(file, trust).provenance), output, _show_card)


@app.command("import")
def import_model(
    file: Path,
    silo: SiloOption,
    make_current: Annotated[bool, typer.Option("--use", help="Make it the current encoder.")] = False,  # noqa: FBT002
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Put an exported encoder among the silo's own, after verifying it.

    Example:
        silo model import encoder.zip --silo consortium/hospital-b
    """
    from silo_app.encoder import checkpoint, export
    from silo_app.identity import Identity

    home = config.load(silo)
    exported = export.verify(file, Identity.load(home.kit).trust)
    version = export.keep(home, exported)
    if make_current:
        checkpoint.set_current(home.models, version)
    emit({**exported.provenance, "current": make_current}, output, _show_card)


@app.command()
def adopt(
    file: Path,
    silo: SiloOption,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="encoder.NAME=VALUE as for `silo job submit jobs/train`; may be given again."),
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make an encoder version of weights from elsewhere: a safetensors file, or a state dict that torch.save wrote.

    No code in the file is run. Every silo that adopts the same file gets the same version, from which a training can start
    (`--set start=VERSION`).

    Example:
        silo model adopt weights.safetensors --silo consortium/hospital-a --set encoder.backbone=densenet121
    """
    from silo_app.encoder import checkpoint
    from silo_app.encoder.adopt import adopt as adopted

    models = config.load(silo).models
    version = adopted(models, plan_of(settings or []).encoder, file)
    emit(checkpoint.read_card(models, version), output, _show_card)


@app.command("train-local")
def train_local(
    silo: SiloOption,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE as for `silo job submit jobs/train`; may be given again."),
    ] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Evaluate after every round.")] = False,  # noqa: FBT002
    also_evaluate: Annotated[
        list[Path] | None,
        typer.Option("--also-evaluate", help="Another silo on this machine whose held-out patients count in the curve."),
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Train an encoder on this silo's images alone: the baseline that a federated one has to beat.

    It makes as many steps as the silo would in a federated job with the same settings, is kept with a card that says
    "local only", and is not made current.

    Examples:
        silo model train-local --silo consortium/hospital-a

        silo model train-local --silo consortium/hospital-a --set rounds=4 --set training.batch_size=16 --curve
    """
    home = config.load(silo)
    others = [config.load(other) for other in also_evaluate or []]
    plan = plan_of(settings or [])
    if unused := [name for name in ("start", "privacy") if getattr(plan, name) is not None]:
        raise ConfigInvalid(
            f"an encoder that a silo trains alone begins anew and without differential privacy: {' and '.join(unused)}",
            where="--set",
            remedy="Leave that out, or train it in a job.",
        )
    from silo_app.encoder import local

    with work("training") as progress:
        trained = local.train_local(
            home,
            plan.encoder,
            plan.training,
            rounds=plan.rounds,
            seed=plan.seed,
            also_evaluate=others,
            curve=curve,
            progress=progress,
        )
    emit(asdict(trained), output, _show_trained)


def plan_of(pairs: list[str]) -> Any:
    """Return the plan of jobs/train with NAME=VALUE pairs in the place of its settings; a dot leads into a part of it."""
    from silo_app.encoder.default_job import default_plan

    return default_plan(parse_settings(pairs))


def _show_list(data: dict[str, Any]) -> None:
    table = WholeTable("version", "", "kind", "job", "created", copied=("version",))
    for one in data["encoders"]:
        card = one["card"]
        created = str(card.get("created", ""))[:16].replace("T", " ")
        is_current = "current" if one["current"] else ""
        table.add_row(one["version"], is_current, str(card.get("kind", "")), str(card.get("job", "")), created)
    data_screen().print(table, markup=False, highlight=False)


def _show_card(card: dict[str, Any]) -> None:
    table = WholeTable("", "", show_header=False)
    for name, value in card.items():
        table.add_row(name, str(value))
    data_screen().print(table, markup=False, highlight=False)


def _show_trained(data: dict[str, Any]) -> None:
    for point in data["curve"]:
        areas = ", ".join(f"{name} {value:.3f}" for name, value in point["auc"].items())
        people.print(
            f"after round {point['round']}: AUC {areas or 'not defined'} ({point['views']} held-out views)", soft_wrap=True
        )
    people.print(f"{data['steps']} steps in {data['seconds']:.0f} s", highlight=False)
    print(data["version"])  # noqa: T201  (data on stdout)
