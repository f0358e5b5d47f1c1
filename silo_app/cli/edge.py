"""The edge between people and the domain: output for people or for programs, and errors with a remedy.

Data go to stdout and people's text to stderr. `--format json` prints one envelope, as NVFlare's own tools do
(nvflare `tool/cli_output.py`): {"schema_version": 1, "status": "ok", "data": ...} or {..., "status": "error", "error": ...}.
"""

import errno
import importlib.metadata
import json
import math
import os
import sys
import traceback
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from silo_app.errors import ConfigInvalid, NotReady, SiloscopeError
from silo_app.printable import is_printable

__all__ = [
    "FormatOption",
    "HtmlOption",
    "OutputFormat",
    "SiloOption",
    "emit",
    "people",
    "run",
    "with_version",
    "writable_file",
    "writable_folder",
    "write_asked_page",
]

SCHEMA_VERSION = 1
_ERROR_PAGE = "docs/errors/README.md"
_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}
"""What whoever runs the machine can mend, and we cannot; any other error of the system is a bug of ours."""
_MEND_MACHINE = (
    "Let the account that runs Siloscope read and write there, and look whether the disk has room (`silo doctor`)."
)

people = Console(stderr=True)
"""Where progress, summaries and errors for people go."""


class OutputFormat(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


def writable_file(path: Path | None) -> Path | None:
    """Return where a file will be written. Raises `ConfigInvalid` if none can be made there, before any work is done."""
    if path is not None and (path.is_dir() or not _is_open_folder(path.absolute().parent)):
        problem = "a folder lies there" if path.is_dir() else "no file can be made there"
        raise ConfigInvalid(problem, where=str(path), remedy="Name a file in a folder that exists and may be written.")
    return path


def writable_folder(path: Path | None) -> Path | None:
    """Return where a folder will be written or made. Raises `ConfigInvalid` if none can be, before any work is done."""
    if path is not None:
        absolute = path.absolute()
        there = next(one for one in (absolute, *absolute.parents) if os.path.lexists(one))
        if not _is_open_folder(there):
            problem = "a file lies there" if there == absolute and not there.is_dir() else f"{there} cannot hold a folder"
            raise ConfigInvalid(problem, where=str(path), remedy="Name a folder, new or there, that may be written.")
    return path


def _is_open_folder(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Also write a page into this file; it needs no network.",
        callback=writable_file,
        show_default=False,
    ),
]
FormatOption = Annotated[OutputFormat, typer.Option("--format", help="table for people, json for programs.")]
SiloOption = Annotated[
    Path, typer.Option("--silo", envvar="SILO", help="The silo's startup kit (a folder).", show_default=False)
]


def emit(data: Any, output: OutputFormat, show: Callable[[Any], None]) -> None:
    """Print `data` as one JSON envelope, or let `show` print it for people."""
    if output is OutputFormat.JSON:
        _print({"schema_version": SCHEMA_VERSION, "status": "ok", "data": data})
    else:
        show(data)


def write_asked_page(path: Path, make: Callable[[], str]) -> None:
    """Make and write a page of an answer that was printed: what fails of it is told to people, and with the status.

    Programs have their one envelope already, with the answer, which nothing here may cost.
    """
    from silo_app.pages.render import write_page

    try:
        written = write_page(path, make())
    except SiloscopeError as error:
        _report(error.code, error.problem, error.where, error.remedy, wants_json=False)
        raise typer.Exit(error.exit_status) from None
    people.print(f"wrote {written}", highlight=False, markup=False)


def with_version(app: typer.Typer) -> None:
    """Give a command line `--version`: server and hospitals need the same one."""

    def tell(wanted: bool) -> None:  # noqa: FBT001  (typer's way to call it)
        if wanted:
            typer.echo(f"siloscope {importlib.metadata.version('siloscope')}")
            raise typer.Exit

    @app.callback()
    def _options(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=tell, is_eager=True, help="Say the version, and end.")
        ] = False,
    ) -> None:
        pass


def run(app: typer.Typer, arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and end the process with the status that its outcome deserves."""
    arguments = sys.argv[1:] if arguments is None else arguments
    wants_json = "json" in {value for _, value in zip(["", *arguments], arguments, strict=False) if _ == "--format"} or (
        "--format=json" in arguments
    )
    try:
        status = app(args=arguments, standalone_mode=False)
    except SiloscopeError as error:
        _report(error.code, error.problem, error.where, error.remedy, wants_json=wants_json)
        raise SystemExit(error.exit_status) from None
    except typer.TyperException as error:
        _report("usage", error.format_message(), "", _usage(error), wants_json=wants_json)
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):
        people.print("interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            _end_with_bug(error, wants_json=wants_json)
        problem = f"the system refuses it: {error.strerror}"
        _report(NotReady.code, problem, str(error.filename or ""), _MEND_MACHINE, wants_json=wants_json)
        raise SystemExit(NotReady.exit_status) from None
    except Exception as error:  # noqa: BLE001  (a bug of ours: show it whole, and say that it is one)
        _end_with_bug(error, wants_json=wants_json)
    raise SystemExit(status if isinstance(status, int) else 0)


def _end_with_bug(error: Exception, *, wants_json: bool) -> NoReturn:
    traceback.print_exception(error)
    _report("internal", f"{type(error).__name__}: {error}", "", "This is a bug: report it.", wants_json=wants_json)
    raise SystemExit(70) from None


def _usage(error: typer.TyperException) -> str:
    """Return how the command is used, as far as the error knows which it is."""
    context = getattr(error, "ctx", None)
    return f"{context.get_usage()}\nSee {context.command_path} --help." if context else "See --help."


def _report(code: str, problem: str, where: str, remedy: str, *, wants_json: bool) -> None:
    if wants_json:
        error = {"code": code, "problem": problem, "where": where, "remedy": remedy}
        _print({"schema_version": SCHEMA_VERSION, "status": "error", "error": error})
        return
    place = f"{where}: " if where else ""
    people.print(f"[bold red]error:[/bold red] {escape(place + problem)}", highlight=False, soft_wrap=True)
    people.print(escape(remedy), highlight=False, soft_wrap=True)
    people.print(f"[dim]{code} ({_ERROR_PAGE}#{code})[/dim]", highlight=False)


def _print(content: dict[str, Any]) -> None:
    finite = _finite(content)
    text = json.dumps(finite, ensure_ascii=False, default=str)
    if not is_printable(text):
        text = json.dumps(finite, default=str)  # the same, with an escape for what is not ASCII
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _finite(content: Any) -> Any:
    """Return `content` with null for numbers that JSON has no word for (RFC 8259): other programs could not read it."""
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content
