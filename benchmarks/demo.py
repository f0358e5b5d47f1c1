"""Does the whole path work, from images to a search across hospitals, and in which time? `consortium demo`, run and read.

The command runs as a person would type it, in a folder of its own, with phantoms; what is judged is what it wrote down
(figures.json) and what it left running. `--quick` takes two hospitals with few images and one round: the same steps, and
the same targets but for the time. With real images, or another network than the demo's own, it takes as long as it takes:

    python -m benchmarks.demo --data pediatric-chest-xray.zip --backbone densenet121 --input-size 224 --rounds 6 --epochs 1
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import Figure, Target, main

QUICK = ("--hospitals", "2", "--studies", "20", "--rounds", "1", "--epochs", "1", "--input-size", "32")
STEPS = (
    "Make hospital archives",
    "Provision the consortium",
    "Ingest",
    "Start the server",
    "Train one encoder together",
    "Index",
    "Search",
    "Evaluate",
    "Kill ",
    "Look through everything",
    "Stop every process",
)
OPTIONS = ("data", "backbone", "input_size", "rounds", "epochs")
TIME_TARGET = Target("demo_s", 480.0)
TARGETS = (
    Target("steps_done", 1.0, at_least=True),
    Target("report_written", 1.0, at_least=True),
    Target("leaks", 0.0),
    Target("answered", 1.0, at_least=True),
    Target("answered_with_one_killed", 1.0, at_least=True),
    Target("rounds_with_a_sum", 1.0, at_least=True),
    Target("left_running", 0.0),
)


def figures_of(facts: Mapping[str, Any], *, seconds: float, reported: bool, running: int) -> list[Figure]:
    """Return what the demo's own record says."""
    done = [step for step in STEPS if any(title.startswith(step) for title in facts.get("seconds", {}))]
    killed = facts.get("search_without", {})
    rounds = facts.get("training", {}).get("record", {}).get("rounds", [])
    server = facts.get("server", {})
    return [
        Figure("demo_s", seconds, "s"),
        Figure("steps_done", len(done) / len(STEPS), f"of {len(STEPS)} steps"),
        Figure("report_written", float(reported), "1: report.html is there"),
        Figure("leaks", len(server["leaks"]) if "leaks" in server else math.inf, "in what the server keeps"),
        Figure("server_files", server.get("files", 0), "files that were looked through"),
        Figure("server_needles", server.get("needles", 0), "secrets that were looked for in each"),
        Figure("answered", _answered(facts.get("search", {}), gone=0), "of the hospitals"),
        Figure("answered_with_one_killed", _answered(killed, gone=1), "of the hospitals that were left"),
        Figure("rounds_with_a_sum", _share([not one.get("void") for one in rounds]), f"of {len(rounds)} rounds"),
        Figure("left_running", running, "processes"),
        *_quality(facts.get("evaluation", {})),
        *(Figure(f"{_name(title)}_s", took, "s") for title, took in facts.get("seconds", {}).items()),
    ]


def _quality(evaluation: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield how good the encoder is on held-out patients of all hospitals, as the demo evaluated it."""
    aucs = [one["auc"]["value"] for one in evaluation.get("findings", {}).get("pooled", {}).values()]
    if aucs:
        yield Figure("auc", statistics.mean(aucs), f"mean over {len(aucs)} findings")
    for way, found in evaluation.get("retrieval", {}).items():
        if found["precision"] is not None:
            yield Figure(f"precision_at_10_{way.replace(' ', '_')}", found["precision"], "balanced over findings")


def _answered(search: Mapping[str, Any], *, gone: int) -> float:
    states = [silo["state"] for silo in search.get("result", {}).get("silos", [])]
    return states.count("answered") / max(1, len(states) - gone)


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / max(1, len(outcomes))


def _name(title: str) -> str:
    """Return a figure's name for a step: its first word."""
    return "step_" + title.split(maxsplit=1)[0].strip(":,").lower()


def run(out: Path, arguments: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Run the demo in `out`; return what it wrote down, and the seconds that it took."""
    command = [sys.executable, "-m", "provisioning.cli", "demo", "--out", str(out), *arguments]
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - start
    if ended.returncode:
        sys.stderr.write(ended.stderr[-4000:])
    file = out / "figures.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}, seconds


def running_in(folder: Path) -> int:
    """Return how many processes of this account work in a folder, or were started with a path in it."""
    count = 0
    for process in psutil.process_iter(["cmdline", "uids"]):
        command = process.info["cmdline"] or []
        uids = process.info["uids"]
        count += uids is not None and uids.real == os.getuid() and any(str(folder) in part for part in command)
    return count


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Run the demo once."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        out = Path(folder).resolve() / "demo"
        facts, seconds = run(out, QUICK if arguments.quick else _given(arguments))
        reported = (out / "report.html").is_file()
        return figures_of(facts, seconds=seconds, reported=reported, running=running_in(out))


def _given(arguments: argparse.Namespace) -> list[str]:
    """Return what the demo is asked for, as it is typed."""
    return [part for name in OPTIONS if (value := getattr(arguments, name)) for part in (_typed(name), value)]


def _typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def wanted(arguments: argparse.Namespace) -> tuple[Target, ...]:
    """Return the targets; the time is that of the whole demo on two cores, as it comes."""
    return TARGETS if arguments.quick or _given(arguments) else (TIME_TARGET, *TARGETS)


def _options(parser: argparse.ArgumentParser) -> None:
    for name in OPTIONS:
        parser.add_argument(_typed(name), help="as `consortium demo` has it")


if __name__ == "__main__":
    sys.exit(main("demo", measure, wanted, describe=str(__doc__).splitlines()[0], options=_options))
