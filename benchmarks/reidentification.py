"""Can another hospital find a patient by an X-ray? The attack, with the guard off and on, and what the guard costs.

Patients with several studies are divided over three silos, study by study. An attacker holds one image of a patient and
asks the other silos for the most similar case: the attack succeeds where that case is the patient's. *Turned*: the
attacker mixes another image's embedding into the query, so that no similarity is high any more. Chance is what drawing
one of the answering silos' cases would give; the target is that with the guard on, the attack's 95 % confidence interval
(Wilson) does not lie above chance.

*Told apart*: of the patients who are kept back, how many does anything give away that a silo says? The same questions are
asked with and without the patient in the gallery: the image and a turned one, narrowed by what cards say (here drawn at
random), for one case and for ten, until the questions about one image are spent and beyond. Every reply must be the same.

The encoder is untrained (DenseNet121, start weights of seed 0): what it sees of patients, every encoder sees. With
`--trained` it is one that three hospitals trained by `jobs/train`, with looks removed: what a silo's index holds. Phantoms
without `--data`; with a ZIP (images and labels.csv with patients), real radiographs. The answers are the product's
(`search.answer` over FAISS files), without signatures and network.
"""

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Figure, Target, main
from benchmarks.indexed import division, trained, unit, untrained
from silo_app.cases import CaseId, EncoderVersion, Finding, PatientKey, Sex, Split, View
from silo_app.config import ReleaseSettings
from silo_app.encoder.embed import embed
from silo_app.encoder.model import build
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.transforms import squared
from silo_app.imaging.radiograph import read_radiograph
from silo_app.imaging.samples.phantom import make_phantoms
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.index.likeness import estimate, sense_of
from silo_app.policy.filters import Filters
from silo_app.policy.refusal import RefusalCode
from silo_app.search.answer import Found, SearchableCases, answer
from silo_app.search.merge import merge
from silo_app.search.messages import Refusal, ResultHit, SearchRequest, SiloAnswer, unit_embedding

TARGETS = (
    Target("linked_with_guard_above_chance", 0.0),
    Target("turned_with_guard_above_chance", 0.0),
    Target("told_apart", 0.0),
    Target("pooled_patients", 20, at_least=True),
)
SILOS = ("north", "south", "west")
ENCODER = EncoderVersion("ab" * 16)
TURNED = 0.4
"""The share of another image's embedding in a turned query."""
K = 10
PASSES, QUICK_PASSES = 8.0, 1.0
"""Of `--trained`, over all images."""

NARROWED = (Filters(), Filters(sexes=(Sex.FEMALE,)), Filters(sexes=(Sex.MALE,)), Filters(age_bands=("40-49",)))
OFTEN = 8
"""So many questions about one image are answered."""
TWICE = 500
"""So many images are asked about with and without their patients, at most, drawn at random."""

GUARD_OFF = ReleaseSettings(same_patient="show", min_cases=1)
GUARD_ON = ReleaseSettings()


@dataclass(frozen=True)
class Silo:
    """One silo's open gallery."""

    name: str
    gallery: SearchableCases
    views: Mapping[CaseId, View]
    rows: NDArray[np.int64]
    """Its images among all, int64 (n,)."""
    cards: Sequence[View]
    """By the gallery's rows."""

    def holding(self, filters: Filters, away: PatientKey | None = None) -> NDArray[np.int64]:
        """Return the gallery's rows that filters hold for, but a patient's who is away, int64 (n,)."""
        if filters not in self._holding:
            self._holding[filters] = np.array([filters.holds(card) for card in self.cards], bool)
        return np.flatnonzero(self._holding[filters] & (self._patients != (away or ""))).astype(np.int64)

    @cached_property
    def _patients(self) -> NDArray[np.str_]:
        return np.array([card.patient for card in self.cards])

    @cached_property
    def _holding(self) -> dict[Filters, NDArray[np.bool_]]:
        return {}


@dataclass
class Tally:
    """What one way of asking gave."""

    linked: list[bool] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    strangers: list[float] = field(default_factory=list)
    """Precision among the first hits of other patients."""


def phantoms(folder: Path, spec: EncoderSpec, studies: int) -> tuple[list[View], NDArray[np.uint8]]:
    """Return the first view of every phantom study, and pixels uint8 (n, S, S)."""
    (archive,) = make_phantoms(folder, hospitals=1, studies=studies)
    files = sorted(archive.dicom.glob("P*/S*/IM01.dcm"))
    views = [_view(number, file.parent.parent.name, {}) for number, file in enumerate(files)]
    return views, np.stack([squared(read_radiograph(file).pixels, spec.input_size) for file in files])


def _view(number: int, patient: str, findings: Mapping[Finding, bool]) -> View:
    case = CaseId(f"{number:032x}")
    random = np.random.default_rng(number)
    sex, age = (Sex.FEMALE, Sex.MALE)[random.integers(2)], int(random.choice((44, 64)))
    return View(digest="", case=case, patient=PatientKey(patient), split=Split.TRAIN, findings=findings, sex=sex, age=age)


def divided(views: Sequence[View], vectors: NDArray[np.float32], folder: Path) -> list[Silo]:
    """Divide studies over the silos at random, and open each silo's gallery as an index process does."""
    places = division(len(views), len(SILOS))
    silos = []
    for number, name in enumerate(SILOS):
        rows = np.flatnonzero(places == number)
        own = [views[int(row)] for row in rows]
        file = folder / f"{name}.faiss"
        write_faiss(file, vectors[rows])
        cases = np.frombuffer(bytes.fromhex("".join(view.case for view in own)), np.uint8).reshape(-1, 16)
        index = FaissGallery.open(file, cases)
        likeness = estimate(vectors[rows], [view.case for view in own], [view.patient for view in own])
        gallery = SearchableCases("000001", ENCODER, index, sense_of(index, likeness))
        known = {view.case: view for view in own}
        silos.append(Silo(name, gallery, known, rows, [known[index.case_of(row)] for row in range(len(index.row_cases))]))
    return silos


def question(vector: NDArray[np.float32], asker: str, k: int = K, filters: Filters = NARROWED[0]) -> SearchRequest:
    """Return what a silo is asked."""
    return SearchRequest(
        issued_at_ms=0,
        budget_ms=1000,
        encoder_version=ENCODER,
        vector=unit_embedding(vector),
        k=k,
        purpose="care",
        asker=asker,
        filters=filters,
    )


def asked(silo: Silo, vector: NDArray[np.float32], asker: str, settings: ReleaseSettings) -> SiloAnswer | None:
    """Return a silo's answer, None if it refuses."""
    reply = answer(question(vector, asker), silo.gallery, silo=silo.name, view_of=silo.views.get, settings=settings)
    return reply if isinstance(reply, SiloAnswer) else None


def attack(
    silos: Sequence[Silo],
    views: Sequence[View],
    vectors: NDArray[np.float32],
    settings: ReleaseSettings,
    *,
    turned: float = 0.0,
) -> Tally:
    """Ask with every image whose patient has a case in another silo."""
    random, tally = np.random.default_rng(1), Tally()
    known = {view.case: view for view in views}
    for own in silos:
        others = [silo for silo in silos if silo is not own]
        there = {view.patient for silo in others for view in silo.views.values()}
        for row in own.rows:
            if views[row].patient not in there:
                continue
            vector = (1 - turned) * vectors[row] + turned * vectors[random.choice(own.rows)]
            replies = (asked(silo, vector, own.name, settings) for silo in others)
            count(tally, views[row], merge((reply for reply in replies if reply), K), known)
    return tally


def told_apart(
    silos: Sequence[Silo], views: Sequence[View], vectors: NDArray[np.float32], settings: ReleaseSettings
) -> list[bool]:
    """Return of images, and silos that keep their patients back, whether any reply is another than without the patient."""
    random, told = np.random.default_rng(1), []
    asked = [(own, silo, row) for own, silo in itertools.permutations(silos, 2) for row in _there(own, silo, views)]
    for place in random.permutation(len(asked))[:TWICE]:
        own, silo, row = asked[place]
        turned = vectors[row] + 0.1 * vectors[random.choice(own.rows)]
        patient = views[row].patient
        for vector in (vectors[row], turned):
            each = [question(vector, own.name, k, filters) for k, filters in itertools.product((1, K), NARROWED)]
            requests = [*each, *each[:1] * (OFTEN - 2), *each]  # the second time after a budget is spent
            (first, kept), (second, without) = (replies(silo, requests, settings, away) for away in (None, patient))
            if kept == without + 1:  # the patient, and nobody else in that place
                told.append(first != second)
    return told


def _there(own: Silo, silo: Silo, views: Sequence[View]) -> Iterator[int]:
    """Yield the images of one silo whose patients have others in another."""
    patients = {view.patient for view in silo.views.values()}
    return (int(row) for row in own.rows if views[row].patient in patients)


def replies(
    silo: Silo, requests: Sequence[SearchRequest], settings: ReleaseSettings, away: PatientKey | None
) -> tuple[list[object], int]:
    """Return all that a silo that holds nothing of a patient says, and how many patients it keeps back from the first."""
    about: Counter[CaseId | None] = Counter()
    kept: list[int] = []

    def look(found: Found) -> RefusalCode | None:
        kept.append(found.kept_back)
        about[found.about] += 1
        return RefusalCode.REPEATED if about[found.about] > OFTEN else None

    def view_of(case: CaseId) -> View | None:
        view = silo.views.get(case)
        return view if view is not None and view.patient != away else None

    def said(request: SearchRequest) -> SiloAnswer | Refusal:
        return answer(
            request,
            silo.gallery,
            silo=silo.name,
            view_of=view_of,
            settings=settings,
            look=look,
            rows_where=lambda filters, _index: silo.holding(filters, away),
        )

    return [said(request).model_dump() for request in requests], kept[0]


def count(tally: Tally, query: View, hits: Sequence[ResultHit], known: Mapping[CaseId, View]) -> None:
    """Take one query's hits into the tally."""
    same = [known[hit.case_id].patient == query.patient for hit in hits]
    tally.linked.append(bool(same) and same[0])
    alike = [bool(_present(query) & _present(known[hit.case_id])) for hit in hits]
    if alike and query.findings:
        tally.precision.append(float(np.mean(alike)))
    if query.findings and not all(same):
        tally.strangers.append(float(np.mean([one for one, is_same in zip(alike, same, strict=True) if not is_same])))


def _present(view: View) -> frozenset[Finding]:
    present = frozenset(finding for finding, is_present in view.findings.items() if is_present)
    return present or frozenset({Finding.NO_FINDING})


def chance(silos: Sequence[Silo], views: Sequence[View]) -> float:
    """Return how often a case drawn from the other silos is of the query's patient, over all queries of the attack."""
    shares = []
    for own in silos:
        others = [view.patient for silo in silos if silo is not own for view in silo.views.values()]
        counts = {patient: others.count(patient) for patient in set(others)}
        shares += [counts[views[row].patient] / len(others) for row in own.rows if views[row].patient in counts]
    return float(np.mean(shares))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def figures_of(name: str, tally: Tally, guess: float) -> list[Figure]:
    """Return how often one attack succeeded, and how far its interval lies above chance."""
    linked, total = sum(tally.linked), len(tally.linked)
    low, high = wilson(linked, total)
    return [
        Figure(name, linked / total, f"of {total} queries"),
        Figure(f"{name}_low", low, "95 % interval"),
        Figure(f"{name}_high", high, "95 % interval"),
        Figure(f"{name}_above_chance", max(0.0, low - guess), "share"),
    ]


def held(arguments: argparse.Namespace, folder: Path) -> tuple[list[View], NDArray[np.float32]]:
    """Return every image as a study of its own, and its unit vector, float32 (n, D)."""
    if arguments.data is None:
        views, pixels = phantoms(folder / "phantoms", EncoderSpec(), 150 if arguments.quick else 600)
        return views, unit(embed(build(EncoderSpec(), 0), pixels)[0])
    if arguments.trained:
        passes = QUICK_PASSES if arguments.quick else PASSES
        found = trained(arguments.data, len(SILOS), limit=arguments.limit, passes=passes)
    else:
        found = untrained(arguments.data, limit=arguments.limit)
    return [_view(n, view.patient, view.findings) for n, view in enumerate(found.views)], found.vectors


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Run the attack in both forms, with the guard off and on."""
    with tempfile.TemporaryDirectory() as folder:
        views, vectors = held(arguments, Path(folder))
        silos = divided(views, vectors, Path(folder))
        guess = chance(silos, views)
        start = time.process_time()
        off = attack(silos, views, vectors, GUARD_OFF)
        middle = time.process_time()
        on = attack(silos, views, vectors, GUARD_ON)
        spent = (middle - start, time.process_time() - middle)
        apart = told_apart(silos, views, vectors, GUARD_ON)
        return [
            Figure("images", len(views), "images"),
            Figure("pooled_patients", len({views[row].patient for row in range(len(views))}), "patients"),
            Figure("chance", guess, "share"),
            *figures_of("linked_without_guard", off, guess),
            *figures_of("linked_with_guard", on, guess),
            *figures_of("turned_without_guard", attack(silos, views, vectors, GUARD_OFF, turned=TURNED), guess),
            *figures_of("turned_with_guard", attack(silos, views, vectors, GUARD_ON, turned=TURNED), guess),
            *([Figure("told_apart", float(np.mean(apart)), f"of {len(apart)} who are kept back")] if apart else []),
            *_costs(off, on),
            Figure("answer_without_guard_ms", 500 * spent[0] / len(off.linked), "CPU ms a silo"),
            Figure("answer_with_guard_ms", 500 * spent[1] / len(on.linked), "CPU ms a silo"),
        ]


def _costs(off: Tally, on: Tally) -> list[Figure]:
    """Return precision where there are findings; phantoms' are not looked up."""
    if not off.precision:
        return []
    return [
        Figure("precision_at_10_without_guard", float(np.mean(off.precision)), "share"),
        Figure("precision_at_10_without_guard_of_strangers", float(np.mean(off.strangers)), "share"),
        Figure("precision_at_10_with_guard", float(np.mean(on.precision)), "share"),
    ]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="ZIP", help="real radiographs with labels.csv")
    parser.add_argument("--limit", type=int, help="images of the ZIP")
    parser.add_argument("--trained", action="store_true", help="by an encoder of the default job; of a ZIP only")


if __name__ == "__main__":
    sys.exit(main("reidentification", measure, TARGETS, describe=str(__doc__).splitlines()[0], options=_options))
