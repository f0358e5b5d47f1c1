"""What the report takes from the machine itself and, in a demo only, from the hospitals' own files."""

import importlib.metadata
import io
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from provisioning.report.facts import Machine, Picture
from provisioning.report.gather import Pictures
from silo_app.cases import CaseId, View
from silo_app.config import SiloHome

__all__ = ["machine", "pictures_of", "plain_update_bytes"]

_LIBRARIES = ("siloscope", "nvflare", "torch", "monai", "tenseal", "faiss-cpu")
_SIDE = 128
_OF_A_SILO = 4


def machine() -> Machine:
    """Return what this machine is."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        versions=versions,
    )


def plain_update_bytes(home: SiloHome, version: str) -> int | None:
    """Return the size of an update as plain float32: that of all weights of the silo's encoder `version`."""
    from silo_app.encoder.vectors import read_vector
    from silo_app.errors import CheckpointInvalid

    try:
        return int(read_vector(home.models / version / "encoder.safetensors").nbytes)
    except CheckpointInvalid:
        return None


def pictures_of(search: Mapping[str, Any] | None, homes: Mapping[str, SiloHome]) -> Pictures:
    """Return pictures from the silos' own caches: a few of each, one of each hit, and the query's.

    Only where all silos lie on one machine, and whoever reads the report may see their images. No answer carried them.
    """
    silos = {name: _some(home) for name, home in homes.items()}
    if not search:
        return Pictures(silos=silos)
    hits = [(hit["silo"], hit["case"]) for hit in search["result"]["hits"]]
    cases = {(silo, case): _of_case(homes[silo], CaseId(case)) for silo, case in hits if silo in homes}
    query, findings = _of_file(homes.get(search["asker"]), Path(search["query"]))
    known = {key: picture for key, picture in cases.items() if picture is not None}
    return Pictures(silos=silos, cases=known, query=query, query_findings=findings, why_not="the picture is gone")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _some(home: SiloHome) -> tuple[Picture, ...]:
    """Return images with different findings, as many as there is place for."""
    from silo_app.catalogue import Catalogue

    with Catalogue.open(home.catalogue) as catalogue:
        views = catalogue.views()
    by_findings = {_present(view): view for view in reversed(views)}
    chosen = {view.digest: view for view in [*by_findings.values(), *views]}
    shown = [_of_views(home, [view]) for view in list(chosen.values())[:_OF_A_SILO]]
    return tuple(picture for picture in shown if picture is not None)


def _of_case(home: SiloHome, case: CaseId) -> Picture | None:
    from silo_app.catalogue import Catalogue

    with Catalogue.open(home.catalogue) as catalogue:
        return _of_views(home, catalogue.views_of(case))


def _of_file(home: SiloHome | None, file: Path) -> tuple[Picture | None, tuple[str, ...] | None]:
    """Return the picture and the findings of a file that the silo has ingested; None of one that it has not."""
    from silo_app.catalogue import Catalogue, SiloKey

    if home is None or not file.is_file():
        return None, None
    digest = SiloKey.load(home.key).contents.name(file.read_bytes())
    with Catalogue.open(home.catalogue) as catalogue:
        case = catalogue.case_of_digest(digest)
        views = [view for view in catalogue.views_of(case) if view.digest == digest] if case else []
    return _of_views(home, views), _present(views[0]) if views else None


def _of_views(home: SiloHome, views: Sequence[View]) -> Picture | None:
    """Return the first view as a small PNG, or None if there is none in the cache."""
    from PIL import Image

    from silo_app.errors import NotReady
    from silo_app.imaging.cache import RadiographCache

    if not views:
        return None
    try:
        pixels = RadiographCache(home.cache).read(views[0].digest)  # (H, W) in [0, 1]
    except NotReady:
        return None
    image = Image.fromarray((pixels * 255).round().astype("uint8"))
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(file.getvalue(), _described(views[0]))


def _described(view: View) -> str:
    present = _present(view)
    what = "findings not known" if present is None else ", ".join(present) or "no finding"
    return f"chest X-ray, {what}"


def _present(view: View) -> tuple[str, ...] | None:
    """Return the findings that are present; () if none of the known ones is, None if nothing is known."""
    return tuple(sorted(str(name) for name, present in view.findings.items() if present)) if view.findings else None
