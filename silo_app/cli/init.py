"""`silo init`: a silo outside a consortium, to try things or to prepare data before joining one."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from pydantic import ValidationError

from silo_app.cases import Finding
from silo_app.catalogue import SiloKey
from silo_app.cli.edge import people, writable_folder
from silo_app.config import CONFIG_NAME, SiloConfig, load, problems
from silo_app.durable import private_folder, write_text
from silo_app.errors import ConfigInvalid

_HEADER = "# This silo's configuration, owned by the hospital. Paths are absolute, or relative to this kit.\n"

Key = Literal["file", "sop_instance_uid", "study_instance_uid", "accession_number", "patient_id"]


def init(
    kit: Annotated[Path, typer.Argument(help="The folder to make.", callback=writable_folder, show_default=False)],
    name: Annotated[str, typer.Option(help="The silo's name: a-z, 0-9 and -.", show_default=False)],
    source: Annotated[
        list[Path] | None, typer.Option(help="A folder of DICOM files; may be given again.", show_default=False)
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A CSV of labels.", show_default=False)] = None,
    key: Annotated[Key, typer.Option(help="What the CSV names images by.")] = "study_instance_uid",
    key_column: Annotated[str | None, typer.Option(help="Its column; by default named like the key.")] = None,
    findings_column: Annotated[str, typer.Option(help="The column of findings.")] = "findings",
    separator: Annotated[str, typer.Option(help="What separates findings in a cell.")] = "|",
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="WORD=FINDING of the shared vocabulary; may be given again.", show_default=False),
    ] = None,
    scope: Annotated[
        list[Finding] | None,
        typer.Option(help="A finding that was looked for: not named is absent. May be given again.", show_default=False),
    ] = None,
    held_out_share: Annotated[float, typer.Option(help="The share of patients that is never trained on.")] = 0.2,
) -> None:
    """Make a silo: a folder with local/silo.yaml, ready for `silo ingest`.

    Examples:
        silo init my-silo --name my-silo --source /data/dicom

        silo init my-silo --name my-silo --source /data/dicom --labels /data/labels.csv --key file --key-column file
        --findings-column finding --map bacteria=Pneumonia --map "normal=No Finding" --scope Pneumonia
    """
    file = kit / "local" / CONFIG_NAME
    if file.exists():
        raise ConfigInvalid("this is a silo already", where=str(file), remedy="Edit it, or name another folder.")
    content: dict[str, Any] = {
        "name": name,
        "sources": [{"kind": "folder", "path": str(path.resolve())} for path in source or []],
        "held_out_share": held_out_share,
    }
    if labels:
        content["labels"] = {
            "kind": "csv",
            "path": str(labels.resolve()),
            "key": key,
            "key_column": key_column or key,
            "findings_column": findings_column,
            "separator": separator,
            "mapping": dict(_pair(entry) for entry in mapping or []),
            "scope": [finding.value for finding in scope or []],
        }
    _check(file, content)
    private_folder(kit)
    private_folder(file.parent)
    write_text(file, _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    home = load(kit)
    private_folder(home.root)
    SiloKey.load_or_create(home.key)
    people.print(f"Made {file}. Next: silo ingest --silo {kit}", markup=False, highlight=False)


def _pair(entry: str) -> tuple[str, str]:
    word, found, finding = entry.partition("=")
    if not found or not word.strip():
        raise ConfigInvalid(f"--map {entry} is not WORD=FINDING", remedy='Write for example --map "normal=No Finding".')
    return word.strip(), finding.strip()


def _check(file: Path, content: dict[str, Any]) -> None:
    """Raise `ConfigInvalid` with every problem before anything is written."""
    try:
        SiloConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigInvalid(problems(file, error), remedy="Correct these options and try again.") from None
