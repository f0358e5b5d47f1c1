"""A silo's configuration: one YAML file, read once, immutable; every problem in it is reported at once.

A silo lives in one folder, the startup kit that its hospital was given:

    <kit>/startup/          NVFlare's certificates and scripts (signed by the provisioner)
    <kit>/local/silo.yaml   this configuration (owned by the hospital)
    <kit>/silo/             what the silo makes: catalogue, cache, models, index, audit, sockets (mode 0700)
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from silo_app.cases import Finding
from silo_app.errors import ConfigInvalid, NotReady

__all__ = [
    "CsvLabels",
    "FhirLabels",
    "FolderSource",
    "NoLabels",
    "PresetLabels",
    "ReleaseSettings",
    "Said",
    "SiloConfig",
    "SiloHome",
    "SrLabels",
    "SurveySettings",
    "TagLabels",
    "Uncertain",
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


class Said(StrEnum):
    """What a cell of a label file says of a finding."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"
    UNKNOWN = "unknown"


class Uncertain(StrEnum):
    """What an uncertain finding counts as: the policies of CheXpert (Irvin et al. 2019)."""

    IGNORE = "u-ignore"
    """Unknown."""
    ONES = "u-ones"
    """Present."""
    ZEROS = "u-zeros"
    """Absent."""


VALUES = {
    "1": Said.PRESENT,
    "1.0": Said.PRESENT,
    "0": Said.ABSENT,
    "0.0": Said.ABSENT,
    "-1": Said.UNCERTAIN,
    "-1.0": Said.UNCERTAIN,
    "": Said.UNKNOWN,
}


class CsvLabels(_Settings):
    """Labels in a CSV with a header line.

    `key` says what the values of `key_column` are. Findings are either names in one column (`findings_column`), or
    values in one column for each finding (`columns`). `mapping` turns local names into the shared vocabulary (names of
    the vocabulary map to themselves, whatever their case). `scope` lists the findings that whoever labelled the images
    looked for: one in the scope that is not named is absent, one outside the scope is unknown. A row that names
    "No Finding" (or maps to it) has every finding of the scope absent.
    """

    kind: Literal["csv"] = "csv"
    path: Path
    """The CSV file; a relative path is relative to the kit."""
    key: Literal["file", "image", "sop_instance_uid", "study_instance_uid", "accession_number", "patient_id"] = (
        "study_instance_uid"
    )
    """What the values of `key_column` name: files (with their extension), files by their name alone (`image`, whatever
    the extension), images, studies, orders or patients."""
    key_column: str = "study_instance_uid"
    """The column of keys."""
    findings_column: str = "findings"
    """The column of findings; not read when there are `columns`."""
    separator: str = Field(default="|", min_length=1)
    """What separates findings in one value."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local name: finding of the shared vocabulary."""
    columns: dict[str, Finding] = Field(default_factory=dict)
    """Column: the finding of which it holds values."""
    values: dict[str, Said] = Field(default_factory=lambda: dict(VALUES))
    """Value in one of the `columns`: present, absent, uncertain or unknown."""
    uncertain: Uncertain = Uncertain.IGNORE
    """What an uncertain finding counts as: u-ignore (unknown), u-ones (present) or u-zeros (absent)."""
    scope: tuple[Finding, ...] = ()
    """The findings that were looked for."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """What separates columns, such as ";" or a tab."""
    encoding: Literal["utf-8", "utf-16", "latin-1", "cp1252"] = "utf-8"
    """How the file is encoded; a byte order mark at its begin is passed over."""


class PresetLabels(_Settings):
    """Labels as a published data set brings them; `silo labels presets` tells what each preset reads."""

    kind: Literal["preset"] = "preset"
    preset: Literal["nih", "chexpert", "mimic", "padchest", "vindr", "vindr-images", "rsna", "rsna-classes"]
    """The data set, and which of its files."""
    path: Path
    """The CSV file; a relative path is relative to the kit."""
    images: Path | None = None
    """For `mimic`: the metadata CSV that names each image's study (`dicom_id`, `study_id`); without it, studies are
    told by their folders (`s50414267`)."""
    uncertain: Uncertain = Uncertain.IGNORE
    """For `chexpert` and `mimic`: what an uncertain finding counts as: u-ignore (unknown), u-ones or u-zeros."""
    scope: tuple[Finding, ...] | None = None
    """The findings that were looked for, instead of the preset's own."""


class FhirLabels(_Settings):
    """Coded conclusions of FHIR DiagnosticReports, one JSON resource a line (ndjson, a bulk export).

    A report is matched by the study UID or accession number that it names. Codes of SNOMED CT and RadLex are known;
    `codes` and `mapping` add your own. Text is compared as a whole term; sentences are not interpreted.
    """

    kind: Literal["fhir"] = "fhir"
    path: Path
    """The ndjson file; a relative path is relative to the kit."""
    codes: dict[str, Finding] = Field(default_factory=dict)
    """Code, as "system|code" or the code alone: finding of the shared vocabulary."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local term (a code's display, or a conclusion's text): finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings of which every report would speak if they were there."""


class SrLabels(_Settings):
    """Coded findings of DICOM Structured Reports (TID 1500, TID 2000 and what is built like them).

    A finding is of the images that its item refers to; without one, of the report's study.
    """

    kind: Literal["sr"] = "sr"
    path: Path
    """A folder of SR files, read recursively; a relative path is relative to the kit."""
    codes: dict[str, Finding] = Field(default_factory=dict)
    """Code, as "scheme|code" or the code alone: finding of the shared vocabulary."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local term (a code's meaning): finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings of which every report would speak if they were there."""


class TagLabels(_Settings):
    """Labels in a DICOM attribute of the files themselves, named by its keyword; values as in `CsvLabels`.

    Text of which no word is known says nothing at all.
    """

    kind: Literal["tag"] = "tag"
    keyword: str = "StudyDescription"
    """The attribute's keyword (DICOM PS3.6)."""
    separator: str = Field(default="|", min_length=1)
    """What separates findings in one value."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local name: finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings that were looked for."""


class NoLabels(_Settings):
    """No labels: the silo still embeds, indexes and searches."""

    kind: Literal["none"] = "none"


Labels = Annotated[CsvLabels | PresetLabels | FhirLabels | SrLabels | TagLabels | NoLabels, Field(discriminator="kind")]

RELEASABLE = ("modality", "body_part", "position", "sex", "age_band", "study_year", "findings")


class PrivateSettings(_Settings):
    """Queries that this silo scores without being able to read them (docs/explanation-private-search.md).

    Whoever asks so sees the similarity of every case to the query, so that as many queries as an embedding has numbers
    could solve for the embeddings: hence the noise, the budget, and that nobody is answered unless the silo says so.
    """

    answer: bool = False
    """Whether this silo answers private queries; not while `min_similarity` is set, which it could not enforce."""
    queries_per_day: int = Field(default=50, ge=0)
    """How many of them each silo may ask in a day (UTC)."""
    noise: int = Field(default=16, ge=0, le=1000)
    """The largest change of each score at random, in units of the product of two 8-bit vectors."""
    max_views: int = Field(default=250_000, ge=1, le=270_000)
    """A larger gallery answers no private queries: an answer is 15 bytes a view, a message 4 MiB."""
    processes: int = Field(default=2, ge=1, le=64)
    """How many processes score; each holds its share of the gallery, prepared, 4 kB a view of 256 numbers in all."""


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
    private: PrivateSettings = PrivateSettings()
    """Queries that this silo cannot read; see below."""


class TrainingSettings(_Settings):
    """What this silo gives to a training job."""

    join: bool = True
    """Whether this silo takes part in training."""
    min_silos: int = Field(default=2, ge=2)
    """Refuse a sum of fewer silos' updates: with one other, a sum is an update."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the trainer; null leaves it to the library."""


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


class SurveySettings(_Settings):
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
    """Where findings come from: `kind` is csv, preset, fhir, sr, tag or none; see below."""
    held_out_share: float = Field(default=0.2, ge=0.0, le=0.9)
    """The share of patients whose images are never trained on; drawn by patient from the silo's own key."""
    release: ReleaseSettings = ReleaseSettings()
    """What may leave; see below."""
    training: TrainingSettings = TrainingSettings()
    """What is given to training; see below."""
    survey: SurveySettings = SurveySettings()
    """What is told to surveys; see below."""
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
    def survey(self) -> Path:
        """What this silo has told surveys, and how much privacy that has spent."""
        return self.root / "survey.json"

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
