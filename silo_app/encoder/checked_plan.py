"""A job's plan is validated wherever it arrives, in one way: every wrong setting is named at once; no torch."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from silo_app.errors import ConfigInvalid

__all__ = ["OPTION", "checked_plan"]

Plan = TypeVar("Plan", bound=BaseModel)

OPTION = "--set"
"""Where settings stand that a person typed."""
_FILE = "app/config/config_fed_server.json: plan"


def checked_plan(kind: type[Plan], content: Any, where: str = _FILE) -> Plan:
    """Return the plan of a `kind` of job in `content`. Raises `ConfigInvalid` naming every wrong setting at once.

    `where` says where whoever reads the error wrote these settings.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = "\n".join(_told(kind, one) for one in error.errors())
        raise ConfigInvalid(
            wrong,
            where=where,
            remedy="Correct these settings and try again; jobs/README.md lists those of our jobs.",
        ) from None


def _told(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{name or '(plan)'}: {error['msg'].removeprefix('Value error, ')}"
    likely = _likely(name, list(_names(kind)))
    return f"unknown setting {name}" + (f"; did you mean {likely}?" if likely else "")


def _likely(name: str, known: list[str]) -> str:
    """Return the setting that was meant, if one looks like it: the same word in another part, or a word like it."""
    elsewhere = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    alike = difflib.get_close_matches(name, known, n=1)
    return next(iter([*elsewhere, *alike]), "")


def _names(kind: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting."""
    for name, field in kind.model_fields.items():
        parts = [one for one in (field.annotation, *get_args(field.annotation)) if _is_model(one)]
        for part in parts:
            yield from _names(part, f"{before}{name}.")
        if not parts:
            yield before + name


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
