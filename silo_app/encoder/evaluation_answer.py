"""What one silo tells an evaluation: aggregates over its held-out patients, in a closed form; no torch.

The form itself knows the small-cell rule: an answer with a figure over fewer patients than its own terms say does not exist.
Nothing in it can hold a view, a patient, a score or an embedding.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from silo_app.cases import Finding, Sex
from silo_app.encoder.metrics import CALIBRATION_BINS, Interval
from silo_app.encoder.score_histogram import BINS
from silo_app.encoder.settings import TrainSettings
from silo_app.errors import MessageInvalid
from silo_app.policy.filters import AGE_BANDS

__all__ = [
    "NEIGHBOURS",
    "ClassFigures",
    "Figure",
    "FindingFiguresTold",
    "FindingTold",
    "GapTold",
    "GroupTold",
    "LocalTold",
    "ReliabilityBinTold",
    "RetrievalTold",
    "SegmentTold",
    "SiloAnswer",
    "Way",
    "figure_of",
    "is_printable",
    "local_words",
]

NEIGHBOURS = 10
"""Neighbours that count; fixed, like every question of an evaluation."""
Way = Literal["encoder", "local-only encoder", "untrained encoder", "raw pixels"]
_DECIMALS = 4
_PRINTABLE = r"^[ -~]{1,64}$"

_Share = Annotated[float, Field(ge=0, le=1)]
_Gap = Annotated[float, Field(ge=-1, le=1)]
_Count = Annotated[int, Field(ge=1, le=10**9)]
_FindingName = Annotated[Finding, Field(strict=False)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Figure(_Told):
    """A figure and the 95 % interval of its bootstrap over patients."""

    value: _Share
    low: _Share | None = None
    high: _Share | None = None


class GapTold(_Told):
    """The encoder's AUC less that of the silo's own local-only encoder, on the same views, drawn together."""

    value: _Gap
    low: _Gap | None = None
    high: _Gap | None = None
    local_auc: _Share


class LocalTold(_Told):
    """How the silo's local-only encoder was trained: a gap to one that was trained otherwise is not federation's alone."""

    rounds: _Count
    training: TrainSettings
    differs: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z_.]{1,60}$")], ...], Field(max_length=60, strict=False)]
    """The settings in which the encoder's own training was another, as far as its card says."""


class FindingFiguresTold(_Told):
    """One finding on held-out views."""

    present: _Count
    """Views."""
    absent: _Count
    present_patients: _Count
    absent_patients: _Count
    auc: Figure
    average_precision: Figure
    balanced_accuracy: Figure
    sensitivity: Figure
    """At the fixed specificity (`metrics.SPECIFICITY`)."""
    calibration_error: Figure


class SegmentTold(_Told):
    """Views that score in these bins of the grid (`score_histogram`)."""

    start: Annotated[int, Field(ge=0, lt=BINS)]
    stop: Annotated[int, Field(ge=1, le=BINS)]
    views: _Count
    patients: _Count
    """Who count here: each in one segment of one side, whatever their other views score."""


class ReliabilityBinTold(_Told):
    """See `reliability.ReliabilityBin`."""

    start: Annotated[int, Field(ge=0, lt=CALIBRATION_BINS)]
    stop: Annotated[int, Field(ge=1, le=CALIBRATION_BINS)]
    views: _Count
    present: _Count
    predicted: _Share


_Segments = Annotated[tuple[SegmentTold, ...], Field(min_length=1, max_length=BINS, strict=False)]


class FindingTold(FindingFiguresTold):
    """One finding on all held-out views, with what pools over silos."""

    present_scores: _Segments
    absent_scores: _Segments
    reliability: Annotated[tuple[ReliabilityBinTold, ...], Field(max_length=CALIBRATION_BINS, strict=False)] = ()

    @model_validator(mode="after")
    def _segments_hold(self) -> Self:
        sides = (
            (self.present_scores, self.present, self.present_patients),
            (self.absent_scores, self.absent, self.absent_patients),
        )
        for segments, views, patients in sides:
            edges = [0, *(one.stop for one in segments)]
            if [one.start for one in segments] != edges[:-1] or edges[-1] != BINS or sorted(set(edges)) != edges:
                raise ValueError("segments of scores do not cover the grid one after the other")
            if (sum(one.views for one in segments), sum(one.patients for one in segments)) != (views, patients):
                raise ValueError("segments of scores do not add up to the views and patients")
            if any(one.views < one.patients for one in segments):
                raise ValueError("a segment of scores has more patients than views")
        return self

    @model_validator(mode="after")
    def _reliability_says_no_more(self) -> Self:
        """Every bin is of whole segments: else the one less the other is of a few views."""
        width = BINS // CALIBRATION_BINS
        for place in self.reliability:
            sides = ((self.present_scores, place.present), (self.absent_scores, place.views - place.present))
            for segments, views in sides:
                inside = [one for one in segments if place.start * width <= one.start and one.stop <= place.stop * width]
                covered = sum(one.stop - one.start for one in inside) == (place.stop - place.start) * width
                if not covered or sum(one.views for one in inside) != views:
                    raise ValueError("a bin of the reliability diagram is not of whole segments of scores")
        return self


class ClassFigures(_Told):
    """Neighbours of the queries that have one class (a finding, or "No Finding")."""

    queries: _Count
    patients: _Count
    precision: _Share
    """Among the first `NEIGHBOURS`."""
    average_precision: _Share
    ndcg: _Share


class RetrievalTold(_Told):
    """Neighbours inside the silo, as seen from held-out queries; balanced figures are means over these classes."""

    classes: Mapping[_FindingName, ClassFigures]

    def balanced(self, name: Literal["precision", "average_precision", "ndcg"]) -> float | None:
        """Return the mean over the classes, or None if there is none."""
        values = [float(getattr(one, name)) for one in self.classes.values()]
        return sum(values) / len(values) if values else None


class GroupTold(_Told):
    """Figures over the held-out views of one group of patients."""

    by: Literal["sex", "age_band", "device"]
    value: Annotated[str, Field(pattern=_PRINTABLE)]
    findings: Mapping[_FindingName, FindingFiguresTold]
    retrieval: RetrievalTold

    @model_validator(mode="after")
    def _is_a_group(self) -> Self:
        known = {"sex": [sex.value for sex in Sex], "age_band": AGE_BANDS}.get(self.by)
        if known is not None and self.value not in known:
            raise ValueError(f"there is no {self.by} of this name")
        return self


class SiloAnswer(_Told):
    """Everything that one silo tells."""

    encoder: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    kind: Annotated[str, Field(max_length=40, pattern=r"^[a-z -]*$")]
    """What the encoder's card says that it is, such as "federated"."""
    min_patients: Annotated[int, Field(ge=2)]
    """Of the silo's policy."""
    held_out_patients: _Count
    held_out_views: _Count
    findings: Mapping[_FindingName, FindingTold]
    retrieval: Mapping[Way, RetrievalTold]
    statistics_auc: Mapping[_FindingName, _Share] = {}
    """The floor: gradient boosting on eleven image statistics."""
    local: Mapping[_FindingName, GapTold] = {}
    """Empty where the silo has no local-only encoder."""
    local_training: LocalTold | None = None
    """Of the same local-only encoder; None where its card does not say."""
    own: Mapping[_FindingName, FindingFiguresTold] = {}
    """Of the silo's own network beside the shared one, on the same views; empty where it has none of this encoder."""
    groups: Annotated[tuple[GroupTold, ...], Field(max_length=200, strict=False)] = ()

    @model_validator(mode="after")
    def _no_small_cells(self) -> Self:
        few = [name for name, patients in self._counts() if patients < self.min_patients]
        if few:
            raise ValueError(f"figures over fewer than {self.min_patients} patients: {', '.join(sorted(set(few)))}")
        if not set(self.statistics_auc) | set(self.local) | set(self.own) <= set(self.findings):
            raise ValueError("a floor, a gap or an own network's figure of a finding that is not told")
        return self

    def _counts(self) -> Iterator[tuple[str, int]]:
        """Yield over how many patients each figure is."""
        yield "all", self.held_out_patients
        for finding, one in self.findings.items():
            yield f"all: {finding}", min(one.present_patients, one.absent_patients)
        for finding, own in self.own.items():
            yield f"own network: {finding}", min(own.present_patients, own.absent_patients)
        for group in self.groups:
            for finding, figures in group.findings.items():
                yield f"{group.by} {group.value}: {finding}", min(figures.present_patients, figures.absent_patients)
        retrievals = [("all", one) for one in self.retrieval.values()]
        for where, retrieval in [*retrievals, *((f"{one.by} {one.value}", one.retrieval) for one in self.groups)]:
            for finding, near in retrieval.classes.items():
                yield f"{where}: neighbours, {finding}", near.patients
        for finding, told in self.findings.items():
            for side in (told.present_scores, told.absent_scores):
                yield f"scores: {finding}", min(one.patients for one in side)
            if left_over := self.held_out_patients - told.present_patients - told.absent_patients:
                yield f"unknown: {finding}", left_over

    @classmethod
    def checked(cls, content: Any) -> "SiloAnswer":
        """Return the answer in `content`. Raises `MessageInvalid`, which names places and rules and repeats no value."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'answer'}: {p['msg']}" for p in error.errors()[:5])
            raise MessageInvalid(
                f"this is no answer to an evaluation: {wrong}",
                remedy="Bring the silos and the server to the same version of Siloscope.",
            ) from None


def figure_of(one: Interval) -> Figure:
    """Return an interval as it is told."""
    low, high = (None if edge is None else round(edge, _DECIMALS) for edge in (one.low, one.high))
    return Figure(value=round(one.value, _DECIMALS), low=low, high=high)


def local_words(told: Mapping[str, Any]) -> str:
    """Return what people are told of a `LocalTold`, as the record of an evaluation has it."""
    one, differs = told["training"], told["differs"]
    passes = f"{one['epochs']:g} pass{'es' * (one['epochs'] != 1)} over its images"
    length = passes if one["steps"] is None else f"{one['steps']} steps"
    compared = f"otherwise than the encoder in {', '.join(differs)}" if differs else "all settings as the encoder's"
    return (
        f"{told['rounds']} rounds of {length}, batches of {one['batch_size']}, learning rate {one['learning_rate']:g}; "
        f"{compared}"
    )


def is_printable(value: str) -> bool:
    """Return whether a group may have this name: a header may hold anything as its device."""
    return re.fullmatch(_PRINTABLE, value) is not None
