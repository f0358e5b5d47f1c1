"""What a demo found, as frozen facts: the report shows these and nothing else.

Whatever was not measured is `Missing` with its reason, and a number that is not known is None. The report says so; it never
fills a gap. Everything is what the demo's own commands returned, so a fact here can be traced to a command.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "Bar",
    "Check",
    "CheckOutcome",
    "CurvePoint",
    "DataKind",
    "DemoFacts",
    "EncoderCard",
    "FindingCount",
    "Hit",
    "Learning",
    "Machine",
    "Missing",
    "Picture",
    "Query",
    "Retrieval",
    "Round",
    "Run",
    "Search",
    "Silo",
    "SiloRound",
    "SiloState",
    "Traffic",
]


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that is not in the report, and why."""

    reason: str


class DataKind(StrEnum):
    """What the images are; the page says it at its top."""

    SYNTHETIC = "synthetic"
    REAL = "real"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Picture:
    """A small image that may be shown here, as PNG bytes."""

    png: bytes
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the demo ran; times mean nothing without it."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Python and the libraries that matter, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When, where, on what, and how long."""

    started: str
    """ISO 8601 with an offset."""
    command: str
    machine: Machine
    data: DataKind
    source: str
    """Where the images come from, in one sentence."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By phase, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCount:
    """Views of one silo in which a finding is present, absent, or not known."""

    finding: str
    present: int
    absent: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Silo:
    """What one hospital holds, in counts; the keys of the mappings are what its catalogue calls them."""

    name: str
    display_name: str
    patients: int
    cases: int
    views: int
    unlabelled: int = 0
    """Views of which nothing is known."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Views by split ("train", "held-out")."""
    findings: tuple[FindingCount, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    """Files that could not be used, by reason."""
    devices: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    sexes: Mapping[str, int] = field(default_factory=dict)
    pictures: tuple[Picture, ...] | Missing = ()


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How good an encoder was before round `round`, or after the last; None where the AUC is not defined."""

    round: int
    auc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """The federated encoder against what each silo reaches alone, on the held-out patients of all silos."""

    measure: str
    """What the AUC is of, such as "Pneumonia" or "mean of 6 findings"."""
    views: int
    """Held-out views of all silos together."""
    patients: int | None = None
    federated: tuple[CurvePoint, ...]
    alone: Mapping[str, tuple[CurvePoint, ...] | Missing]
    """By silo: trained on its own images only, as many steps, measured on the same views."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """What no training achieves, by name (image statistics, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloRound:
    """One silo's share of one round; `state` is "accepted", or why there is no update of it in the sum."""

    state: str = "accepted"
    upload_bytes: int | None = None
    train_seconds: float | None = None
    encrypt_seconds: float | None = None
    open_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round as the server recorded it."""

    number: int
    seconds: float
    download_bytes: int | None
    """Size of the encrypted sum that every silo gets back."""
    silos: Mapping[str, SiloRound]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes and seconds of training."""

    encryption: str
    """"bfv", or "none"."""
    plain_bytes: int | None
    """Size of the same update as plain float32."""
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The X-ray that was asked about; it is shown because it is the asker's own."""

    silo: str
    picture: Picture | Missing
    findings: tuple[str, ...] | None = None
    """What is known to be present; () is "No Finding", None is not known."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One case that a silo released; None is what its policy keeps or what it does not know."""

    rank: int
    similarity: float
    silo: str
    case: str
    findings: tuple[str, ...] | None = None
    view: str | None = None
    sex: str | None = None
    age_band: str | None = None
    picture: Picture | Missing = Missing("the silo's policy releases no image")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloState:
    """What became of one silo's share of a query."""

    silo: str
    state: str
    """"answered", "late", "denied", "unreachable", ..."""
    milliseconds: float | None = None
    indexed: int | None = None
    released: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One query with its gallery of hits and every silo's state."""

    title: str
    query: Query
    hits: tuple[Hit, ...]
    elsewhere: tuple[Hit, ...] = ()
    """What other hospitals than the asking one have behind these."""
    silos: tuple[SiloState, ...]
    milliseconds: float | None
    encoder_version: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure with its name; a floor is what no training achieves."""

    name: str
    value: float | None
    is_floor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """How well neighbours share their query's findings, over all held-out queries, beside the floors."""

    k: int
    queries: int
    precision: tuple[Bar, ...]
    """Precision among the first k, balanced over findings."""
    mean_average_precision: tuple[Bar, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """Where the encoder comes from."""

    version: str
    kind: str
    job: str
    rounds: int
    encryption: str
    silos: tuple[str, ...]
    """Who trained it; how many images each has is among what silos hide from each other."""
    architecture: Mapping[str, str] = field(default_factory=dict)
    intended_use: str = ""


class CheckOutcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Check:
    """A claim that the demo itself put to the test."""

    claim: str
    outcome: CheckOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFacts:
    """The whole report."""

    run: Run
    silos: tuple[Silo, ...]
    learning: Learning | Missing
    traffic: Traffic | Missing
    searches: tuple[Search, ...] | Missing
    retrieval: Retrieval | Missing
    encoder: EncoderCard | Missing
    checks: tuple[Check, ...] | Missing
