"""How good an encoder is on held-out patients of one silo, or of several that lie on this machine (demo, development).

Findings by silo and pooled, with intervals by patient; neighbours among all views of the silos given, and among those of
other silos only; every figure beside its floors (raw pixels, an untrained encoder, image statistics).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome
from silo_app.encoder import checkpoint, floors
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.devices import device_for
from silo_app.encoder.embed import embed
from silo_app.encoder.looks import without_look
from silo_app.encoder.metrics import FindingFigures, findings_figures
from silo_app.encoder.model import Encoder, build, encoder_of
from silo_app.encoder.retrieval import Neighbourhood, classes_of, neighbourhood
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import EncoderMismatch, NotReady

__all__ = ["Evaluation", "SiloImages", "evaluate", "evaluate_model", "find_encoder", "findings_auc"]

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, how much there is."""

_MOST_QUERIES = 2000
DRAWS = 500
"""Bootstrap draws of an interval."""


@dataclass(frozen=True)
class SiloImages:
    """All views of one silo."""

    silo: str
    images: Images


@dataclass(frozen=True)
class Evaluation:
    """Everything that `silo evaluate` reports; no view, patient or embedding is in it."""

    silos: Mapping[str, Mapping[str, int]]
    """By silo: train_views, held_out_views, held_out_patients."""
    findings: Mapping[str, Mapping[str, FindingFigures]]
    """By silo, and "pooled" over all of them: each finding's figures."""
    k: int
    retrieval: Mapping[str, Neighbourhood]
    """By way to embed ("encoder", floors "raw pixels" and "untrained encoder"): the gallery is every other patient."""
    retrieval_other_silos: Mapping[str, Neighbourhood]
    """The same with the query's own silo left out of the gallery; empty for one silo."""
    statistics_auc: Mapping[str, float]
    """The floor of the findings' AUC: gradient boosting on eleven image statistics."""


def find_encoder(homes: Sequence[SiloHome], version: EncoderVersion | None) -> checkpoint.Checkpoint:
    """Return `version` from whichever silo holds it, or the one that all of them use now.

    Raises `EncoderMismatch` if they use several, `NotReady` if none is held, `CheckpointInvalid`.
    """
    if version is None:
        used = {home.config.name: checkpoint.current_version(home.models) for home in homes}
        if len(set(used.values())) > 1:
            raise EncoderMismatch(
                f"the silos use different encoders: {', '.join(f'{n} {v}' for n, v in sorted(used.items()))}",
                remedy="Name one with --encoder.",
            )
        version = next(iter(used.values()))
    for home in homes:
        if version in checkpoint.versions(home.models):
            return checkpoint.load(home.models, version)
    raise NotReady(f"none of these silos holds encoder {version}", remedy="`silo model list` says what a silo holds.")


def evaluate(
    homes: Sequence[SiloHome],
    version: EncoderVersion | None = None,
    *,
    k: int = 10,
    with_floors: bool = True,
    progress: Progress | None = None,
) -> tuple[checkpoint.Checkpoint, Evaluation]:
    """Load the encoder and all views of the silos, and evaluate. Raises as `find_encoder` and `dataset.load` do."""
    kept = find_encoder(homes, version)
    device = device_for(homes[0].config.training.device)
    own_head = len(homes) == 1 and kept.has_own_head  # of several silos' heads none speaks for all
    model = encoder_of(kept.spec, kept.own_vector if own_head else kept.vector, device)
    everything = [SiloImages(home.config.name, load(home, kept.spec, _named(progress, "reading"))) for home in homes]
    return kept, evaluate_model(model, kept.spec, everything, k=k, with_floors=with_floors, progress=progress)


def evaluate_model(
    model: Encoder,
    spec: EncoderSpec,
    everything: Sequence[SiloImages],
    *,
    k: int = 10,
    with_floors: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model on silos' images. Raises `NotReady` if no patient is held out."""
    images, silos = _pooled(everything)
    held_out = images.held_out
    if not held_out.any():
        raise NotReady("no patient of these silos is held out", remedy="Set held_out_share in silo.yaml and ingest again.")
    vectors, scores = embed(model, images.pixels, _named(progress, "embedding"))
    if spec.looks == "removed":
        vectors = _without_looks(vectors, everything, model)
    ways = {"encoder": vectors}
    if with_floors:
        ways["raw pixels"] = floors.raw_pixel_vectors(images.pixels)
        untrained = build(spec, seed=0).to(model.device)
        ways["untrained encoder"] = embed(untrained, images.pixels, _named(progress, "untrained"))[0]
    names = [str(finding) for finding in spec.findings]
    return Evaluation(
        silos={one.silo: _counts(one.images) for one in everything},
        findings={
            "pooled": _figures(names, scores, images, held_out),
            **{one.silo: _figures(names, scores, images, held_out & (silos == one.silo)) for one in everything},
        },
        k=k,
        retrieval=_neighbours(ways, images, silos, names, k, other=False),
        retrieval_other_silos=_neighbours(ways, images, silos, names, k, other=True) if len(everything) > 1 else {},
        statistics_auc=floors.statistics_auc(names, images.pixels, images.targets, images.known, held_out)
        if with_floors
        else {},
    )


def findings_auc(spec: EncoderSpec, scores: NDArray[np.float32], images: Images) -> dict[str, float]:
    """Return the AUC of each finding that has present and absent views; the others are left out, not invented."""
    names = [str(finding) for finding in spec.findings]
    figures = findings_figures(names, scores, images.targets, images.known, images.patients)
    return {name: one.auc.value for name, one in figures.items()}


def _without_looks(vectors: NDArray[np.float32], everything: Sequence[SiloImages], model: Encoder) -> NDArray[np.float32]:
    """Return what the silos would index: each silo's look, as its training views have it, taken out of its vectors."""
    head = model.head()
    ends = np.cumsum([len(one.images) for one in everything])[:-1]
    return np.concatenate(
        [
            without_look(part, ~one.images.held_out, one.images.targets, one.images.known, head)
            for one, part in zip(everything, np.split(vectors, ends), strict=True)
        ]
    )


def _pooled(everything: Sequence[SiloImages]) -> tuple[Images, NDArray[np.str_]]:
    images = Images(
        [view for one in everything for view in one.images.views],
        *(np.concatenate([getattr(one.images, name) for one in everything]) for name in ("pixels", "targets", "known")),
    )
    return images, np.concatenate([np.full(len(one.images), one.silo) for one in everything])


def _counts(images: Images) -> dict[str, int]:
    held_out = images.held_out
    return {
        "train_views": int((~held_out).sum()),
        "held_out_views": int(held_out.sum()),
        "held_out_patients": len(np.unique(images.patients[held_out])),
    }


def _figures(
    names: Sequence[str], scores: NDArray[np.float32], images: Images, rows: NDArray[np.bool_]
) -> Mapping[str, FindingFigures]:
    return findings_figures(
        names, scores[rows], images.targets[rows], images.known[rows], images.patients[rows], draws=DRAWS
    )


def _neighbours(
    ways: Mapping[str, NDArray[np.float32]],
    images: Images,
    silos: NDArray[np.str_],
    names: Sequence[str],
    k: int,
    *,
    other: bool,
) -> dict[str, Neighbourhood]:
    class_names, classes = classes_of(names, images.targets, images.known)
    queries = np.flatnonzero(images.held_out & classes.any(axis=1))
    if len(queries) > _MOST_QUERIES:
        queries = np.sort(np.random.default_rng(0).choice(queries, _MOST_QUERIES, replace=False))
    return {
        way: neighbourhood(class_names, vectors, classes, images.patients, silos, queries, k=k, other_silos_only=other)
        for way, vectors in ways.items()
    }


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
