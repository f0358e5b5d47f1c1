"""A job's plan is validated wherever it arrives, in one way: every wrong setting is named at once; no torch."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from silo_app.errors import ConfigInvalid

__all__ = ["checked_plan"]

Plan = TypeVar("Plan", bound=BaseModel)


def checked_plan(kind: type[Plan], content: Any) -> Plan:
    """Return the plan of a `kind` of job in `content`. Raises `ConfigInvalid` naming every wrong setting at once."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = "\n".join(f"{'.'.join(map(str, p['loc'])) or '(plan)'}: {p['msg']}" for p in error.errors())
        raise ConfigInvalid(
            wrong,
            where="app/config/config_fed_server.json: plan",
            remedy="Correct these settings of the job and submit it again.",
        ) from None
