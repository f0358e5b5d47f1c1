"""A silo's configuration: one YAML file, read once, immutable; every problem in it is reported at once.

A silo lives in one folder, the startup kit that its hospital was given:

    <kit>/startup/          NVFlare's certificates and scripts (signed by the provisioner)
    <kit>/local/silo.yaml   this configuration (owned by the hospital)
    <kit>/silo/             what the silo makes: catalogue, cache, models, index, audit, sockets (mode 0700)
"""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from silo_app.errors import ConfigInvalid, NotReady
from silo_app.settings.acceptance import AcceptanceSettings
from silo_app.settings.base import Settings
from silo_app.settings.count import CountSettings
from silo_app.settings.evaluation import EvaluationSettings
from silo_app.settings.imaging import ImagingSettings
from silo_app.settings.labels import (
    CsvLabels,
    FhirLabels,
    Labels,
    NoLabels,
    PresetLabels,
    SrLabels,
    TagLabels,
    Uncertain,
)
from silo_app.settings.privacy import PrivacyBudget
from silo_app.settings.release import ReleaseSettings
from silo_app.settings.search import IndexSettings, MilvusSettings, PrivateSettings
from silo_app.settings.sources import (
    DicomWebSource,
    DimseSource,
    FolderSource,
    ListenSource,
    SourceSettings,
    TlsSettings,
    require_distinct,
)

__all__ = [
    "AcceptanceSettings",
    "CountSettings",
    "CsvLabels",
    "DicomWebSource",
    "DimseSource",
    "EvaluationSettings",
    "FhirLabels",
    "FolderSource",
    "ImagingSettings",
    "IndexSettings",
    "Labels",
    "ListenSource",
    "MilvusSettings",
    "NoLabels",
    "PresetLabels",
    "PrivacyBudget",
    "PrivateSettings",
    "ReleaseSettings",
    "SiloConfig",
    "SiloHome",
    "SourceSettings",
    "SrLabels",
    "SurveySettings",
    "TagLabels",
    "TlsSettings",
    "TrainingSettings",
    "Uncertain",
    "load",
    "problems",
    "read_yaml",
]

CONFIG_NAME = "silo.yaml"


class TrainingSettings(Settings):
    """What this silo gives to a training job."""

    join: bool = True
    """Whether this silo takes part in training."""
    min_silos: int = Field(default=2, ge=2)
    """Refuse a sum of fewer silos' updates: with one other, a sum is an update."""
    admit: bool = True
    """Whether this silo gives the keys of a training's closed sums to a silo that enters it later, where the resumed job
    names that silo. They open sums, which every silo of the job has; no single update."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the trainer; null leaves it to the library."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|all|cuda(:\d{1,2})?)$")
    """What trains and embeds: auto (the first graphics processor, or the CPU), cpu, cuda, cuda:1 and so on for one of
    several, or all, which divides every batch among all graphics processors."""
    views_at_once: int | None = Field(default=None, ge=1)
    """The most views in one pass through the network, for little memory: a job's larger batch is passed in parts, with the
    same gradient, at the cost of a second forward pass. Null passes it as a whole, unless a graphics processor's memory
    does not hold it: then half of it, and so on."""
    round_seconds: float | None = Field(default=None, gt=0)
    """After so long this silo stops training a round and gives what it has, with a smaller weight. Not in jobs with
    differential privacy, whose steps are paid for before."""
    share_metrics: bool = False
    """Whether the server may learn the pooled losses of a job that tracks them; only where every silo in a sum agrees."""
    acceptance: AcceptanceSettings = AcceptanceSettings()
    """When a sum is rejected; see below."""
    privacy: PrivacyBudget = PrivacyBudget()
    """How much of its patients' privacy may be spent; see below."""


class SurveySettings(Settings):
    """What this silo tells a survey (`jobs/survey`): counts of patients in fixed tables, never anything of one patient.

    With an `epsilon`, every count has noise of the discrete Laplace distribution, and one release is
    (epsilon, 0)-differentially private for the presence of one patient with all images; releases add up.
    """

    join: bool = True
    """Whether this silo answers surveys."""
    min_count: int = Field(default=11, ge=2)
    """Counts (after the noise) below this are not told (small cells: CMS's threshold of 11)."""
    epsilon: float | None = Field(default=5.0, gt=0, le=50)
    """Privacy loss of one release; null for exact counts, which hides small counts only and promises no more."""
    renew_days: int = Field(default=30, ge=1)
    """A release is repeated for so many days, whatever is asked and whatever was ingested; then a new one is drawn."""
    epsilon_total: float = Field(default=20.0, gt=0)
    """Privacy loss of all releases together; when it is spent the last release is repeated for ever."""

    @model_validator(mode="after")
    def _affords_one(self) -> Self:
        if self.epsilon is not None and self.epsilon > self.epsilon_total:
            raise ValueError("epsilon is larger than epsilon_total, so that not even one release could be drawn")
        return self


class SiloConfig(Settings):
    """The whole of `silo.yaml`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The silo's name in the federation, as in its certificate: a-z, 0-9 and -."""
    display_name: str = ""
    """The name that people read."""
    home: Path = Path("silo")
    """Where everything lies that the silo makes: catalogue, cache, encoders, index, audit."""
    sources: tuple[SourceSettings, ...] = ()
    """Where images come from: `kind` is folder (the default), dicomweb, dimse or listen; see below."""
    labels: Labels = NoLabels()
    """Where findings come from: `kind` is csv, preset, fhir, sr, tag or none; see below."""
    held_out_share: float = Field(default=0.2, ge=0.0, le=0.9)
    """The share of patients whose images are never trained on; drawn by patient from the silo's own key."""
    release: ReleaseSettings = ReleaseSettings()
    """What may leave; see below."""
    imaging: ImagingSettings = ImagingSettings()
    """Which pictures are taken; see below."""
    training: TrainingSettings = TrainingSettings()
    """What is given to training; see below."""
    survey: SurveySettings = SurveySettings()
    """What is told to surveys; see below."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is told about how well an encoder does; see below."""
    index: IndexSettings = IndexSettings()
    """How vectors are held; see below."""

    @model_validator(mode="after")
    def _sources_differ(self) -> Self:
        require_distinct(self.sources)
        return self


class SiloHome(Settings):
    """Where everything of one silo lies: the loaded configuration with every path made absolute."""

    kit: Path
    config: SiloConfig

    @property
    def root(self) -> Path:
        """The folder of what the silo makes."""
        return self.resolve(self.config.home)

    @property
    def catalogue(self) -> Path:
        """The SQLite catalogue."""
        return self.root / "catalogue.db"

    @property
    def cache(self) -> Path:
        """The folder of decoded radiographs."""
        return self.root / "cache"

    @property
    def inbox(self) -> Path:
        """The folder of files that an archive sent to us."""
        return self.root / "inbox"

    @property
    def spool(self) -> Path:
        """Files on their way from an archive into the cache; empty between ingests."""
        return self.root / "spool"

    @property
    def key(self) -> Path:
        """The silo's pseudonym key (32 random bytes, 0600)."""
        return self.root / "silo.key"

    @property
    def models(self) -> Path:
        """The folder of encoders: `models/<encoder version>/`, and `models/current` naming one."""
        return self.root / "models"

    @property
    def index(self) -> Path:
        """The folder of index generations."""
        return self.root / "index"

    @property
    def survey(self) -> Path:
        """What this silo has told surveys, and how much privacy that has spent."""
        return self.root / "survey.json"

    @property
    def privacy(self) -> Path:
        """What trainings have spent of the patients' privacy, SQLite."""
        return self.root / "privacy.db"

    @property
    def audit(self) -> Path:
        """The audit log, JSON lines."""
        return self.root / "audit.jsonl"

    @property
    def audit_within_s(self) -> float:
        """How soon a record of a query is on disk."""
        return self.config.release.audit_within_ms / 1000

    @property
    def release_key(self) -> Path:
        """32 random bytes (0600) from which answers take their noise."""
        return self.root / "release.key"

    @property
    def budgets(self) -> Path:
        """Who has asked how often today."""
        return self.root / "budgets.db"

    @property
    def canaries(self) -> Path:
        """Planted cases that nobody should ever find; one case id a line."""
        return self.root / "canaries.txt"

    @property
    def index_socket(self) -> Path:
        """Where the silo's index process listens."""
        return self.root / "run" / "index.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where the gateway in the site's NVFlare process listens for the hospital's own askers."""
        return self.root / "run" / "gateway.sock"

    @property
    def desk_socket(self) -> Path:
        """Where the silo's asking process listens for the hospital's own programs."""
        return self.root / "run" / "desk.sock"

    def resolve(self, path: Path) -> Path:
        """Return `path` absolute, taking a relative one from the kit."""
        return (self.kit / path).resolve()


def load(kit: Path) -> SiloHome:
    """Read the configuration of the silo whose startup kit is `kit`.

    Raises `NotReady` if there is no configuration, `ConfigInvalid` naming every wrong key at once.
    """
    file = kit / "local" / CONFIG_NAME
    if not file.is_file():
        raise NotReady(
            f"{kit} is not a silo: it has no local/{CONFIG_NAME}",
            remedy="Name the startup kit of your hospital with --silo (or SILO), or make a silo with `silo init`.",
        )
    content = read_yaml(file)
    try:
        config = SiloConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigInvalid(problems(file, error), remedy="Correct these lines and try again.") from None
    return SiloHome(kit=kit.resolve(), config=config)


def read_yaml(file: Path) -> Any:
    """Read a YAML file. Raises `ConfigInvalid` with line and column of what cannot be parsed."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        reason = getattr(error, "problem", None) or "not readable as UTF-8 YAML"
        raise ConfigInvalid(str(reason), where=place, remedy="Correct the YAML and try again.") from None


def problems(file: Path, error: ValidationError) -> str:
    """Return one line "file:key: problem" for each problem that pydantic found."""
    return "\n".join(
        f"{file}:{'.'.join(str(part) for part in problem['loc']) or '(top)'}: {problem['msg']}" for problem in error.errors()
    )
