"""What people type to say why and who asks, checked before anything is sent; and what they are told beside the answer."""

import getpass
import os
from typing import Annotated

import typer

from silo_app.cases import EncoderVersion
from silo_app.cli.edge import people
from silo_app.config import SiloHome
from silo_app.errors import NotReady

__all__ = ["PurposeOption", "UserOption", "account", "tell_encoder", "who_asks_why"]

PurposeOption = Annotated[str, typer.Option(help="Why you ask: care, research or teaching.")]
UserOption = Annotated[str, typer.Option(help="Who asks, for the audit logs of all silos.")]


def account() -> str:
    """Return the name of the account, or its number where it has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"uid {os.getuid()}"


def who_asks_why(user: str, purpose: str) -> tuple[str, str]:
    """Return who asks, the account's own name if none is given, and why. Raises `typer.BadParameter` naming the option."""
    from pydantic import TypeAdapter, ValidationError

    from silo_app.search.messages import MAX_USER, Purpose, User

    who = user or account()
    for option, kind, value, says in (
        ("--purpose", Purpose, purpose, "a word in small letters, as care, research or teaching"),
        ("--user", User, who, f"a name of at most {MAX_USER} characters that can all be seen"),
    ):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            raise typer.BadParameter(f"{value!r} is not {says}", param_hint=option) from None
    return who, purpose


def tell_encoder(home: SiloHome, asked_with: EncoderVersion) -> None:
    """Say so where a query was asked with an older encoder than the silo's current one, because its index is of that."""
    from silo_app.encoder.checkpoint import current_version

    try:
        current = current_version(home.models)
    except NotReady:  # the index names its encoder itself; whoever has an answer gets it
        return
    if current != asked_with:
        people.print(
            f"Searched with encoder {asked_with[:12]} until the index is built with {current[:12]}: silo index build",
            highlight=False,
            soft_wrap=True,
        )
