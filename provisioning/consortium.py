"""The consortium's description: who takes part, under which names, and where the server is."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from silo_app.config import (
    ReleaseSettings,
    SiloConfig,
    SourceSettings,
    SurveySettings,
    TrainingSettings,
    problems,
    read_yaml,
)
from silo_app.errors import ConfigInvalid, InputError
from silo_app.settings.labels import Labels

__all__ = ["SERVER", "Consortium", "Person", "Server", "SiloEntry", "read"]

SERVER = "server"
"""The server's identity in its certificate, and the name of its kit: its host may change, this does not."""

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_EMAIL = r"^[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"
_COMMON_NAME = 64  # the most that a certificate's subject takes (RFC 5280, ub-common-name)
_TRUTH_VALUES = frozenset({"true", "t", "yes", "y", "false", "f", "no", "n"})  # nvflare/fuel/utils/argument_utils.py


def _is_text(name: str) -> str:
    """Refuse what NVFlare 2.9 takes for a number or a truth value where it stands in a command: the site would not start."""
    if name.lower() in _TRUTH_VALUES or _is_number(name) or _is_number(name.replace("-", "_")):
        raise ValueError(f"NVFlare reads {name!r} as a number or as yes or no; add a word to it")
    return name


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


_Name = Annotated[str, Field(pattern=NAME), AfterValidator(_is_text)]
_Organisation = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_]{1,63}$"),  # NVFlare's rule (apis/utils/format_check.py)
    AfterValidator(_is_text),
]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Settings):
    """Where the hospitals find the server: one host, one port for sites and administrators alike."""

    host: str = Field(default="localhost", pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    """The name that every hospital reaches it by; it stands in the server's certificate."""
    port: int = Field(default=8002, ge=0, le=65_535)
    """0: a free one is chosen when the consortium is first provisioned, and kept."""
    scheme: Literal["tcp", "grpc", "http"] = "tcp"
    organisation: _Organisation = "coordinator"
    home: Path | None = None
    """Where the kit will lie on the server's own machine, if not where it is made: NVFlare stores jobs by full path."""


class Certificates(_Settings):
    """How long the root certificate holds; NVFlare 2.9 gives every participant's own 360 days, but never longer."""

    root_valid_days: int = Field(default=3650, ge=1, le=36_500)


class SiloEntry(_Settings):
    """A hospital; what is given beside its names goes into the first `silo.yaml` of its kit."""

    name: _Name
    display_name: str = ""
    organisation: _Organisation | None = None
    """By default the name, with "_" for "-"."""
    sources: tuple[SourceSettings, ...] = ()
    labels: Labels | None = None
    held_out_share: float | None = Field(default=None, ge=0.0, le=0.9)
    release: ReleaseSettings | None = None
    training: TrainingSettings | None = None
    survey: SurveySettings | None = None

    @property
    def org(self) -> str:
        """The organisation in the site's certificate."""
        return self.organisation or self.name.replace("-", "_")

    def config(self) -> SiloConfig:
        """Return the first `silo.yaml` of this silo: what is given here, and the defaults."""
        given = self.model_dump(exclude={"organisation"}, exclude_none=True)
        return SiloConfig.model_validate(given)


class Person(_Settings):
    """Somebody with an admin kit."""

    name: str = Field(pattern=_EMAIL, max_length=_COMMON_NAME)
    organisation: _Organisation = "coordinator"
    role: Literal["lead", "member", "org_admin", "project_admin"] = "lead"


class Consortium(_Settings):
    """The whole of `consortium.yaml`."""

    name: str = Field(pattern=NAME)
    server: Server = Server()
    certificates: Certificates = Certificates()
    silos: tuple[SiloEntry, ...] = Field(min_length=1)
    researchers: tuple[Person, ...] = ()
    operator: Person = Person(name="admin@siloscope.example", role="project_admin")
    anchor: _Name = "anchor"
    """A site without data beside the server: NVFlare wants every job, the search job too, to have one."""
    keep: tuple[Literal["search"], ...] = ()
    """Jobs that `consortium up` keeps running: submitted again whenever server or job were killed."""

    @field_validator("operator")
    @classmethod
    def _operates(cls, person: Person) -> Person:
        return person.model_copy(update={"role": "project_admin"})

    @model_validator(mode="after")
    def _distinct(self) -> "Consortium":
        names = [*self.participants, *(f"keep-{job}" for job in self.keep)]  # so the process that keeps a job is called
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must differ, also from {SERVER!r} and the anchor's: {', '.join(twice)}")
        return self

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The silos, in the file's order."""
        return tuple(silo.name for silo in self.silos)

    @property
    def sites(self) -> tuple[str, ...]:
        """NVFlare's sites: the anchor and the silos."""
        return (self.anchor, *self.silo_names)

    @property
    def people(self) -> tuple[Person, ...]:
        """Everyone with an admin kit: the researchers, then the operator."""
        return (*self.researchers, self.operator)

    @property
    def participants(self) -> tuple[str, ...]:
        """Everyone with a startup kit."""
        return (SERVER, *self.sites, *(person.name for person in self.people))


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
