"""Write the pages that come from elsewhere: ref-cli.md, ref-silo.md, ref-figures.md and errors/README.md. `make docs` runs this.

tests/docs/test_generated.py fails when a page is not what this writes, so documentation and code cannot drift apart.
"""

import ast
import inspect
import itertools
import json
import re
import sys
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

from silo_app import config, errors
from silo_app.errors import SiloscopeError

DOCS = Path(__file__).parent
_NOTE = "<!-- Written by docs/generate.py (`make docs`); change the code, not this page. -->\n\n"

REMEDIES = {
    "audit-damaged": "Keep the file as it is: somebody or something changed it, and the message names the line. Compare it with "
    "your backup, move it away, and start again; a new log begins.",
    "broker-unreachable": "Ask whoever runs the federation whether the search job runs (`silo job list`); if not: "
    "`silo job submit jobs/search`.",
    "busy": "Ask again in a moment. `silo search` searches by itself while `silo desk` is busy.",
    "case-unknown": "Give the case id as the search result has it; `silo search --format json` prints it whole. A case of another "
    "silo is known there only.",
    "catalogue-damaged": "Restore `silo/catalogue.db` from a backup, or move it away and run `silo ingest` again: the "
    "images are still where they were. Case ids will be new, and what was taken out since (`case-recalled` in the audit log) "
    "has to be taken out again.",
    "certificate-missing": "Ask the provisioner for the file that the message names: what is missing `consortium provision` "
    "puts back, and what has ended `consortium renew` makes anew.",
    "checkpoint-invalid": "Remove the version's folder under `silo/models/` and take part in a training job again.",
    "config-invalid": "Every wrong line is named at once; correct them and repeat the command.",
    "encoder-mismatch": "Run `silo index build`, or choose the encoder that the federation uses with `silo model use`.",
    "encoder-unknown": "`silo model list` has the versions that this silo holds; the first 8 of their 32 digits do. Nothing is damaged.",
    "federation": "See the part of the federation that the message names: `consortium status`, then `consortium logs`.",
    "image-unsupported": "Export the image again in a form that is supported; the reason says what is wrong with it. The "
    "other images are not affected.",
    "index-damaged": "Run `silo index build`: an index can always be built again from catalogue and cache.",
    "input": "Change what the message names and repeat the command.",
    "job-unknown": "`silo job list` has the ids; the first 8 digits do where only one job begins so.",
    "job-failed": "`silo job log JOB` shows the server's side; each silo's own log shows its own.",
    "key-refused": "Nothing was used. Submit the job again; if it repeats, tell the operator: somebody replays or forges keys.",
    "labels-invalid": "Correct the CSV, or describe it better under `labels` in `silo.yaml`; the message names column and line.",
    "message-invalid": "Bring both sides to the same version of Siloscope.",
    "not-ready": "Do the step first that the message names (`silo ingest`, `jobs/train`, `silo index build`, `silo serve`).",
    "port-taken": "End the process that the message names, or provision with another port (0 chooses a free one).",
    "privacy-refused": "`silo privacy` shows what is spent and what is left. Submit the job with a smaller `privacy.epsilon`, fewer rounds or "
    "more noise; the silo's owner decides about `training.privacy` in `silo.yaml`.",
    "process-failed": "Read the end of the log that the message names; `consortium up` starts what is missing. If `silo desk` ended while it "
    "searched, hospitals may have been asked: the audit log has `asking`.",
    "protocol": "Nothing of the message was used. If it repeats, tell the operator.",
    "release-refused": "The silo's owner decides: see `release` in its `silo.yaml`.",
    "round-refused": "Nothing was used. Look at the silos that the message names, then submit the job again.",
    "sample-invalid": "Correct the set of images as the message says; `silo sample import --help` lists the column options.",
    "server-unreachable": "Check that the server runs and that its one port can be reached from here.",
    "signature-invalid": "Nothing was used. Tell the operator: a participant's certificate is not of this federation.",
    "survivors-disputed": "Nothing was revealed, and the round is void. Compare the two sets of silos that the message names with the "
    "server's log: either the server or the silo that signed the other set does not follow the protocol.",
    "siloscope": "Read the message: it says what to do.",
    "source-empty": "Name the folder that holds the DICOM files, in `silo.yaml` or with `--source`.",
    "source-unreachable": "Nothing was removed, and what was read stays. Mend what the message names and run `silo ingest` again: it "
    "goes on from there.",
    "state": "Mend what the message names on this machine.",
    "sum-rejected": "The encoder became much worse on this silo's held-out patients. The silo takes part again when a later sum "
    "passes; look at `training.acceptance` in silo.yaml, and ask the others whether theirs became worse too.",
    "update-refused": "Nothing was used. Bring all silos to the same versions, or lower the learning rate if the loss was "
    "not finite.",
}
"""What the reader can do, by code; each message says it for its own case."""


def classes() -> list[type[SiloscopeError]]:
    """Return every error class, in the order of the tree."""
    named = [getattr(errors, name) for name in errors.__all__]
    return sorted(named, key=lambda kind: [parent.__name__ for parent in reversed(kind.__mro__)])


def error_page() -> str:
    """Return docs/errors/README.md."""
    head = (
        "# Errors\n\n"
        "Every error that Siloscope raises on purpose has a code. The message says what is wrong (with the values seen), where,\n"
        "and what to do. Between hospitals only the code and the public sentence travel, never the message.\n\n"
        "With `--format json` an error is one envelope on standard output:\n\n"
        "```json\n"
        '{"schema_version": 1, "status": "error", "error": {"code": "...", "problem": "...", "where": "...", "remedy": "..."}}\n'
        "```\n\n"
        "| exit status | means |\n|---|---|\n"
        "| 0 | done |\n"
        "| 1 | it could not be done: something on this machine or in the federation has to be mended |\n"
        "| 2 | what you gave is wrong, or the command line is |\n"
        "| 70 | a bug of ours: the traceback is shown; please report it |\n"
        "| 130 | you interrupted it |\n"
    )
    edge = (
        "\n## usage\n\nThe command line is wrong: an option, an argument or a command that does not exist.\n\n"
        "- **Exit status**: 2\n- **What to do**: The message shows how the command is used; `--help` tells more.\n"
        "\n## internal\n\nA bug of ours; the traceback stands above the message.\n\n"
        "- **Exit status**: 70\n- **What to do**: Report it, with the traceback; look through it for file names first.\n"
    )
    return _NOTE + head + edge + "".join(_error(kind) for kind in classes())


def _error(kind: type[SiloscopeError]) -> str:
    return (
        f"\n## {kind.code}\n\n{cleandoc(kind.__doc__ or '')}\n\n"
        f"- **Says across a border**: {kind.public}\n"
        f"- **Exit status**: {kind.exit_status}\n"
        f"- **What to do**: {REMEDIES.get(kind.code, 'NOT WRITTEN')}\n"
    )


def command_page() -> str:
    """Return docs/ref-cli.md."""
    from provisioning.cli import app as consortium
    from silo_app.cli.main import app as silo

    head = (
        "# The two commands\n\n"
        "`silo` works inside one hospital, and submits jobs for a researcher. `consortium` provisions a federation, and runs one\n"
        "on a single machine. Data go to standard output, everything for people to standard error; `--format json` prints one\n"
        "envelope for programs. Errors have codes: [errors](errors/README.md).\n\n"
    )
    return _NOTE + head + "\n".join(_commands(app, name) for name, app in (("silo", silo), ("consortium", consortium)))


def _commands(app: typer.Typer, name: str) -> str:
    command = typer.main.get_command(app)
    return _tidied(get_docs_for_click(obj=command, ctx=typer.Context(command, info_name=name), name=name, indent=1))


def _tidied(text: str) -> str:
    """Drop what typer adds to every command and lists with shortened sentences; show examples as code."""
    text = re.sub(r"^\* `--(help|install-completion|show-completion)\b.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\*\*Options\*\*:\n\n(?!\*)", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\*\*Commands\*\*:\n+(\* .*\n)+", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(Examples?):\n((?: {4}.*\n|\n(?= {4}))+)", _as_code, text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _as_code(found: re.Match[str]) -> str:
    return f"{found[1]}:\n\n```console\n{dedent(found[2]).strip()}\n```\n"


def settings_page() -> str:
    """Return docs/ref-silo.md."""
    head = (
        "# silo.yaml\n\n"
        "A silo lives in one folder, its startup kit. `local/silo.yaml` in it belongs to the hospital: provisioning writes the first\n"
        "one and never touches it again. Unknown keys are refused, and all wrong lines are reported at once. A running `silo serve`\n"
        "reads it at its next start.\n\n"
        "```yaml\n"
        "name: st-anna\n"
        "sources:\n"
        "  - path: /data/dicom          # relative paths are relative to the kit\n"
        "labels:\n"
        "  kind: csv\n"
        "  path: /data/labels.csv\n"
        "  mapping: {pleural fluid: Effusion}\n"
        "  scope: [Effusion, Pneumothorax]\n"
        "release:\n"
        "  fields: [findings, age_band] # nothing else of a case leaves\n"
        "  askers: [st-bruno]           # answer this silo only\n"
        "training:\n"
        "  min_silos: 3\n"
        "```\n"
    )
    return _NOTE + head + "".join(_settings(title, model) for title, model in _SECTIONS.items())


_SECTIONS: dict[str, type[BaseModel]] = {
    "Top": config.SiloConfig,
    "`sources` of kind `folder`": config.FolderSource,
    "`sources` of kind `dicomweb`": config.DicomWebSource,
    "`sources` of kind `dimse`": config.DimseSource,
    "`sources` of kind `listen`": config.ListenSource,
    "`tls` of a source": config.TlsSettings,
    "`labels` of kind `csv`": config.CsvLabels,
    "`labels` of kind `preset`": config.PresetLabels,
    "`labels` of kind `fhir`": config.FhirLabels,
    "`labels` of kind `sr`": config.SrLabels,
    "`labels` of kind `tag`": config.TagLabels,
    "`labels` of kind `none`": config.NoLabels,
    "`imaging`": config.ImagingSettings,
    "`release`": config.ReleaseSettings,
    "`release.count`": config.CountSettings,
    "`release.private`": config.PrivateSettings,
    "`index`": config.IndexSettings,
    "`index.milvus`": config.MilvusSettings,
    "`training`": config.TrainingSettings,
    "`training.acceptance`": config.AcceptanceSettings,
    "`training.privacy`": config.PrivacyBudget,
    "`survey`": config.SurveySettings,
    "`evaluation`": config.EvaluationSettings,
}


def _settings(title: str, model: type[BaseModel]) -> str:
    meanings = _attribute_docstrings(model)
    rows = [
        f"| `{name}` | {_default(field)} | {' '.join(meanings.get(name, '').split())} |\n"
        for name, field in model.model_fields.items()
        if name != "kind"
    ]
    about = cleandoc(model.__doc__ or "")
    table = "\n| key | default | meaning |\n|---|---|---|\n" + "".join(rows) if rows else ""
    return f"\n## {title}\n\n{about}\n{table}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "see below"
    return f"`{json.dumps(default, default=str)}`".replace("|", "\\|")


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each attribute, from the class's source."""
    body = ast.parse(dedent(inspect.getsource(model))).body[0]
    lines = body.body if isinstance(body, ast.ClassDef) else []
    return {
        before.target.id: str(after.value.value)
        for before, after in itertools.pairwise(lines)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def figures_page() -> str:
    """Return docs/ref-figures.md, from what the benchmarks wrote."""
    head = (
        "# Figures\n\n"
        "Every figure here was written by the command above it, on the machine and the day that it names; `--json FILE` writes the\n"
        "files in `docs/figures/`. Targets are the project's own, fixed before the measurement; a missed one says so.\n"
    )
    files = sorted((DOCS / "figures").glob("*.json"))
    return _NOTE + head + "".join(_measured(json.loads(file.read_text(encoding="utf-8")), file.stem) for file in files)


def _measured(result: dict[str, Any], stem: str) -> str:
    """Return a section for one benchmark's object; the file's name says which options it had."""
    targets, machine = result["targets"], result["machine"]
    options = "".join(f" {option}" for option in stem.split("--")[1:])
    rows = [
        f"| {name} | {figure['value']:.4g} | {figure['unit']} | {_verdict(targets.get(name), figure['value'])} |\n"
        for name, figure in result["figures"].items()
    ]
    missing = [
        f"| {name} | not measured | | {_verdict(target, None)} |\n"
        for name, target in targets.items()
        if name not in result["figures"]
    ]
    return (
        f"\n## {result['name']}{options}\n\n`python -m benchmarks.{result['name']}{_OPTIONS.get(options, options)}`, {result['date'][:10]}, "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{''.join(f'{one}, ' for one in machine.get('graphics', ()))}Python {machine['python']}\n\n"
        "| figure | value | unit | target |\n|---|---:|---|---|\n" + "".join(rows + missing)
    )


_CONTRASTS = "encoder.channels=contrasts training.smoothing=0.1 fairness=0.5"
_SETTINGS = {
    "": "",
    "-kept": " --set training.squares=kept",
    "-contrasts": f" --set {_CONTRASTS}",
    "-contrasts-kept": f" --set {_CONTRASTS} training.squares=kept",
}
_OPTIONS = {
    **{
        f" {prefix}{name}{suffix}{how}": f" --data pediatric-chest-xray.zip --hospitals {hospitals} --alpha {alpha} --seeds 3 --backbone densenet-small --limit 1500{passes} --threads 1{settings}"
        for prefix, hospitals, suffix, passes in (
            ("", 3, "", ""),
            ("", 3, "-32-passes", " --epochs 32"),
            ("10-hospitals-", 10, "", " --epochs 32"),
        )
        for name, alpha in (("alpha-0.1", "0.1"), ("alpha-0.5", "0.5"), ("iid", "iid"))
        for how, settings in _SETTINGS.items()
    },
    **{
        f" gpu-{precision}": f" --device cuda --backbone densenet121 --input-size 224 --precision {precision} --threads 4 --turns 3"
        for precision in ("auto", "float16")
    },
    " nih": " --data nih-chest-xray-700.zip",
    " nih-trained": " --data nih-chest-xray-700.zip --trained",
    " quick": " --quick",
    " seed-1": " --seed 1",
    " seed-2": " --seed 2",
    " pediatric": " --data pediatric-chest-xray.zip",
    " pediatric-trained": " --data pediatric-chest-xray.zip --trained",
    " pediatric-1500": " --data pediatric-chest-xray.zip --limit 1500",
    **{
        f" unlike{network}{ways}{seeds}{how}": f" --data pediatric-chest-xray.zip nih-chest-xray-700.zip{backbone}{which}{chosen} --threads 1{settings}"
        for network, backbone in (("", ""), ("-medium", " --backbone densenet-medium"))
        for ways, which in (("", ""), ("-three-ways", " --ways recipe own pooled"))
        for seeds, chosen in (("", ""), ("-seeds-8-12", " --first-seed 8 --seeds 5"))
        for how, settings in _SETTINGS.items()
    },
    " unlike-medium-64-rounds": " --data pediatric-chest-xray.zip nih-chest-xray-700.zip --backbone densenet-medium --threads 1 --epochs 64 --set rounds=64 training.squares=kept training.smoothing=0.1 fairness=0.5",
    " unlike-medium-200": " --data pediatric-chest-xray.zip nih-chest-xray-700.zip --backbone densenet-medium --limit 200 --ways recipe own pooled --threads 1",
}


def _verdict(target: list[Any] | None, value: float | None) -> str:
    if target is None:
        return ""
    relation, limit = target
    held = value is not None and (value >= limit if relation == ">=" else value <= limit)
    return f"{relation} {limit:g}: {'held' if held else '**missed**'}"


PAGES = {
    DOCS / "ref-cli.md": command_page,
    DOCS / "ref-silo.md": settings_page,
    DOCS / "ref-figures.md": figures_page,
    DOCS / "errors" / "README.md": error_page,
}


def main() -> None:
    """Write every page."""
    for path, content in PAGES.items():
        path.write_text(content(), encoding="utf-8")
        sys.stderr.write(f"{path}\n")


if __name__ == "__main__":
    main()
