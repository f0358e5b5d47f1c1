"""What the hospital's own programs say to its asking process over a private socket, and what it says back.

DeskSearch      program -> desk: find what is like this image, given as its bytes, or as a case or UID of the own silo
DeskFound       desk -> program: the result as `silo search` has it, and the image as the encoder sees it
DeskAsked       program -> desk: are you ready, and who answered last?
DeskState       desk -> program: this
DeskError       desk -> program: a code, what is wrong, where, and what to do

None of it leaves the hospital: what does is in `search.messages`.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field

from silo_app import errors
from silo_app.cases import CaseId
from silo_app.encoder.region import Region
from silo_app.errors import ImageUnsupported, SiloscopeError
from silo_app.policy.filters import Filters
from silo_app.search.examples import Example
from silo_app.search.find import Found, Wanted
from silo_app.search.messages import (
    MAX_HITS,
    MAX_SILOS,
    Case,
    MaybeVersion,
    Message,
    Purpose,
    SearchResult,
    SiloName,
    SiloState,
    User,
)
from silo_app.search.query import Refinement
from silo_app.search.rocchio import Weights

__all__ = ["MAX_SEARCH_BYTES", "DeskAsked", "DeskError", "DeskFound", "DeskSearch", "DeskState", "Sought"]

MAX_SEARCH_BYTES = 128 * 1024 * 1024
"""All images of one search together: twice the largest radiographs. A single larger file is for `silo search` alone."""
_MAX_PREVIEW = 4 * 1024 * 1024
_MAX_EXAMPLES = 1000
_PREPARING_S = 60.0
_USUAL_MS = 30_000
"""At least what silos may take where that is left to the desk."""
_LONGEST = 4000
_Text = Annotated[str, Field(max_length=_LONGEST)]
_Fraction = Annotated[float, Field(ge=0, le=1)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Sought(BaseModel):
    """One image: exactly one of these."""

    model_config = Message.model_config

    content: bytes | None = Field(default=None, repr=False)
    """A DICOM file."""
    case: Annotated[str, Field(max_length=_LONGEST)] = ""
    uid: Annotated[str, Field(max_length=_LONGEST)] = Field(default="", repr=False)

    @classmethod
    def of(cls, example: Example) -> Self:
        """Return it for an example whose file, if it is one, was read."""
        return cls(content=example.content, case=example.case, uid=example.uid)

    def example(self, name: str) -> Example:
        """Return it as an example that errors call `name`. Raises `ConfigInvalid`."""
        return Example(content=self.content, case=self.case, uid=self.uid, name=name)


class DeskSearch(Message):
    """`search.find.Wanted`, of which every field means the same."""

    max_bytes: ClassVar[int] = MAX_SEARCH_BYTES

    kind: Literal["desk-search"] = "desk-search"
    sought: Sought
    more: Annotated[tuple[Sought, ...], Field(max_length=_MAX_EXAMPLES)] = ()
    less: Annotated[tuple[Sought, ...], Field(max_length=_MAX_EXAMPLES)] = ()
    more_weight: _Weight = 0.75
    less_weight: _Weight = 0.15
    region: tuple[_Fraction, _Fraction, _Fraction, _Fraction] | None = None
    """Left, top, right, bottom."""
    without_patient: bool = False
    k: Annotated[int, Field(ge=1, le=MAX_HITS)] = 10
    purpose: Purpose = "care"
    user: User = ""
    budget_ms: Annotated[int, Field(ge=50, le=60_000)] | None = None
    private: bool = False
    filters: Filters = Filters()
    preview: bool = False

    @property
    def patience_s(self) -> float:
        """How long it may take: what silos have, twice for a private search, beside reading, loading and embedding."""
        return (2 if self.private else 1) * (self.budget_ms or _USUAL_MS) / 1000 + _PREPARING_S

    @classmethod
    def of(cls, wanted: Wanted) -> Self:
        """Return the question for what is wanted, whose files were read. Raises `ValidationError`."""
        refinement, region = wanted.refinement, wanted.refinement.region
        return cls(
            sought=Sought.of(wanted.example),
            more=tuple(map(Sought.of, refinement.more)),
            less=tuple(map(Sought.of, refinement.less)),
            more_weight=refinement.weights.more,
            less_weight=refinement.weights.less,
            region=None if region is None else (region.left, region.top, region.right, region.bottom),
            without_patient=wanted.without_patient,
            k=wanted.k,
            purpose=wanted.purpose,
            user=wanted.user,
            budget_ms=wanted.budget_ms,
            private=wanted.private,
            filters=wanted.filters,
            preview=wanted.preview,
        )

    def wanted(self) -> Wanted:
        """Return what is wanted. Raises `ConfigInvalid` for an image that is none or two, or a region that is none."""
        refinement = Refinement(
            more=[one.example(f"more-like image {number}") for number, one in enumerate(self.more, 1)],
            less=[one.example(f"less-like image {number}") for number, one in enumerate(self.less, 1)],
            weights=Weights(more=self.more_weight, less=self.less_weight),
            region=None if self.region is None else Region(*self.region),
        )
        return Wanted(
            example=self.sought.example("image"),
            refinement=refinement,
            without_patient=self.without_patient,
            k=self.k,
            purpose=self.purpose,
            user=self.user,
            budget_ms=self.budget_ms,
            private=self.private,
            filters=self.filters,
            preview=self.preview,
        )


class DeskFound(Message):
    """`search.find.Found`."""

    max_bytes: ClassVar[int] = SearchResult.max_bytes + _MAX_PREVIEW

    kind: Literal["desk-found"] = "desk-found"
    result: SearchResult
    preview: Annotated[bytes, Field(max_length=_MAX_PREVIEW)] = b""
    itself: Annotated[tuple[Case, ...], Field(max_length=1 + 2 * _MAX_EXAMPLES)] = ()

    @classmethod
    def of(cls, found: Found) -> Self:
        """Return the reply."""
        return cls(result=found.result, preview=found.preview, itself=tuple(sorted(found.itself)))

    def found(self) -> Found:
        """Return what was found."""
        return Found(self.result, self.preview, itself=frozenset(map(CaseId, self.itself)))


class DeskAsked(Message):
    """Whether the desk is ready."""

    max_bytes: ClassVar[int] = 1024

    kind: Literal["desk-asked"] = "desk-asked"


class DeskState(Message):
    """How the desk is, and what the last search saw of the silos."""

    kind: Literal["desk-state"] = "desk-state"
    encoder: Literal["loading", "ready", "missing"]
    """`missing`: it cannot be loaded; a search says why."""
    encoder_version: MaybeVersion = ""
    """Of what is loaded."""
    silos: dict[SiloName, Annotated[SiloState, Field(strict=False)]] = Field(default_factory=dict, max_length=MAX_SILOS)
    """What every silo did at the last search; empty before the first. Without the federation it is the own one alone."""
    seen_at_ms: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Milliseconds since 1970, of the last search; 0 before the first."""
    at_work: Annotated[int, Field(ge=0)]
    """Searches."""
    at_once: Annotated[int, Field(ge=1)]
    """The most of them; one more is told that the desk is busy."""

    @property
    def reachable(self) -> int:
        """How many silos replied at the last search, be it with a refusal."""
        return sum(state not in _SILENT for state in self.silos.values())


_SILENT = {SiloState.LATE, SiloState.UNREACHABLE, SiloState.INVALID}


class DeskError(Message):
    """Why there is no result."""

    kind: Literal["desk-error"] = "desk-error"
    code: Annotated[str, Field(pattern=r"^[a-z-]{1,40}$")]
    problem: _Text
    where: _Text = ""
    remedy: _Text = ""
    reason: Annotated[str, Field(max_length=100)] = ""
    """Of an image that cannot be used (`imaging.refusal.RefusalReason`)."""
    taken: bool = True
    """Whether the search was taken on: hospitals may have been asked. If not, it may be made elsewhere."""

    @classmethod
    def of(cls, error: SiloscopeError, *, taken: bool = True) -> Self:
        """Return the reply that tells an error."""
        reason = error.reason if isinstance(error, ImageUnsupported) else ""
        problem, where, remedy = (text[:_LONGEST] for text in (error.problem, error.where, error.remedy))
        return cls(code=error.code, problem=problem, where=where, remedy=remedy, reason=reason, taken=taken)

    def error(self) -> SiloscopeError:
        """Return the error as it would be raised here."""
        if self.code == ImageUnsupported.code:
            return ImageUnsupported(self.problem, reason=self.reason, remedy=self.remedy, where=self.where)
        kinds = (getattr(errors, name) for name in errors.__all__)
        kind = next((kind for kind in kinds if kind.code == self.code), SiloscopeError)
        return kind(self.problem, remedy=self.remedy, where=self.where)
