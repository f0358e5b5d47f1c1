"""`consortium demo`: the whole path on this machine, from images to a search across hospitals, with real processes.

It runs the same commands that a person would type and shows them; nothing here does what the product does not.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from provisioning import audit_server, kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from provisioning.steps import Steps
from silo_app import config, durable
from silo_app.errors import JobFailed, ProcessFailed
from silo_app.flare.console import Console as Session
from silo_app.flare.indexing import RECORD_NAME as INDEX_RECORD
from silo_app.flare.training import RECORD_NAME as TRAINING_RECORD
from silo_app.imaging.samples.archive import Archive, read_archives

__all__ = ["DemoSettings", "run"]

ARCHIVES = "archives"
CONSORTIUM = "consortium"
FACTS = "figures.json"
REPORT = "report.html"
_RESEARCHER = "lead@siloscope.example"
_JOB_LIMIT_S = 3600.0
_POLL_S = 0.5
_FINISHED = "finished"
_FOR_PHANTOMS = {"encoder.backbone": "densenet-small", "training.batch_size": 8}
"""A few hundred phantoms: in a minute, many steps of a small network learn more than a few of DenseNet121."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs on; the defaults end within minutes on two cores."""

    out: Path
    data: tuple[Path, ...] = ()
    """Zips or folders of real images; none: phantoms."""
    hospitals: int = 3
    studies: int = 220
    """Phantom studies a hospital."""
    alpha: float = 0.5
    """How unlike the hospitals' label mixes are (Dirichlet); real images only."""
    seed: int = 1
    rounds: int = 6
    epochs: float = 2.0
    input_size: int = 64
    backbone: str | None = None
    """The network; None: the job's own, and a small one for phantoms."""
    threads: int = 2

    @property
    def training(self) -> list[str]:
        """The plan's settings as `--set` arguments."""
        values: dict[str, object] = {
            "rounds": self.rounds,
            "training.epochs": self.epochs,
            "encoder.input_size": self.input_size,
            "seed": self.seed,
        }
        if not self.data:
            values |= _FOR_PHANTOMS
        if self.backbone:
            values["encoder.backbone"] = self.backbone
        return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def run(settings: DemoSettings, screen: Console) -> Path:
    """Run everything, leave nothing running, and return the report's path."""
    steps = Steps(screen, settings.threads)
    settings.out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": _plain(settings),
        "command": "consortium demo " + " ".join(sys.argv[2:]),
    }
    archives = _make_archives(settings, steps)
    facts["data"] = [_told(archive) for archive in archives]
    federation = _provision(settings, archives, steps)
    facts["silos"] = _ingest(federation, steps)
    try:
        with steps.phase("Start the server and the hospitals over mutual TLS, and the search between them"):
            federation.up(lambda text: screen.print(f"  {text}"))
            broker = _submit(federation, steps, "search")
        with Session.open(federation.admin_kit) as session:
            facts["training"] = _train(session, federation, settings, steps)
            facts["index"], facts["local"] = _index_and_train_alone(session, federation, settings, steps)
            facts["training"]["record"] = _downloaded(session, facts["training"]["job"], TRAINING_RECORD)
            session.wait_running(broker, timeout_s=60)
        facts["search"] = _search(federation, settings, steps)
        facts["evaluation"] = _evaluate(federation, settings, steps)
        facts["search_without"] = _search_without(federation, steps, facts["search"])
        facts["server"] = _look_at_the_server(federation, steps)
    finally:
        with steps.phase("Stop every process that was started"):
            federation.down()
    facts["seconds"] = steps.seconds
    return _report(settings, federation, facts, screen)


def _make_archives(settings: DemoSettings, steps: Steps) -> list[Archive]:
    out = settings.out / ARCHIVES
    with steps.phase("Make hospital archives" + ("" if settings.data else " (synthetic phantoms)")):
        common = ["--hospitals", str(settings.hospitals), "--seed", str(settings.seed)]
        if settings.data:
            sets = [str(path) for path in settings.data]
            steps.silo("sample", "import", *sets, "--out", str(out), *common, "--alpha", str(settings.alpha))
        else:
            steps.silo("sample", "phantom", str(out), "--studies", str(settings.studies), *common)
    archives = read_archives(out)
    for archive in archives:
        steps.screen.print(f"  {archive.name}: {archive.patients} patients, {archive.images} images")
    return archives


def _told(archive: Archive) -> dict[str, Any]:
    counted = {"patients": archive.patients, "studies": archive.studies, "images": archive.images}
    return {"name": archive.name, "display_name": archive.display_name, "synthetic": archive.synthetic, **counted}


def _provision(settings: DemoSettings, archives: Sequence[Archive], steps: Steps) -> Federation:
    out = settings.out / CONSORTIUM
    with steps.phase("Provision the consortium: certificates, startup kits, site policy"):
        if out.exists():
            Federation.load(out).down()
            shutil.rmtree(out)
        silos = [archive.silo() for archive in archives]
        content = {
            "name": "siloscope-demo",
            "server": {"port": 0},
            "silos": silos,
            "researchers": [{"name": _RESEARCHER}],
        }
        kits.provision(Consortium.model_validate(content), out)
        federation = Federation.load(out)
        steps.screen.print(f"  {len(federation.silos)} hospitals, a server, an anchor, a researcher: {_shown(out)}")
    return federation


def _ingest(federation: Federation, steps: Steps) -> list[dict[str, Any]]:
    result = []
    with steps.phase("Ingest: each hospital reads its own DICOM into its catalogue"):
        homes = [["--silo", str(federation.kit(silo))] for silo in federation.silos]
        reports = steps.silos([["ingest", *home] for home in homes])
        catalogues = steps.silos([["catalogue", "show", *home] for home in homes], quiet=True)
        for silo, report, catalogue in zip(federation.silos, reports, catalogues, strict=True):
            refused = len(report.get("refused", []))
            steps.screen.print(
                f"    {silo}: {report['views']} images usable, {refused} refused, {report['unlabelled']} unlabelled"
            )
            result.append({"name": silo, "ingest": report, "catalogue": catalogue})
    return result


def _train(session: Session, federation: Federation, settings: DemoSettings, steps: Steps) -> dict[str, Any]:
    with steps.phase("Train one encoder together, with encrypted updates"):
        job = _submit(federation, steps, "train", *settings.training)
        file = federation.kit(federation.server) / job / TRAINING_RECORD
        with _bars(steps.screen) as bars:
            rounds = bars.add_task("rounds", total=settings.rounds)
            lines = {silo: bars.add_task(silo, total=settings.rounds) for silo in federation.silos}

            def tell() -> None:
                if told := len(_record(file).get("rounds", [])):  # the server packs the file away at the end
                    bars.update(rounds, completed=told)
                for silo, task in lines.items():
                    done = _held_out(federation, silo, job)
                    if done:
                        mean = _mean(done[-1]["auc"])
                        note = f"held-out AUC {mean:.3f}" if mean is not None else "no held-out case of both kinds"
                        bars.update(task, completed=done[-1]["round"], description=f"{silo}: {note}")

            record = _written(session, file, job, tell)
            bars.update(rounds, completed=len(record["rounds"]))
        for silo, version in record["finish"]["encoder_versions"].items():
            steps.screen.print(f"  {silo} keeps encoder {version}")
    own = {silo: _own(federation, silo, job) for silo in federation.silos}
    return {"job": job, "record": record, "scores": _scores_by_round(federation, job, settings.rounds), "own": own}


def _index_and_train_alone(
    session: Session, federation: Federation, settings: DemoSettings, steps: Steps
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the index job's record and, by hospital, what training alone came to: much of a job's time is waiting."""
    with steps.phase("Index: each hospital embeds its own cases; for comparison, each trains alone meanwhile"):
        job = _submit(federation, steps, "index")
        everybody = [part for silo in federation.silos for part in ("--also-evaluate", str(federation.kit(silo)))]
        commands = [
            ["model", "train-local", "--silo", str(federation.kit(silo)), *settings.training, "--curve", *everybody]
            for silo in federation.silos
        ]
        trained = steps.silos(commands)
        file = federation.kit(federation.server) / job / INDEX_RECORD
        return _written(session, file, job), dict(zip(federation.silos, trained, strict=True))


def _search(federation: Federation, settings: DemoSettings, steps: Steps) -> dict[str, Any]:
    with steps.phase("Search: one X-ray, all hospitals"):
        asker = federation.silos[0]
        query, case = _query(federation, settings, asker)
        result = _first_answer(federation, steps, asker, query)
        _show_result(result, steps.screen)
        common = {"asker": asker, "query": str(query), "case": case}
        return {"title": "Every hospital answers", "result": result, **common}


def _search_without(federation: Federation, steps: Steps, first: dict[str, Any]) -> dict[str, Any]:
    """Ask the same again while one hospital is down: it must cost its own answers only."""
    gone = federation.silos[-1]
    with steps.phase(f"Kill {gone}, and ask again"):
        federation.stop(gone, grace=0)
        result = steps.silo(*_arguments(federation, first["asker"], Path(first["query"])))
        _show_result(result, steps.screen)
        return {**first, "title": f"The same query with {gone} killed", "result": result}


def _evaluate(federation: Federation, settings: DemoSettings, steps: Steps) -> dict[str, Any]:
    with steps.phase("Evaluate on held-out patients of all hospitals, with the floors"):
        silos = [part for silo in federation.silos for part in ("--silo", str(federation.kit(silo)))]
        file = settings.out / "evaluation.json"
        return dict(steps.silo("evaluate", *silos, "--federated", "--json", str(file)))


def _look_at_the_server(federation: Federation, steps: Steps) -> dict[str, Any]:
    with steps.phase("Look through everything that the server keeps"):
        found = audit_server.look(federation)
        steps.screen.print(f"  {found['files']} files, {found['bytes'] / 1e6:.1f} MB: {len(found['leaks'])} leaks")
        return found


def _submit(federation: Federation, steps: Steps, name: str, *settings: str) -> str:
    folder = kits.jobs_folder() / name
    return str(steps.silo("job", "submit", str(folder), "--admin", str(federation.admin_kit), *settings)["job"])


def _written(session: Session, file: Path, job: str, tell: Any = lambda: None) -> dict[str, Any]:
    """Return what a job's server part wrote into `file` once it had its result: the job's processes end meanwhile."""
    while not session.state(job).over:
        tell()
        if (found := _record(file)) and found.get("state", _FINISHED) == _FINISHED:
            return found
        time.sleep(_POLL_S)
    return _downloaded(session, job, file.name)


def _downloaded(session: Session, job: str, record: str) -> dict[str, Any]:
    """Wait for a job's end, fetch what the server keeps of it, and return its record. Raises `JobFailed` if it failed."""
    session.wait(job, timeout_s=_JOB_LIMIT_S)
    files = sorted(session.download(job).rglob(record))
    if not files:
        raise JobFailed(f"job {job} left no {record}", where=job, remedy="This is a bug; report it.")
    return dict(json.loads(files[0].read_text(encoding="utf-8")))


def _record(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _held_out(federation: Federation, silo: str, job: str) -> list[dict[str, Any]]:
    file = federation.kit(silo) / "silo" / "jobs" / job / "held-out.jsonl"
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _own(federation: Federation, silo: str, job: str) -> dict[int, dict[str, float]]:
    """Return how a silo trained, by round, as it wrote down for itself: on this one machine the report may read it."""
    file = federation.kit(silo) / "silo" / "jobs" / job / "rounds.jsonl"
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return {}
    return {line["round"]: line["own"] for line in lines if "own" in line}


def _scores_by_round(federation: Federation, job: str, rounds: int) -> list[dict[str, Any]]:
    """Pool the silos' held-out scores of each round: on this one machine they may meet."""
    import numpy as np

    from silo_app.encoder.metrics import findings_figures

    curve = []
    for number in range(rounds + 1):
        files = [federation.kit(s) / "silo" / "jobs" / job / f"scores-{number:04d}.npz" for s in federation.silos]
        loaded = [np.load(file, allow_pickle=False) for file in files if file.is_file()]
        if len(loaded) == len(files):
            parts = ("logits", "targets", "known", "patients")
            logits, targets, known, patients = (np.concatenate([one[part] for one in loaded]) for part in parts)
            names = [str(name) for name in loaded[0]["findings"]]
            figures = findings_figures(names, logits, targets, known, patients)
            areas = {name: round(one.auc.value, 4) for name, one in figures.items()}
            curve.append({"round": number, "auc": areas, "views": len(logits)})
    return curve


def _mean(values: dict[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _query(federation: Federation, settings: DemoSettings, asker: str) -> tuple[Path, str]:
    """Choose a held-out image with a finding at the asking hospital, and return its file and case."""
    from silo_app.cases import Finding, Split
    from silo_app.catalogue import Catalogue, SiloKey

    home = config.load(federation.kit(asker))
    contents = SiloKey.load(home.key).contents
    with Catalogue.open(home.catalogue) as catalogue:
        views = catalogue.views(Split.HELD_OUT) or catalogue.views()
    found = [v for v in views if any(yes and name is not Finding.NO_FINDING for name, yes in v.findings.items())]
    chosen = (found or views)[0]
    for path in sorted((settings.out / ARCHIVES / asker / "dicom").rglob("*.dcm")):
        if contents.name(path.read_bytes()) == chosen.digest:
            return path, str(chosen.case)
    raise JobFailed(f"no file of {asker} has the chosen image", remedy="This is a bug; report it.")


def _arguments(federation: Federation, asker: str, query: Path) -> list[str]:
    return ["search", str(query), "--silo", str(federation.kit(asker)), "-k", "6", "--without-patient"]


def _first_answer(federation: Federation, steps: Steps, asker: str, query: Path) -> dict[str, Any]:
    """Ask until every hospital has heard of the broker: it announces itself every three seconds."""
    end = time.monotonic() + 60
    while True:
        try:
            result = steps.silo(*_arguments(federation, asker, query))
        except ProcessFailed:
            if time.monotonic() > end:
                raise
            time.sleep(1)
            continue
        answered = not result["unheard"] and all(silo["state"] == "answered" for silo in result["silos"])
        if answered or time.monotonic() > end:
            return dict(result)
        time.sleep(1)


def _show_result(result: dict[str, Any], screen: Console) -> None:
    for hit in (*result["hits"][:3], *result["elsewhere"][:3]):
        screen.print(f"    {hit['score']:.3f}  {hit['silo']:<12} {', '.join(_present(hit['card'])) or 'no finding'}")
    for silo in result["silos"]:
        screen.print(f"    {silo['silo']}: {silo['state']} ({silo['took_ms']:.0f} ms)")


def _present(card: dict[str, Any]) -> list[str]:
    return [name for name, present in (card.get("findings") or {}).items() if present and name != "No Finding"]


def _bars(screen: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<42}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        console=screen,
    )


def _report(settings: DemoSettings, federation: Federation, facts: dict[str, Any], screen: Console) -> Path:
    from provisioning.report import Pictures, facts_of, machine, pictures_of, plain_update_bytes, write_report

    durable.write_text(settings.out / FACTS, json.dumps(facts, indent=2, default=str), mode=durable.SHARED)
    homes = {silo: config.load(federation.kit(silo)) for silo in federation.silos}
    found = [facts[name]["result"] for name in ("search", "search_without")]
    hits = [hit for one in found for part in ("hits", "elsewhere") for hit in one[part]]
    shown = {**facts["search"], "result": {"hits": hits}}
    described = facts_of(
        facts,
        command=f"consortium {' '.join(sys.argv[1:])}",
        machine=machine(),
        pictures=Pictures() if settings.data else pictures_of(shown, homes),
        plain_bytes=plain_update_bytes(homes[federation.silos[0]], facts["evaluation"]["encoder_version"]),
    )
    path = write_report(described, settings.out / REPORT)
    screen.print(f"\n[bold]{_shown(path)}[/bold] tells the whole story; raw figures: {_shown(settings.out / FACTS)}")
    return path


def _plain(settings: DemoSettings) -> dict[str, Any]:
    return {**vars(settings), "out": str(settings.out), "data": [path.name for path in settings.data]}


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)
