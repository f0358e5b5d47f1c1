"""What a silo lets out in its answers to other hospitals' queries; enforced by `silo_app.policy`."""

from typing import Literal

from pydantic import Field

from silo_app.settings.base import Settings
from silo_app.settings.count import CountSettings
from silo_app.settings.search import PrivateSettings

__all__ = ["ReleaseSettings"]


class ReleaseSettings(Settings):
    """What this silo lets out in an answer to another hospital's query; enforced by `silo_app.policy`."""

    answer_queries: bool = True
    """Whether this silo answers at all."""
    fields: tuple[Literal["position", "sex", "age_band", "study_year", "findings", "thumbnail"], ...] = (
        "position",
        "sex",
        "age_band",
        "findings",
    )
    """What of a case an answer says, beside its random case id and its similarity; everything else stays. A thumbnail is a
    small picture of the case, where it was looked at for what is burned into it; it shows more than all others together."""
    thumbnail_side: int = Field(default=96, ge=64, le=128)
    """The longer side of a thumbnail in pixels."""
    max_hits: int = Field(default=20, ge=1, le=1000)
    """The most cases in one answer, whatever was asked for."""
    min_similarity: float = Field(default=-1.0, ge=-1.0, le=1.0)
    """Cases that are less similar than this are not released."""
    min_gallery: int = Field(default=11, ge=1)
    """A gallery of fewer cases answers nobody (small cells: CMS's threshold of 11)."""
    min_cases: int = Field(default=5, ge=1, le=1000)
    """Nothing is answered unless cases of so many different patients are similar enough and may be shown."""
    same_patient: Literal["withhold", "coarsen", "show"] = "withhold"
    """Cases that may be of the query's own patient: kept back (and not told of), only counted, or shown."""
    same_patient_purposes: tuple[str, ...] = ("care",)
    """With `same_patient: show`, the purposes for which they are shown; for all others they are withheld."""
    purposes: tuple[str, ...] = ("care", "research", "teaching")
    """The purposes that are answered."""
    askers: tuple[str, ...] = ()
    """Names of the silos that are answered; empty means every silo of the federation."""
    queries_per_day: int = Field(default=20_000, ge=0)
    """How many queries each silo may ask in a day (UTC)."""
    user_queries_per_day: int = Field(default=2_000, ge=0)
    """How many of them one user of a silo may ask, as that silo names its users."""
    similar_queries_per_day: int = Field(default=100, ge=0)
    """How often in a day one silo may ask so that the nearest case here that is not kept back is the same, whatever its
    questions are narrowed to: repeated questions about one image."""
    audit_within_ms: int = Field(default=100, ge=0, le=10_000)
    """How soon the audit record of an answer outlives a power cut; 0 is before the answer leaves, a few ms later each."""
    encoder: Literal["silos", "researchers"] = "silos"
    """Who may be given an exported encoder: silos only, or researchers too."""
    count: CountSettings = CountSettings()
    """Counts of similar cases; see below."""
    private: PrivateSettings = PrivateSettings()
    """Queries that this silo cannot read; see below."""
