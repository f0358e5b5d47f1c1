"""Templates -> one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from silo_app import durable
from silo_app.errors import ConfigInvalid

__all__ = ["render", "write_page"]


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Return a page; whatever is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("silo_app.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": _thousands, "percent": _percent}
    return environment.get_template(template).render(**facts)


def write_page(path: Path, content: str) -> Path:
    """Write a page for its owner's eyes, whole or not at all; return its absolute path. Raises `ConfigInvalid`."""
    path = path.absolute()
    try:
        durable.write_text(path, content, mode=durable.PRIVATE)
    except OSError as error:
        raise _unwritable(path, error.strerror or type(error).__name__) from None
    return path


def _unwritable(path: Path, problem: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"the page cannot be written: {problem}",
        where=str(path),
        remedy="Name a file in a folder that exists, with room, and into which this account may write.",
    )


def _thousands(value: float) -> str:
    return f"{round(value):,}"


def _percent(value: float) -> str:
    """Return a share in [0, 1] as a percentage that does not round a few to none."""
    return "under 1 %" if 0 < value < 0.01 else f"{value * 100:.0f} %"
