"""Turn what the demo's commands returned into the report's facts; what a command did not return is missing, with why.

Pure: the pictures and the size of the plain update come from outside (`provisioning.report.local`), because they need the
hospitals' own files.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioning.report.checks import checks_of
from provisioning.report.facts import (
    Bar,
    CurvePoint,
    DataKind,
    DemoFacts,
    EncoderCard,
    FindingCount,
    Hit,
    Learning,
    Machine,
    Missing,
    Picture,
    Query,
    Retrieval,
    Round,
    Run,
    Search,
    Silo,
    SiloRound,
    SiloState,
    Traffic,
)

__all__ = ["Pictures", "facts_of"]

Raw = Mapping[str, Any]
_PICTURES_NOTE = "The pictures come from the hospitals' own files on this machine; no answer carried an image."
_NOT_REACHED = "the demo ended before this step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What the page may show of images; whatever is not here is missing, with `why_not`."""

    silos: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)
    cases: Mapping[tuple[str, str], Picture] = field(default_factory=dict)
    """By silo and case id."""
    query: Picture | None = None
    query_findings: tuple[str, ...] | None = None
    why_not: str = "real images are not put into a report"


def facts_of(raw: Raw, *, command: str, machine: Machine, pictures: Pictures, plain_bytes: int | None) -> DemoFacts:
    """Return the report's facts. `raw` has what each step of `provisioning.demo` returned, by step; steps may be absent."""
    learning = _of(raw, ("training", "local"), lambda: _learning(raw))
    retrieval = _of(raw, ("evaluation",), lambda: _retrieval(raw["evaluation"]))
    return DemoFacts(
        run=_run(raw, command, machine),
        silos=tuple(_silo(one, raw, pictures) for one in raw.get("silos", ())),
        learning=learning,
        traffic=_of(raw, ("training",), lambda: _traffic(raw["training"], plain_bytes)),
        searches=_of(raw, ("search",), lambda: _searches(raw, pictures)),
        retrieval=retrieval,
        encoder=_of(raw, ("evaluation",), lambda: _encoder(raw["evaluation"])),
        checks=checks_of(raw, learning, retrieval),
    )


def _of(raw: Raw, steps: Sequence[str], make: Callable[[], Any]) -> Any:
    absent = [step for step in steps if not raw.get(step)]
    return Missing(_NOT_REACHED) if absent else make()


def _run(raw: Raw, command: str, machine: Machine) -> Run:
    synthetic = {bool(archive["synthetic"]) for archive in raw.get("data", ())}
    kind = DataKind.SYNTHETIC if synthetic == {True} else DataKind.MIXED if len(synthetic) > 1 else DataKind.REAL
    settings = raw.get("settings", {})
    given = ", ".join(settings.get("data", ()))
    if kind is DataKind.SYNTHETIC:
        source = f"The images are phantoms of seed {settings.get('seed')}, computed from physics and marked as synthetic."
    else:
        source = (
            f"The images come from {given}, divided into hospitals by patient (Dirichlet alpha {settings.get('alpha')})."
        )
    return Run(
        started=raw["started"], command=command, machine=machine, data=kind, source=source, seconds=raw.get("seconds", {})
    )


def _silo(one: Raw, raw: Raw, pictures: Pictures) -> Silo:
    catalogue = one["catalogue"]
    names: dict[str, str] = {archive["name"]: archive["display_name"] for archive in raw.get("data", ())}
    return Silo(
        name=one["name"],
        display_name=names.get(one["name"]) or one["name"],
        patients=catalogue["patients"],
        cases=catalogue["cases"],
        views=catalogue["views"],
        unlabelled=catalogue["unlabelled"],
        splits=catalogue["splits"],
        findings=tuple(FindingCount(finding=name, **count) for name, count in catalogue["findings"].items()),
        refused=catalogue["refused"],
        devices=catalogue["devices"],
        positions=catalogue["positions"],
        sexes=catalogue["sexes"],
        pictures=pictures.silos.get(one["name"], Missing(pictures.why_not)),
    )


def _learning(raw: Raw) -> Learning | Missing:
    scores = raw["training"]["scores"]
    if not scores:
        return Missing("the hospitals left no held-out scores")
    findings = sorted(scores[-1]["auc"])
    if not findings:
        return Missing("no finding is both present and absent among the held-out X-rays")
    views = scores[-1]["views"]
    statistics = (raw.get("evaluation") or {}).get("statistics_auc", {})
    floor = _mean(statistics, findings)
    return Learning(
        measure=findings[0] if len(findings) == 1 else f"mean of {len(findings)} findings",
        views=views,
        patients=_held_out_patients(raw),
        federated=_points(scores, findings),
        alone={silo: _alone(local, findings, views) for silo, local in raw["local"].items()},
        floors={"image statistics": floor} if floor is not None else {},
    )


def _alone(local: Raw, findings: Sequence[str], views: int) -> tuple[CurvePoint, ...] | Missing:
    curve = local.get("curve") or ()
    if not curve:
        return Missing("its training was not measured by round")
    others = {point["views"] for point in curve} - {views}
    if others:
        return Missing(f"it was measured on {others.pop()} other views")
    return _points(curve, findings)


def _points(curve: Sequence[Raw], findings: Sequence[str]) -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(point["round"], _mean(point["auc"], findings)) for point in curve)


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    known = [values[name] for name in names if values.get(name) is not None]
    return sum(known) / len(known) if known and len(known) == len(names) else None


def _held_out_patients(raw: Raw) -> int | None:
    silos = (raw.get("evaluation") or {}).get("silos", {})
    return sum(silo["held_out_patients"] for silo in silos.values()) if silos else None


def _traffic(training: Raw, plain_bytes: int | None) -> Traffic:
    record, own = training["record"], training.get("own", {})
    return Traffic(
        encryption=record["plan"]["encryption"],
        plain_bytes=plain_bytes,
        rounds=tuple(
            _round(each, {silo: numbers.get(each["round"], {}) for silo, numbers in own.items()})
            for each in record["rounds"]
        ),
    )


def _round(each: Raw, own: Mapping[str, Raw]) -> Round:
    """Return a round; how long a silo trained only its own record says (`own`, by silo)."""
    silos = {silo: _share(each, silo, own.get(silo, {})) for silo in each["accepted"]}
    silos |= {
        silo: SiloRound(state=f"{why['code']}: {why['public']}")
        for silo, why in each["quarantined"].items()
        if silo not in silos
    }
    return Round(
        number=each["round"],
        seconds=each["seconds"],
        download_bytes=each.get("download_bytes"),
        silos=dict(sorted(silos.items())),
    )


def _share(each: Raw, silo: str, report: Raw) -> SiloRound:
    return SiloRound(
        upload_bytes=each.get("upload_bytes", {}).get(silo),
        train_seconds=report.get("train_seconds"),
        encrypt_seconds=report.get("encrypt_seconds"),
        open_seconds=report.get("open_seconds"),
    )


def _searches(raw: Raw, pictures: Pictures) -> tuple[Search, ...]:
    """Return the query with all hospitals up and, if it was asked, the same with one of them killed."""
    return tuple(_search(raw[name], pictures) for name in ("search", "search_without") if raw.get(name))


def _search(search: Raw, pictures: Pictures) -> Search:
    result = search["result"]
    return Search(
        title=search.get("title", "The nearest cases of all hospitals"),
        query=Query(
            silo=search["asker"],
            picture=pictures.query or Missing(pictures.why_not),
            findings=pictures.query_findings,
            note=_PICTURES_NOTE if pictures.cases else "",
        ),
        hits=_hits(result["hits"], pictures),
        elsewhere=_hits(result.get("elsewhere", ()), pictures),
        silos=tuple(_state(silo) for silo in result["silos"]),
        milliseconds=result["took_us"] / 1000,
        encoder_version=result["encoder_version"],
    )


def _hits(hits: Iterable[Raw], pictures: Pictures) -> tuple[Hit, ...]:
    return tuple(_hit(rank, hit, pictures) for rank, hit in enumerate(hits, start=1))


def _hit(rank: int, hit: Raw, pictures: Pictures) -> Hit:
    card = hit["card"]
    known = card.get("findings") or None
    return Hit(
        rank=rank,
        similarity=hit["score"],
        silo=hit["silo"],
        case=hit["case"],
        findings=None if known is None else tuple(name for name, present in known.items() if present),
        view=card.get("position"),
        sex=card.get("sex"),
        age_band=card.get("age_band"),
        picture=pictures.cases.get((hit["silo"], hit["case"]), Missing(pictures.why_not)),
    )


def _state(silo: Raw) -> SiloState:
    answered = silo["state"] == "answered"
    return SiloState(
        silo=silo["silo"],
        state=silo["state"],
        milliseconds=silo.get("took_ms") if answered or silo["state"] == "late" else None,
        indexed=silo.get("indexed") if answered else None,
        released=silo.get("released") if answered else None,
        detail="" if answered else silo.get("public") or silo.get("code") or "",
    )


def _retrieval(evaluation: Raw) -> Retrieval:
    ways, federated = evaluation["retrieval"], evaluation.get("federated_search")
    own = ways["encoder"]
    measured = [Bar("encoder, one pooled exact index", own["precision"])]
    if federated:
        measured.insert(0, Bar("federated search", federated["precision"]))
    floors = {way: one for way, one in ways.items() if way != "encoder"}
    return Retrieval(
        k=evaluation["k"],
        queries=federated["queries"] if federated else own["queries"],
        precision=(*measured, *(Bar(way, one["precision"], is_floor=True) for way, one in floors.items())),
        mean_average_precision=(
            Bar("encoder", own["mean_average_precision"]),
            *(Bar(way, one["mean_average_precision"], is_floor=True) for way, one in floors.items()),
        ),
        note=_own_silo_note(own),
    )


def _own_silo_note(own: Raw) -> str:
    if own.get("own_silo_share") is None:
        return ""
    return (
        f"{100 * own['own_silo_share']:.0f} % of the first hits come from the query's own hospital; "
        f"{100 * own['own_silo_chance']:.0f} % would by chance."
    )


def _encoder(evaluation: Raw) -> EncoderCard:
    card = evaluation["card"]
    spec = card.get("spec", {})
    sides = f"{spec.get('input_size')} x {spec.get('input_size')} pixels"
    return EncoderCard(
        version=evaluation["encoder_version"],
        kind=str(card.get("kind", "not known")),
        job=str(card.get("job", "not known")),
        rounds=int(card.get("rounds", 0)),
        encryption=str(card.get("encryption", "not known")),
        silos=tuple(map(str, card.get("silos", ()))),
        architecture={
            "backbone": str(spec.get("backbone")),
            "input": sides,
            "embedding": f"{spec.get('embedding_dim')} numbers",
            "findings": str(len(spec.get("findings", ()))),
        },
        intended_use=str(card.get("intended_use", "")),
    )
