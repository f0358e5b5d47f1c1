"""Settings by dotted names, as `--set` takes them, in the place of those of a job or a plan."""

from collections.abc import Mapping
from typing import Any

from silo_app.errors import ConfigInvalid

__all__ = ["override"]


def override(content: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Write `settings` into `content`; a dot leads into a part of it ("training.batch_size"), which is made if need be.

    Raises `ConfigInvalid` for a name that leads into a value.
    """
    for dotted, value in settings.items():
        place = content
        *parents, last = dotted.split(".")
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigInvalid(f"{dotted}: {name} holds no settings", where="--set", remedy="See jobs/README.md.")
        place[last] = value
