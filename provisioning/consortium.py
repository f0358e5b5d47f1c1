"""Who is in the federation: `consortium.yaml` as an immutable model; every problem in it is reported at once."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from silo_app.config import FolderSource, Labels, ReleaseSettings, SiloConfig, TrainingSettings, problems, read_yaml
from silo_app.errors import ConfigInvalid

__all__ = ["SERVER", "Admin", "Anchor", "Consortium", "Server", "Silo", "load"]

SERVER = "server"
"""The server's identity, in its certificate and as the name of its kit; its host may change, this does not."""

# NVFlare 2.9 checks the same shapes (apis/utils/format_check.py) one at a time; here they are checked together.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Organisation = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,63}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Part):
    """Where the coordinator listens: one host, one port for sites and administrators alike."""

    host: Host = "localhost"
    """The name that every hospital reaches it by; it stands in the server's certificate."""
    port: int = Field(default=8002, ge=0, le=65535)
    """0: a free port is chosen at the first provisioning, and kept."""
    scheme: Literal["tcp", "grpc", "http"] = "tcp"
    organisation: Organisation = "coordinator"
    home: Path | None = None
    """Where the kit will lie on the server's own machine, if not where it is made: NVFlare stores jobs by full path."""


class Admin(_Part):
    """A person who may ask the federation for something; the name is in the person's certificate."""

    name: Email
    role: Literal["lead", "org_admin", "member"] = "lead"
    organisation: Organisation = "coordinator"


class Anchor(_Part):
    """A site without data beside the server: a job for the server alone still needs one participating site."""

    name: Name = "anchor"


class Silo(_Part):
    """A hospital, and what its first `silo.yaml` shall say; from then on that file is the hospital's own."""

    name: Name
    display_name: str = ""
    organisation: Organisation | None = None
    """By default the name, with "_" for "-"."""
    sources: tuple[FolderSource, ...] = ()
    labels: Labels | None = None
    held_out_share: float | None = Field(default=None, ge=0.0, le=0.9)
    release: ReleaseSettings | None = None
    training: TrainingSettings | None = None

    @property
    def org(self) -> str:
        """The organisation in the site's certificate."""
        return self.organisation or self.name.replace("-", "_")

    def config(self) -> SiloConfig:
        """Return the first `silo.yaml` of this silo."""
        given = {
            "labels": self.labels,
            "held_out_share": self.held_out_share,
            "release": self.release,
            "training": self.training,
        }
        return SiloConfig(
            name=self.name,
            display_name=self.display_name,
            sources=self.sources,
            **{key: value for key, value in given.items() if value is not None},
        )


class Consortium(_Part):
    """The whole of `consortium.yaml`."""

    name: Name
    server: Server = Server()
    validity_days: int = Field(default=360, ge=1, le=3650)
    """Life of the federation's root certificate; participants' certificates last 360 days at most, never longer."""
    admin: Email = "admin@consortium.example"
    researchers: tuple[Admin, ...] = ()
    silos: tuple[Silo, ...] = Field(min_length=1)
    anchor: Anchor = Anchor()

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [SERVER, self.anchor.name, self.admin]
        names += [silo.name for silo in self.silos] + [person.name for person in self.researchers]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"used more than once: {', '.join(doubled)} ({SERVER} and the anchor's name are taken)")
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """NVFlare sites in starting order: the anchor, then the silos."""
        return (self.anchor.name, *self.silo_names)

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The silos, in the file's order."""
        return tuple(silo.name for silo in self.silos)

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone with an administrator's kit."""
        return (self.admin, *(person.name for person in self.researchers))

    @property
    def participants(self) -> tuple[str, ...]:
        """Everyone with a startup kit."""
        return (SERVER, *self.sites, *self.people)


def load(file: Path) -> Consortium:
    """Read `consortium.yaml`. Raises `ConfigInvalid` naming every wrong key at once."""
    if not file.is_file():
        raise ConfigInvalid(
            "there is no such file",
            where=str(file),
            remedy="Name the file that lists the federation's hospitals, for example provisioning/consortium.yaml.",
        )
    try:
        return Consortium.model_validate(read_yaml(file))
    except ValidationError as error:
        raise ConfigInvalid(problems(file, error), remedy="Correct these lines and try again.") from None
