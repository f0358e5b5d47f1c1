"""The consortium's description: who takes part, under which names, and where the server is."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from silo_app.config import CsvLabels, FolderSource, NoLabels, ReleaseSettings, TagLabels, problems, read_yaml
from silo_app.errors import ConfigInvalid, InputError

__all__ = ["Consortium", "Person", "Server", "SiloEntry", "read"]

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_EMAIL = r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Settings):
    """Where the hospitals find the server; 0 chooses a free port when the consortium is provisioned."""

    host: str = Field(default="localhost", pattern=r"^[A-Za-z0-9.-]{1,253}$")
    port: int = Field(default=8002, ge=0, le=65_535)
    scheme: Literal["tcp", "grpc", "http"] = "tcp"


class Certificates(_Settings):
    """How long the root certificate holds; NVFlare 2.9 gives every participant's own 360 days."""

    root_valid_days: int = Field(default=3650, ge=1, le=36_500)


class SiloEntry(_Settings):
    """A hospital; what is given beside its names goes into the first `silo.yaml` of its kit."""

    name: str = Field(pattern=NAME)
    display_name: str = ""
    organisation: str = Field(default="", pattern=r"^[A-Za-z0-9_]{0,63}$")
    sources: tuple[FolderSource, ...] = ()
    labels: CsvLabels | TagLabels | NoLabels = Field(default=NoLabels(), discriminator="kind")
    release: ReleaseSettings = ReleaseSettings()


class Person(_Settings):
    """Somebody with an admin kit."""

    name: str = Field(pattern=_EMAIL)
    organisation: str = Field(default="coordinator", pattern=r"^[A-Za-z0-9_]{1,63}$")
    role: Literal["lead", "member", "org_admin", "project_admin"] = "lead"


class Consortium(_Settings):
    """The whole of `consortium.yaml`."""

    name: str = Field(pattern=NAME)
    server: Server = Server()
    certificates: Certificates = Certificates()
    silos: tuple[SiloEntry, ...] = Field(min_length=1)
    researchers: tuple[Person, ...] = Field(min_length=1)
    operator: Person = Person(name="admin@siloscope.example", role="project_admin")
    anchor: str = Field(default="anchor", pattern=NAME)
    """A site without data beside the server: NVFlare wants every job, the search job too, to have one."""

    @field_validator("operator")
    @classmethod
    def _operates(cls, person: Person) -> Person:
        return person.model_copy(update={"role": "project_admin"})

    @model_validator(mode="after")
    def _distinct(self) -> "Consortium":
        names = [silo.name for silo in self.silos] + [self.anchor, self.server.host]
        names += [person.name for person in (*self.researchers, self.operator)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must differ, also from the server's host: {', '.join(twice)}")
        return self


def read(file: Path) -> Consortium:
    """Read a consortium file. Raises `ConfigInvalid` naming every wrong key at once."""
    if not file.is_file():
        raise InputError(
            "there is no such file", where=str(file), remedy="Start from provisioning/consortium.yaml of the project."
        )
    content: Any = read_yaml(file)
    try:
        return Consortium.model_validate(content)
    except ValidationError as error:
        raise ConfigInvalid(problems(file, error), remedy="Correct these lines and try again.") from None
