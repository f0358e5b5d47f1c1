"""Hospitals in memory, from sets of images with a CSV: divided and split as the product does, without DICOM between."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, Finding, PatientKey, Split, View
from silo_app.encoder.dataset import Images
from silo_app.encoder.evaluate import SiloImages
from silo_app.encoder.labels import labels_of
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.transforms import squared
from silo_app.imaging.samples.image_file import decode
from silo_app.imaging.samples.image_plan import limited, place
from silo_app.imaging.samples.image_set import LARGEST_IMAGE, ImageSet, opened
from silo_app.imaging.samples.records import Listing, Record, read_records

__all__ = ["hospitals_of", "others_beside", "spec_of", "unlike_hospitals"]

HELD_OUT_SHARE = 0.2


def spec_of(data: Sequence[Path], **fields: int | str) -> EncoderSpec:
    """Return the encoder for the findings that the sets' labels speak of."""
    findings = {one for number, path in enumerate(data) for one in _listing(path, number).scope}
    return EncoderSpec.model_validate({"findings": sorted(findings), **fields})


def hospitals_of(
    data: Sequence[Path], spec: EncoderSpec, *, hospitals: int, alpha: float, seed: int, limit: int | None = None
) -> list[SiloImages]:
    """Divide the sets' patients among hospitals (Dirichlet draw over findings), and hold a fifth of each one's out."""
    listings = [limited(_listing(path, number), limit, seed) for number, path in enumerate(data)]
    places = place(listings, [hospitals], alpha, seed)
    return _filled(data, listings, places, spec, _held_out(places, seed))


def unlike_hospitals(
    data: Sequence[Path], spec: EncoderSpec, *, seed: int, limit: int, all_findings: bool = False
) -> list[SiloImages]:
    """Return two hospitals with halves of the first set's patients, and one with the second set; `limit` images each.

    They know the findings that both sets speak of; with `all_findings` each knows those of its own set.
    """
    first, second = (_listing(path, number) for number, path in enumerate(data))
    listings = [limited(first, 2 * limit, seed), limited(second, limit, seed)]
    patients = [sorted({(one.set, one.patient) for one in listing.records}) for listing in listings]
    order = np.random.default_rng([seed, 11]).permutation(len(patients[0]))
    places = {patients[0][i]: int(n % 2) for n, i in enumerate(order)} | dict.fromkeys(patients[1], 2)
    return _filled(data, listings, places, spec, _held_out(places, seed), all_findings=all_findings)


def others_beside(
    data: Sequence[Path],
    spec: EncoderSpec,
    hospitals: Sequence[SiloImages],
    *,
    seed: int,
    most: int,
    all_findings: bool = False,
) -> list[SiloImages]:
    """Return, for each of `unlike_hospitals` of whose kind there are more patients, `most` images at most of theirs.

    They know the findings that the hospitals do, with `all_findings` as there. No hospital has these patients. What its
    own few held-out patients say of an encoder, they say more surely.
    """
    taken = {str(patient) for one in hospitals for patient in one.images.patients}
    listings, places = [_listing(path, number) for number, path in enumerate(data)], dict[tuple[int, str], int]()
    for number, listing in enumerate(listings):
        rest = [record for record in listing.records if _patient(record) not in taken]
        names = sorted({record.patient for record in rest})
        order = np.random.default_rng([seed, 13, number]).permutation(len(names))
        rank = {names[i]: n for n, i in enumerate(order)}
        rest.sort(key=lambda record: rank[record.patient])
        kinds = (0, 1) if number == 0 else (2,)
        parts = [[record for record in rest if kinds[rank[record.patient] % len(kinds)] == kind][:most] for kind in kinds]
        places |= {(record.set, record.patient): kind for kind, part in zip(kinds, parts, strict=True) for record in part}
        listings[number] = replace(listing, records=tuple(record for part in parts for record in part))
    return _filled(data, listings, places, spec, set(places), all_findings=all_findings)


def _filled(
    data: Sequence[Path],
    listings: Sequence[Listing],
    places: Mapping[tuple[int, str], int],
    spec: EncoderSpec,
    held_out: set[tuple[int, str]],
    *,
    all_findings: bool = False,
) -> list[SiloImages]:
    common = set.intersection(*(set(listing.scope) for listing in listings))
    views: dict[int, list[View]] = defaultdict(list)
    pixels: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
    for path, listing in zip(data, listings, strict=True):
        scope = set(listing.scope) if all_findings else common
        with opened(path) as content:
            for record in listing.records:
                key = (record.set, record.patient)
                views[places[key]].append(_view(record, scope, held_out=key in held_out))
                image = decode(content.read(record.file, LARGEST_IMAGE))
                scaled = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
                pixels[places[key]].append(squared(scaled, spec.input_size))
    return [
        SiloImages(f"hospital-{n}", Images(views[n], np.stack(pixels[n]), *labels_of(views[n], spec))) for n in sorted(views)
    ]


def _listing(path: Path, number: int) -> Listing:
    one = ImageSet(path=path)
    with opened(path) as content:
        return read_records(one, number, content)


def _held_out(places: Mapping[tuple[int, str], int], seed: int) -> set[tuple[int, str]]:
    patients = sorted(places)
    order = np.random.default_rng([seed, 7]).permutation(len(patients))
    return {patients[i] for i in order[: round(HELD_OUT_SHARE * len(patients))]}


def _view(record: Record, scope: set[Finding], *, held_out: bool) -> View:
    known = record.findings is not None
    return View(
        digest="",
        case=CaseId(""),
        patient=PatientKey(_patient(record)),
        split=Split.HELD_OUT if held_out else Split.TRAIN,
        findings={one: one in (record.findings or ()) for one in scope} if known else {},
    )


def _patient(record: Record) -> str:
    return f"{record.set}-{record.patient}"
