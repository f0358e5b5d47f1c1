"""What a silo finds out about an encoder on its own held-out patients, as far as it may leave (`jobs/evaluate`)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from silo_app.cases import EncoderVersion, Finding, View, age_band
from silo_app.config import SiloHome
from silo_app.encoder import checkpoint, floors
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.devices import device_for
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluation_answer import (
    NEIGHBOURS,
    FindingFiguresTold,
    FindingTold,
    GapTold,
    GroupTold,
    LocalTold,
    ReliabilityBinTold,
    SegmentTold,
    SiloAnswer,
    Way,
    is_printable,
)
from silo_app.encoder.held_out import DRAWS, HeldOut
from silo_app.encoder.labels import labels_of
from silo_app.encoder.looks import without_look
from silo_app.encoder.metrics import CALIBRATION_BINS, auc, interval, patient_weights, probabilities
from silo_app.encoder.model import build, encoder_of
from silo_app.encoder.near_told import near_told, patients_of_class, tellable_classes
from silo_app.encoder.reliability import reliability
from silo_app.encoder.retrieval import Ranked, classes_of, rank
from silo_app.encoder.score_histogram import BINS, bins_of, segments
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.small_groups import one_group_each, tellable
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import CheckpointInvalid, NotReady, ReleaseRefused

__all__ = ["examine"]

_log = logging.getLogger(__name__)

By = Literal["sex", "age_band", "device"]
_MOST_QUERIES = 2000
_DECIMALS = 4


def examine(
    home: SiloHome,
    version: EncoderVersion | None,
    *,
    with_floors: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> SiloAnswer:
    """Evaluate `version`, or the encoder in use, on the silo's held-out patients.

    Raises `ReleaseRefused` if too few patients are held out; `NotReady`, `CheckpointInvalid` as loading does.
    """
    policy = home.config.evaluation
    if version is not None and version not in checkpoint.versions(home.models):
        raise NotReady(f"this silo does not hold encoder {version}", remedy="`silo model list` says what a silo holds.")
    kept = checkpoint.load(home.models, version or checkpoint.current_version(home.models))
    images = load(home, kept.spec, progress, leave_out=True)
    held_out = images.held_out & images.known.any(axis=1)  # of whom nothing is known, nothing is told
    patients = len(np.unique(images.patients[held_out]))
    if patients < policy.min_patients:
        raise ReleaseRefused(
            f"{patients} patients with labels are held out, and figures over fewer than {policy.min_patients} are not told",
            remedy="Ingest or label more, or decide on another `evaluation.min_patients` in local/silo.yaml.",
        )
    device = device_for(home.config.training.device)
    vectors, logits = _embedded(kept, images, device)
    rows = images.where(held_out)
    held = HeldOut(rows, logits[held_out], rows.patients, kept.spec.findings, policy.min_patients)
    columns = held.tellable_columns()
    ways: dict[Way, NDArray[np.float32]] = {"encoder": vectors}
    local = _local_only(home, kept, images, device)
    if local is not None:
        ways["local-only encoder"] = local[1]
    if with_floors:
        ways["untrained encoder"] = embed(build(kept.spec, seed=0).to(device), images.pixels)[0]
        ways["raw pixels"] = floors.raw_pixel_vectors(images.pixels)
    ranked = {way: _ranked(one, images, kept.spec) for way, one in ways.items()}
    return SiloAnswer(
        encoder=kept.version,
        kind=str(kept.card.get("kind", "")),
        min_patients=policy.min_patients,
        held_out_patients=patients,
        held_out_views=len(rows),
        findings={held.names[column]: _finding(held, column) for column in columns},
        retrieval={way: near_told(one, tellable_classes(one, policy.min_patients)) for way, (one, _) in ranked.items()},
        statistics_auc=_statistics(images, held, columns) if with_floors else {},
        local={} if local is None else _gaps(held, columns, local[0].spec, local[2][held_out]),
        local_training=None if local is None else _trained(local[0], kept),
        own=_own_network(kept, held, columns, device),
        groups=tuple(group for by in policy.groups for group in _groups(by, held, columns, *ranked["encoder"], images)),
    )


def _embedded(
    kept: checkpoint.Checkpoint, images: Images, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return embeddings as the silo would index them, and the logits of the head that tells findings here."""
    model = encoder_of(kept.spec, kept.own_vector if kept.has_own_head else kept.vector, device)
    vectors, logits = embed(model, images.pixels)
    if kept.spec.looks == "removed":
        vectors = without_look(vectors, ~images.held_out, images.targets, images.known, model.head())
    return vectors, logits


def _finding(held: HeldOut, column: int) -> FindingTold:
    known, present = held.images.known[:, column], held.images.targets[:, column] > 0.5
    probability, counted = probabilities(held.logits[:, column]), held.counted(column)
    bins = reliability(probability[known], present[known], counted[known], held.least)
    edges = [0, *(one.stop * BINS // CALIBRATION_BINS for one in bins)]
    sides = [known & present, known & ~present]
    scores = [segments(bins_of(probability[side]), counted[side], held.least, edges) for side in sides]
    told = [
        tuple(SegmentTold(start=start, stop=stop, views=views, patients=patients) for start, stop, views, patients in side)
        for side in scores
    ]
    return FindingTold(
        **dict(held.figures(column, held.everything)),
        present_scores=told[0],
        absent_scores=told[1],
        reliability=tuple(
            ReliabilityBinTold(**asdict(one) | {"predicted": round(one.predicted, _DECIMALS)}) for one in bins
        ),
    )


def _ranked(vectors: NDArray[np.float32], images: Images, spec: EncoderSpec) -> tuple[Ranked, NDArray[np.int64]]:
    """Return what the silo's own gallery gives held-out queries, and which rows they are."""
    names, classes = classes_of([str(finding) for finding in spec.findings], images.targets, images.known)
    queries = np.flatnonzero(images.held_out & classes.any(axis=1))
    if len(queries) > _MOST_QUERIES:
        queries = np.sort(np.random.default_rng(0).choice(queries, _MOST_QUERIES, replace=False))
    here = np.full(len(images), "here")
    return rank(names, vectors, classes, images.patients, here, queries, k=NEIGHBOURS), queries


def _groups(
    by: By, held: HeldOut, columns: Sequence[int], ranked: Ranked, queries: NDArray[np.int64], images: Images
) -> list[GroupTold]:
    views = held.images.views
    values = [_group(by, view) for view in views]
    here = np.array(one_group_each(values, [view.patient for view in views], [view.digest for view in views]), np.str_)
    group_of = dict(zip(held.patients, here, strict=True))
    asked = np.array([group_of[images.views[row].patient] for row in queries], np.str_)
    names = sorted(set(here) - {""})
    findings = {column: _tellable_findings(held, column, here, names) for column in columns}
    classes = _tellable_classes(ranked, asked, names, held.least)
    groups = []
    for name in names:
        figures = {held.names[c]: held.figures(c, here == name) for c, told in findings.items() if name in told}
        near = near_told(ranked.where(asked == name), [each for each, told in classes.items() if name in told])
        if figures or near.classes:
            groups.append(GroupTold(by=by, value=name, findings=figures, retrieval=near))
    return groups


def _group(by: By, view: View) -> str:
    """Return a view's group, or "" for none that could be told."""
    value = {"sex": view.sex.value, "age_band": age_band(view.age), "device": view.device}[by]
    return value if is_printable(value) else ""


def _tellable_findings(held: HeldOut, column: int, here: NDArray[np.str_], names: Sequence[str]) -> set[str]:
    groups = {
        name: (*held.patients_of(column, here == name), held.patients_without(column, here == name)) for name in [*names, ""]
    }
    may = [name for name in names if all(len(side) >= held.least for side in groups[name])]
    return tellable(groups, may, held.least)


def _tellable_classes(ranked: Ranked, asked: NDArray[np.str_], names: Sequence[str], least: int) -> dict[str, set[str]]:
    """Return in which groups each class is told, of those in which it is told of all."""
    inside = {name: ranked.where(asked == name) for name in [*names, ""]}
    alone = {name: tellable_classes(inside[name], least) for name in names}
    whole = tellable_classes(ranked, least)
    found = {}
    for column, each in enumerate(ranked.names):
        groups = {name: patients_of_class(one, column) for name, one in inside.items()}
        may = [name for name in names if each in alone[name]]
        found[each] = tellable(groups, may, least) if each in whole else set[str]()
    return found


def _statistics(images: Images, held: HeldOut, columns: Sequence[int]) -> dict[Finding, float]:
    names = [str(held.names[column]) for column in columns]
    labels = images.targets[:, columns], images.known[:, columns]
    found = floors.statistics_auc(names, images.pixels, *labels, images.held_out)
    return {Finding(name): round(value, _DECIMALS) for name, value in found.items()}


def _local_only(
    home: SiloHome, kept: checkpoint.Checkpoint, images: Images, device: torch.device
) -> tuple[checkpoint.Checkpoint, NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the silo's newest local-only encoder, other than the one that is evaluated, its embeddings and logits.

    One that cannot be read, or tells none of the findings, is passed over: it must not cost a good encoder its evaluation.
    """
    for version in reversed(checkpoint.versions(home.models)):
        if version == kept.version:
            continue
        try:
            if not _is_own_local_only(checkpoint.read_card(home.models, version), home.config.name):
                continue
            local = checkpoint.load(home.models, version)
        except CheckpointInvalid as error:
            _log.warning("no comparison with encoder %s: %s", version[:8], error.problem)
            continue
        if not set(local.spec.findings) & set(kept.spec.findings):
            _log.warning("no comparison with encoder %s: it tells other findings", version[:8])
            continue
        pixels = images.pixels
        if local.spec.input_size != kept.spec.input_size:
            pixels = load(home, local.spec, leave_out=True).pixels
        targets, known = labels_of(images.views, local.spec)  # of its own findings, in its own order
        vectors, logits = _embedded(local, Images(images.views, pixels, targets, known), device)
        return local, vectors, logits
    return None


def _is_own_local_only(card: Mapping[str, Any], name: str) -> bool:
    silos = card.get("silos")
    return card.get("kind") == "local only" and isinstance(silos, dict) and list(silos) == [name]


def _trained(local: checkpoint.Checkpoint, kept: checkpoint.Checkpoint) -> LocalTold | None:
    """Return how the local-only encoder was trained, and in what otherwise than the encoder, as far as the cards say."""
    try:
        ours, theirs = _settings(local), _settings(kept)
        differs = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
        return LocalTold(
            rounds=local.card["rounds"], training=TrainSettings(**local.card["training"]), differs=tuple(differs)
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _settings(kept: checkpoint.Checkpoint) -> dict[str, Any]:
    """Return the settings that a training alone and one together share, by dotted names."""
    found = {f"encoder.{name}": value for name, value in dict(kept.spec).items()}
    found |= {f"training.{name}": value for name, value in kept.card.get("training", {}).items()}
    return found | {name: kept.card[name] for name in ("rounds", "seed") if name in kept.card}


def _own_network(
    kept: checkpoint.Checkpoint, held: HeldOut, columns: Sequence[int], device: torch.device
) -> dict[Finding, FindingFiguresTold]:
    """Return the figures of the silo's own network, where the job of this encoder had it train one."""
    if not kept.has_own_network:
        return {}
    model = encoder_of(kept.spec, kept.own_vector, device)
    own = replace(held, logits=embed(model, held.images.pixels)[1])
    return {held.names[column]: own.figures(column, own.everything) for column in columns}


def _gaps(held: HeldOut, columns: Sequence[int], spec: EncoderSpec, logits: NDArray[np.float32]) -> dict[Finding, GapTold]:
    """Return by how much the encoder is better than the local-only one, (N, F') `logits`, on the same views."""
    gaps = {}
    for column in columns:
        finding = held.names[column]
        if finding not in spec.findings:
            continue
        rows = held.images.known[:, column]
        truth, weights = held.images.targets[rows, column] > 0.5, patient_weights(held.patients[rows], DRAWS, 0)
        here = auc(truth, held.logits[rows, column], weights)
        local = auc(truth, logits[rows, spec.findings.index(finding)], weights)
        if (gap := interval(here - local)) is None:
            continue
        low, high = (None if edge is None else round(edge, _DECIMALS) for edge in (gap.low, gap.high))
        area = round(float(local[0]), _DECIMALS)
        gaps[finding] = GapTold(value=round(gap.value, _DECIMALS), low=low, high=high, local_auc=area)
    return gaps
