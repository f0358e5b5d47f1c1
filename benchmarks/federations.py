"""Real federations side by side: NVFlare's FedAvg, its FedAvg with homomorphic encryption, and ours, on one network.

A server and three sites over mutual TLS on this machine, one federation after the other. NVFlare's run the recipes as
they are, in the proof-of-concept environment that its documentation names for them, with training that takes no time; ours
is `jobs/train` on a handful of phantoms, one step a round, and the time of that step is taken off. Bytes are those of
the loopback interface: everything that travels, to and fro.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from provisioning import kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from silo_app import config
from silo_app.errors import ProcessFailed
from silo_app.flare.console import Console, stage_job
from silo_app.imaging.ingest import ingest
from silo_app.imaging.samples.phantom import make_phantoms

__all__ = ["Measured", "ours", "stock"]

ROOT = Path(__file__).resolve().parents[1]
SITES = 3
EVERY_S = 0.2
WARM_UP = 1
"""Rounds that are left out: connections are made, kernels chosen, the first scales guessed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one federation took for one round; medians over its rounds."""

    seconds: float
    """All but training."""
    whole_seconds: float
    """With training."""
    cpu_seconds: float
    """Of all processes of server and sites together, with training; mean over the rounds."""
    megabytes: float
    """A site's upload and download together."""
    server_peak_mb: float
    """Of all of the server's processes together, unshared."""
    site_peak_mb: float
    """Of all of one site's processes together, unshared: with the trainer's."""


@dataclass
class _Watch:
    """Samples memory and CPU time of groups of processes, and what crossed the loopback interface."""

    groups: Mapping[str, Callable[[], set[int]]]
    round_of: Callable[[], int] = lambda: 0
    """How many rounds are over, where that can be seen from outside."""
    ends: dict[int, float] = field(default_factory=dict)
    """When each count was seen first, by the wall clock."""
    peak: dict[str, float] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)
    samples: list[tuple[float, float, int]] = field(default_factory=list)
    """Clock, CPU seconds of all so far, bytes so far."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample on a thread until the block ends."""
        over = threading.Event()
        thread = threading.Thread(target=self._sample, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def between(self, start: float, end: float) -> tuple[float, float]:
        """Return CPU seconds and megabytes between two moments of the wall clock."""
        first, last = (max((s for s in self.samples if s[0] <= moment), default=self.samples[0]) for moment in (start, end))
        return last[1] - first[1], (last[2] - first[2]) / 1e6

    def _sample(self, over: threading.Event) -> None:
        while not over.is_set():
            for name, members in self.groups.items():
                self.peak[name] = max(self.peak.get(name, 0.0), self._memory(members()))
            self.samples.append((time.time(), sum(self.cpu.values()), psutil.net_io_counters(pernic=True)["lo"].bytes_sent))
            self.ends.setdefault(self.round_of(), time.time())
            over.wait(EVERY_S)

    def _memory(self, members: set[int]) -> float:
        """Return the unshared memory of processes, MB, and note their CPU time."""
        total = 0
        for pid in members:
            try:
                process = psutil.Process(pid)
                total += process.memory_full_info().uss
                times = process.cpu_times()
                self.cpu[pid] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total / 1e6


def stock(backbone: str, *, encrypted: bool, rounds: int, limit_s: float) -> Measured:
    """Run NVFlare's own recipe. Raises `ProcessFailed` if the job does not finish within `limit_s`."""
    with tempfile.TemporaryDirectory(prefix="stock-") as name:
        folder = Path(name)
        environment = os.environ | {
            "NVFLARE_POC_WORKSPACE": str(folder / "poc"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder),
        }
        command = [sys.executable, "-m", "benchmarks.stock.run", backbone, "he" if encrypted else "plain", str(rounds)]
        groups = {
            "server": partial(_named, folder / "poc", "server"),
            **{f"site-{n}": partial(_named, folder / "poc", f"site-{n}") for n in range(1, SITES + 1)},
        }
        watch = _Watch(groups)
        with watch.watching():
            process = subprocess.Popen(
                [*command, str(folder)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(process, folder)
        if status != 0:
            raise ProcessFailed(f"NVFlare's job on {backbone} did not finish within {limit_s:g} s", remedy="See its logs.")
        return _of_stock(watch, folder)


def _of_stock(watch: _Watch, folder: Path) -> Measured:
    """Read the sites' own notes: a round lasts from one beginning to the next."""
    sites = [
        [json.loads(line) for line in (folder / f"site-{n}.jsonl").read_text().splitlines()] for n in range(1, SITES + 1)
    ]
    begins = [min(site[number]["began"] for site in sites) for number in range(len(sites[0]))]
    training = [max(site[number]["ended"] - site[number]["began"] for site in sites) for number in range(len(begins))]
    seconds, cpu, megabytes = [], [], []
    for number in range(WARM_UP, len(begins) - 1):
        spent, sent = watch.between(begins[number], begins[number + 1])
        seconds.append(begins[number + 1] - begins[number] - training[number])
        cpu.append(spent)
        megabytes.append(sent / SITES)
    whole = [end - start for start, end in itertools.pairwise(begins[WARM_UP:])]
    return _measured(watch, seconds, whole, cpu, megabytes)


def _measured(watch: _Watch, seconds: list[float], whole: list[float], cpu: list[float], megabytes: list[float]) -> Measured:
    sites = [name for name in watch.groups if name != "server"]
    return Measured(
        seconds=statistics.median(seconds),
        whole_seconds=statistics.median(whole),
        cpu_seconds=statistics.mean(cpu),
        megabytes=statistics.mean(megabytes),
        server_peak_mb=watch.peak["server"],
        site_peak_mb=max(watch.peak[name] for name in sites),
    )


def _named(workspace: Path, part: str) -> set[int]:
    """Return the processes of one part of NVFlare's proof-of-concept federation, by their command lines."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(workspace) in line and f"/{part}" in line:
            found.add(int(process.info["pid"]))
    return found


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End everything that was started for a folder, whatever state it is in."""
    for other in psutil.process_iter(["pid", "cmdline"]):
        if str(folder) in " ".join(other.info["cmdline"] or ()) and other.pid != os.getpid():
            other.kill()
    process.wait()


def ours(backbone: str, *, settings: dict[str, Any], rounds: int) -> Measured:
    """Run `jobs/train` for so many rounds of one step."""
    with tempfile.TemporaryDirectory(prefix="ours-") as name:
        federation = _federation(Path(name))
        try:
            federation.up()
            return _of_ours(federation, _job(backbone, rounds, settings))
        finally:
            federation.down()


def _federation(root: Path) -> Federation:
    archives = make_phantoms(root / "archives", hospitals=SITES, studies=24, seed=7, progress=None, workers=2)
    silos = [archive.silo() for archive in archives]
    content = {"name": "bench", "server": {"port": 0}, "silos": silos, "researchers": [{"name": "lead@siloscope.example"}]}
    kits.provision(Consortium.model_validate(content), root / "consortium")
    federation = Federation.load(root / "consortium")
    for silo in federation.silos:
        ingest(config.load(federation.kit(silo)), workers=2)
    return federation


def _job(backbone: str, rounds: int, settings: dict[str, Any]) -> dict[str, Any]:
    small: dict[str, Any] = {"encoder.backbone": backbone, "training.steps": 1, "training.batch_size": 2, "personal": "none"}
    return {"rounds": rounds, "min_silos": SITES} | small | settings


def _of_ours(federation: Federation, settings: dict[str, Any]) -> Measured:
    def members(part: str) -> set[int]:
        mine = set(federation.pids(part))
        return mine | {child.pid for pid in mine if psutil.pid_exists(pid) for child in _children(pid)}

    groups = {"server": lambda: members(federation.server)} | {
        silo: (lambda silo=silo: members(silo)) for silo in federation.silos
    }
    homes = [config.load(federation.kit(silo)) for silo in federation.silos]
    watch = _Watch(groups, lambda: _trained(homes[0].root))
    with watch.watching(), Console.open(federation.admin_kit) as console:
        with stage_job(ROOT / "jobs" / "train", settings) as job:
            submitted = console.submit(job)
        console.wait(submitted, timeout_s=1800.0)
        folder = console.download(submitted)
    record = json.loads(next(folder.rglob("rounds.json")).read_text(encoding="utf-8"))
    own = [_own(home.root) for home in homes]
    counted = [one for one in record["rounds"] if one["content"] == "update"][WARM_UP:]
    seconds = [one["seconds"] - max(trained[one["round"]] for trained in own) for one in counted]
    rounds = max(watch.ends) - WARM_UP
    spent, sent = watch.between(watch.ends[WARM_UP], watch.ends[max(watch.ends)])
    whole = [one["seconds"] for one in counted]
    return _measured(watch, seconds, whole, [spent / rounds], [sent / rounds / SITES])


def _journal(root: Path) -> list[dict[str, Any]]:
    """Return a silo's own lines about its only job."""
    for file in root.glob("jobs/*/rounds.jsonl"):
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")
        ]
        return lines
    return []


def _trained(root: Path) -> int:
    """Return how many rounds a silo has trained."""
    return sum("own" in line for line in _journal(root))


def _own(root: Path) -> dict[int, float]:
    """Return by round how long a silo trained, seconds."""
    return {line["round"]: line["own"]["train_seconds"] for line in _journal(root) if "own" in line}


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
