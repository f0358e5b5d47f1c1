"""A silo's configuration: one YAML file, read once, immutable; every problem in it is reported at once.

A silo lives in one folder, the startup kit that its hospital was given:

    <kit>/startup/          NVFlare's certificates and scripts (signed by the provisioner)
    <kit>/local/silo.yaml   this configuration (owned by the hospital)
    <kit>/silo/             what the silo makes: catalogue, cache, models, index, audit, sockets (mode 0700)
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from silo_app.cases import Finding
from silo_app.errors import ConfigInvalid, NotReady

__all__ = [
    "AcceptanceSettings",
    "CsvLabels",
    "FolderSource",
    "NoLabels",
    "ReleaseSettings",
    "SiloConfig",
    "SiloHome",
    "TagLabels",
    "load",
]

CONFIG_NAME = "silo.yaml"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FolderSource(_Settings):
    """A folder of DICOM files, read recursively; a relative path is relative to the kit."""

    kind: Literal["folder"] = "folder"
    path: Path
    """The folder."""


class CsvLabels(_Settings):
    """Labels in a CSV with a header line.

    `key` says what the values of `key_column` are. `findings_column` holds names separated by `separator`; `mapping`
    turns local names into the shared vocabulary (names of the vocabulary map to themselves, whatever their case).
    `scope` lists the findings that whoever labelled the images looked for: one in the scope that is not named is
    absent, one outside the scope is unknown. A row that names "No Finding" (or maps to it) has every finding of the
    scope absent.
    """

    kind: Literal["csv"] = "csv"
    path: Path
    """The CSV file, UTF-8; a relative path is relative to the kit."""
    key: Literal["file", "sop_instance_uid", "study_instance_uid", "accession_number", "patient_id"] = "study_instance_uid"
    """What the values of `key_column` name: files, images, studies, orders or patients."""
    key_column: str = "study_instance_uid"
    """The column of keys."""
    findings_column: str = "findings"
    """The column of findings."""
    separator: str = "|"
    """What separates findings in one value."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local name: finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings that were looked for."""


class TagLabels(_Settings):
    """Labels in a DICOM attribute of the files themselves, named by its keyword; values as in `CsvLabels`."""

    kind: Literal["tag"] = "tag"
    keyword: str = "StudyDescription"
    """The attribute's keyword (DICOM PS3.6)."""
    separator: str = "|"
    """What separates findings in one value."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local name: finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings that were looked for."""


class NoLabels(_Settings):
    """No labels: the silo still embeds, indexes and searches."""

    kind: Literal["none"] = "none"


Labels = Annotated[CsvLabels | TagLabels | NoLabels, Field(discriminator="kind")]

RELEASABLE = ("modality", "body_part", "position", "sex", "age_band", "study_year", "findings")


class ReleaseSettings(_Settings):
    """What this silo lets out in an answer to another hospital's query; enforced by `silo_app.policy`."""

    answer_queries: bool = True
    """Whether this silo answers at all."""
    fields: tuple[Literal["position", "sex", "age_band", "study_year", "findings"], ...] = (
        "position",
        "sex",
        "age_band",
        "findings",
    )
    """What of a case an answer says, beside its random case id and its similarity; everything else stays."""
    max_hits: int = Field(default=20, ge=1, le=1000)
    """The most cases in one answer, whatever was asked for."""
    min_similarity: float = Field(default=-1.0, ge=-1.0, le=1.0)
    """Cases that are less similar than this are not released."""
    min_gallery: int = Field(default=11, ge=1)
    """A gallery of fewer cases answers nobody (small cells: CMS's threshold of 11)."""
    purposes: tuple[str, ...] = ("care", "research", "teaching")
    """The purposes that are answered."""
    askers: tuple[str, ...] = ()
    """Names of the silos that are answered; empty means every silo of the federation."""


class AcceptanceSettings(_Settings):
    """When this silo rejects a sum: it tests every one on its own held-out patients."""

    test: bool = True
    """Whether sums are tested."""
    max_loss_factor: float = Field(default=5.0, gt=1.0)
    """Reject a sum after which the loss is more than so many times what it was (or what knowing nothing costs)."""
    max_auc_drop: float = Field(default=0.3, gt=0.0, le=1.0)
    """Reject a sum that lowers the mean AUC of the findings by more than this."""
    min_views: int = Field(default=30, ge=1)
    """With fewer held-out views chance decides: then only a loss that is not finite is rejected."""


class TrainingSettings(_Settings):
    """What this silo gives to a training job."""

    join: bool = True
    """Whether this silo takes part in training."""
    min_silos: int = Field(default=2, ge=2)
    """Refuse a sum of fewer silos' updates: with one other, a sum is an update."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the trainer; null leaves it to the library."""
    acceptance: AcceptanceSettings = AcceptanceSettings()
    """When a sum is rejected; see below."""


class MilvusSettings(_Settings):
    """A Milvus server that holds the silo's vectors, when one machine is not enough."""

    uri: str = Field(min_length=1)
    """https://host:19530 of a server, or a file relative to the kit (milvus-lite: for trials, one process at a time)."""
    token_file: Path | None = None
    """A private file (0600) that holds the token, "user:password" or a key; relative to the kit."""
    index_type: Literal["FLAT", "HNSW", "AUTOINDEX"] = "FLAT"
    """What Milvus finds candidates with: FLAT is exact, HNSW and AUTOINDEX are not."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    """How long one call may take."""


class IndexSettings(_Settings):
    """How this silo's vectors are held; `silo index move` takes an index over to changed settings."""

    exact_up_to: int = Field(default=2_000_000, ge=0)
    """Views up to which every query is compared with all of them; above, inverted lists find the candidates."""
    held_in: Literal["files", "milvus"] = "files"
    """Where new generations go: files of the silo (FAISS), or the Milvus server below."""
    milvus: MilvusSettings | None = None
    """The Milvus server; leave it here after a move back to files, until the move is done."""

    @model_validator(mode="after")
    def _names_its_server(self) -> Self:
        if self.held_in == "milvus" and self.milvus is None:
            raise ValueError("held_in is milvus, and no server is named (milvus.uri)")
        return self


class SiloConfig(_Settings):
    """The whole of `silo.yaml`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The silo's name in the federation, as in its certificate: a-z, 0-9 and -."""
    display_name: str = ""
    """The name that people read."""
    home: Path = Path("silo")
    """Where everything lies that the silo makes: catalogue, cache, encoders, index, audit."""
    sources: tuple[FolderSource, ...] = ()
    """Where images come from; see below."""
    labels: Labels = NoLabels()
    """Where findings come from: `kind` is csv, tag or none; see below."""
    held_out_share: float = Field(default=0.2, ge=0.0, le=0.9)
    """The share of patients whose images are never trained on; drawn by patient from the silo's own key."""
    release: ReleaseSettings = ReleaseSettings()
    """What may leave; see below."""
    training: TrainingSettings = TrainingSettings()
    """What is given to training; see below."""
    index: IndexSettings = IndexSettings()
    """How vectors are held; see below."""


class SiloHome(_Settings):
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
    def audit(self) -> Path:
        """The audit log, JSON lines."""
        return self.root / "audit.jsonl"

    @property
    def index_socket(self) -> Path:
        """Where the silo's index process listens."""
        return self.root / "run" / "index.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where the gateway in the site's NVFlare process listens for the hospital's own askers."""
        return self.root / "run" / "gateway.sock"

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
