"""From what the demo's commands returned to the facts of its report; nothing is added, and what is missing says why."""

import io
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from provisioning import report
from provisioning.federation import Federation
from provisioning.report import facts as f
from silo_app import config
from silo_app.cases import CaseId, Finding, Split
from silo_app.catalogue import Catalogue
from silo_app.imaging.cache import RadiographCache

__all__ = ["facts_of"]

_PICTURES = 6
_SIDE = 160
_LIBRARIES = ("siloscope", "nvflare", "torch", "monai", "tenseal", "pydicom", "faiss-cpu")
_SHOWN_BECAUSE = (
    "The images of the hits are shown because this demo owns all hospitals; what really crosses between hospitals is the "
    "line of text under each."
)

Raw = Mapping[str, Any]


def facts_of(raw: Raw, federation: Federation) -> report.DemoFacts:
    """Return the report's facts; `raw` is what `provisioning.demo` collected."""
    return f.DemoFacts(
        run=_run(raw),
        silos=tuple(_silo(one, raw, federation) for one in raw["silos"]),
        learning=_learning(raw),
        traffic=_traffic(raw, federation),
        searches=tuple(_search(one, federation) for one in raw["searches"]),
        retrieval=_retrieval(raw["evaluation"]),
        encoder=_encoder(raw["evaluation"]),
        checks=_checks(raw),
    )


def _run(raw: Raw) -> f.Run:
    synthetic = {archive["synthetic"] for archive in raw["data"]}
    kind = f.DataKind.MIXED if len(synthetic) > 1 else f.DataKind.SYNTHETIC if True in synthetic else f.DataKind.REAL
    files = ", ".join(raw["settings"]["data"])
    return f.Run(
        started=raw["started"],
        command=raw["command"],
        machine=f.Machine(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            system=f"{platform.system()} {platform.machine()}",
            versions={"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        ),
        data=kind,
        source=f"Real radiographs of {files}, split over hospitals by patient."
        if files
        else f"Phantoms: computed radiographs of a model thorax, seed {raw['settings']['seed']}. No patient is in them.",
        seconds=raw["seconds"],
    )


def _silo(one: Raw, raw: Raw, federation: Federation) -> f.Silo:
    held = one["catalogue"]
    names: dict[str, str] = {archive["name"]: archive["display_name"] for archive in raw["data"]}
    counts = [f.FindingCount(finding=name, **count) for name, count in held["findings"].items()]
    return f.Silo(
        name=one["name"],
        display_name=names[one["name"]],
        patients=held["patients"],
        cases=held["cases"],
        views=held["views"],
        splits=held["splits"],
        findings=tuple(count for count in counts if count.finding != str(Finding.NO_FINDING)),
        refused=held["refused"],
        devices=held["devices"],
        positions=held["positions"],
        sexes=held["sexes"],
        pictures=_pictures(federation, one["name"]),
    )


def _pictures(federation: Federation, silo: str) -> tuple[f.Picture, ...]:
    home = config.load(federation.kit(silo))
    with Catalogue.open(home.catalogue) as catalogue:
        views = catalogue.views(Split.HELD_OUT)[:_PICTURES]
    cache = RadiographCache(home.cache)
    return tuple(_picture(cache.read(view.digest), f"a chest X-ray of {silo}") for view in views)


def _picture(radiograph: Any, alt: str) -> f.Picture:
    image = Image.fromarray(np.rint(radiograph * 255).astype(np.uint8))
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f.Picture(file.getvalue(), alt)


def _learning(raw: Raw) -> f.Learning | f.Missing:
    curve = raw["training"]["scores"]
    if not curve:
        return f.Missing("the silos left no scores of the rounds")
    common = _findings_everywhere(raw)
    if not common:
        return f.Missing("no finding has present and absent held-out cases in every round")
    evaluation = raw["evaluation"]
    floors = [evaluation["statistics_auc"][name] for name in common if evaluation["statistics_auc"].get(name) is not None]
    return f.Learning(
        measure=common[0] if len(common) == 1 else f"mean of {len(common)} findings",
        views=curve[-1]["views"],
        patients=sum(one["held_out_patients"] for one in evaluation["silos"].values()),
        federated=_points(curve, common),
        alone={silo: _points(trained["curve"], common) for silo, trained in raw["local"].items()},
        floors={"image statistics": sum(floors) / len(floors)} if floors else {},
    )


def _findings_everywhere(raw: Raw) -> list[str]:
    points = [*raw["training"]["scores"], *(point for one in raw["local"].values() for point in one["curve"])]
    return sorted(set.intersection(*(set(point["auc"]) for point in points))) if points else []


def _points(curve: Sequence[Raw], names: Sequence[str]) -> tuple[f.CurvePoint, ...]:
    return tuple(f.CurvePoint(point["round"], sum(point["auc"][name] for name in names) / len(names)) for point in curve)


def _traffic(raw: Raw, federation: Federation) -> f.Traffic:
    record = raw["training"]["record"]
    sizes = [
        file.stat().st_size
        for file in (federation.kit(federation.silos[0]) / "silo" / "models").glob("*/encoder.safetensors")
    ]
    return f.Traffic(
        encryption=record["plan"]["encryption"],
        plain_bytes=sizes[0] if sizes else None,
        rounds=tuple(_round(one, federation.silos) for one in record["rounds"]),
    )


def _round(one: Raw, silos: Sequence[str]) -> f.Round:
    def share(silo: str) -> f.SiloRound:
        if silo not in one["accepted"]:
            refused = one["refused"].get(silo, {}).get("public")
            return f.SiloRound(state=refused or one["missing"].get(silo, "not asked"))
        told = one["reports"].get(silo, {})
        return f.SiloRound(
            upload_bytes=one["upload_bytes"].get(silo),
            train_seconds=told.get("train_seconds"),
            encrypt_seconds=told.get("encrypt_seconds"),
            open_seconds=told.get("open_seconds"),
        )

    return f.Round(
        number=one["round"],
        seconds=one["seconds"],
        download_bytes=one["download_bytes"],
        silos={silo: share(silo) for silo in silos},
    )


def _search(one: Raw, federation: Federation) -> f.Search:
    result = one["result"]
    query = config.load(federation.kit(one["asker"]))
    with Catalogue.open(query.catalogue) as catalogue:
        view = catalogue.card(CaseId(one["case"])) if one["case"] else None
    picture: f.Picture | f.Missing = f.Missing("the file is not in the asking hospital's catalogue")
    if view is not None:
        picture = _picture(RadiographCache(query.cache).read(view.digest), "the X-ray that is asked about")
    return f.Search(
        title=one["title"],
        query=f.Query(
            silo=one["asker"],
            picture=picture,
            findings=_present(view.findings) if view is not None and view.findings else None,
            note=_SHOWN_BECAUSE,
        ),
        hits=tuple(_hit(rank, hit, federation) for rank, hit in enumerate(result["hits"], start=1)),
        silos=tuple(_state(state) for state in result["silos"]),
        milliseconds=result["took_us"] / 1000,
        encoder_version=result["encoder_version"],
    )


def _hit(rank: int, hit: Raw, federation: Federation) -> f.Hit:
    card = hit["card"]
    home = config.load(federation.kit(hit["silo"]))
    with Catalogue.open(home.catalogue) as catalogue:
        view = catalogue.card(CaseId(hit["case"]))
    picture: f.Picture | f.Missing = f.Missing("the case has left its hospital's catalogue")
    if view is not None:
        picture = _picture(RadiographCache(home.cache).read(view.digest), f"hit {rank} of {hit['silo']}")
    return f.Hit(
        rank=rank,
        similarity=hit["score"],
        silo=hit["silo"],
        case=hit["case"],
        findings=_present(card["findings"]) if card.get("findings") else None,
        view=card.get("position"),
        sex=card.get("sex"),
        age_band=card.get("age_band") or None,
        picture=picture,
    )


def _present(findings: Mapping[Any, bool]) -> tuple[str, ...]:
    none = str(Finding.NO_FINDING)
    return tuple(str(name) for name, present in findings.items() if present and str(name) != none)


def _state(state: Raw) -> f.SiloState:
    return f.SiloState(
        silo=state["silo"],
        state=state["state"],
        milliseconds=state["took_ms"],
        indexed=state["indexed"] or None,
        released=state["released"] if state["state"] == "answered" else None,
        detail=state["public"] or state["code"],
    )


def _retrieval(evaluation: Raw) -> f.Retrieval:
    asked = evaluation["federated_search"]
    ways = evaluation["retrieval"]
    floors = {name: one for name, one in ways.items() if name != "encoder"}
    return f.Retrieval(
        k=asked["k"],
        queries=asked["queries"],
        precision=(
            f.Bar("federated search", asked["precision"]),
            f.Bar("one pooled index", ways["encoder"]["precision"]),
            *(f.Bar(name, one["precision"], is_floor=True) for name, one in floors.items()),
        ),
        mean_average_precision=(
            f.Bar("one pooled index", ways["encoder"]["mean_average_precision"]),
            *(f.Bar(name, one["mean_average_precision"], is_floor=True) for name, one in floors.items()),
        ),
        note=f"The federated search was asked with {asked['queries']} held-out views through the running federation, the "
        f"others are computed on {ways['encoder']['queries']} held-out views with all images in one place.",
    )


def _encoder(evaluation: Raw) -> f.EncoderCard:
    card = evaluation["card"]
    spec = card["spec"]
    return f.EncoderCard(
        version=evaluation["encoder_version"],
        kind=card["kind"],
        job=card.get("job", ""),
        rounds=card["rounds"],
        encryption=card.get("encryption", "none"),
        silos=card["silos"],
        architecture={
            "backbone": spec["backbone"],
            "input": f"{spec['input_size']} x {spec['input_size']}",
            "embedding": str(spec["embedding_dim"]),
        },
        intended_use=card["intended_use"],
    )


def _checks(raw: Raw) -> tuple[f.Check, ...]:
    server = raw["server"]
    versions = set(raw["training"]["record"]["finish"]["encoder_versions"].values())
    states = [state for one in raw["searches"][:1] for state in one["result"]["silos"]]
    answered = sum(state["state"] == "answered" for state in states)
    return (
        _check(
            "The server keeps no plaintext weights, no key, no embedding and no identifier.",
            passed=not server["leaks"],
            detail=f"{server['files']} files were searched for {server['needles']} secrets of the hospitals. "
            + "; ".join(server["leaks"][:5]),
        ),
        _check(
            "All hospitals ended with the same encoder, to the last bit.",
            passed=len(versions) == 1,
            detail=", ".join(sorted(versions)),
        ),
        _check("Every hospital answered the query.", passed=answered == len(states), detail=f"{answered} of {len(states)}"),
        _check(
            "With one hospital down, the others answer, and the result says who did not.",
            passed=_one_was_missed(raw["searches"]),
            detail="; ".join(f"{s['silo']}: {s['state']}" for s in raw["searches"][-1]["result"]["silos"]),
        ),
    )


def _one_was_missed(searches: Sequence[Raw]) -> bool:
    states = [state["state"] for state in searches[-1]["result"]["silos"]]
    return len(searches) > 1 and states.count("answered") == len(states) - 1


def _check(claim: str, *, passed: bool, detail: str) -> f.Check:
    return f.Check(claim, f.CheckOutcome.PASSED if passed else f.CheckOutcome.FAILED, detail.strip())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or sys.platform


def _version(name: str) -> str:
    try:
        return version(name)
    except Exception:  # noqa: BLE001  (not installed as a distribution: a checkout on the path)
        return "not installed"
