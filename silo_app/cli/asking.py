"""What people type to say why and who asks, checked before anything is sent."""

import getpass
from typing import Annotated

import typer

__all__ = ["PurposeOption", "UserOption", "who_asks_why"]

PurposeOption = Annotated[str, typer.Option(help="Why you ask: care, research or teaching.")]
UserOption = Annotated[str, typer.Option(help="Who asks, for the audit logs of all silos.")]


def who_asks_why(user: str, purpose: str) -> tuple[str, str]:
    """Return who asks, the account's own name if none is given, and why. Raises `typer.BadParameter` naming the option."""
    from pydantic import TypeAdapter, ValidationError

    from silo_app.search.messages import MAX_USER, Purpose, User

    who = user or getpass.getuser()
    for option, kind, value, says in (
        ("--purpose", Purpose, purpose, "a word in small letters, as care, research or teaching"),
        ("--user", User, who, f"a name of at most {MAX_USER} characters that can all be seen"),
    ):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            raise typer.BadParameter(f"{value!r} is not {says}", param_hint=option) from None
    return who, purpose
