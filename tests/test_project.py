"""The project's own files: make, CI and constraints say the same."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MAKE = shutil.which("make")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {name_of(line): line.split("==")[1] for line in lines if "==" in line}


@pytest.mark.parametrize("target", ["help", "install", "demo", "test", "check", "bench", "docs", "clean"])
def test_make_knows_its_targets_and_explains_them(target):
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE)


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_make_alone_lists_every_target():
    shown = subprocess.run([MAKE, "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True)
    for target in re.findall(r"^([a-z]+):.*##", MAKEFILE, re.MULTILINE):
        assert f"make {target}" in shown.stdout


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_make_demo_hands_every_image_set_over():
    command = [MAKE, "-C", str(ROOT), "-n", "demo", "DATA=a.zip,b.zip", "OUT=elsewhere"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "consortium demo --out 'elsewhere' --data 'a.zip,b.zip'" in shown.stdout


def test_a_missing_python_is_a_sentence_and_not_a_trace(tmp_path):
    script = ROOT / ".ci" / "make-venv"
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": "no-such-python"}
    done = subprocess.run([script, tmp_path / "venv", "dev"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.11 or newer was found (PYTHON=no-such-python).\nInstall one")


def test_ci_runs_what_a_developer_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.startswith("#!/usr/bin/env bash")
    assert "set -euo pipefail" in script
    assert script.index("make check") < script.index("make test")


@pytest.mark.parametrize("script", ["run", "make-venv", "install-packages"])
def test_scripts_can_be_run(script):
    path = ROOT / ".ci" / script
    assert path.stat().st_mode & 0o111
    subprocess.run([shutil.which("bash"), "-n", path], check=True)


def test_every_dependency_has_a_tested_version():
    project = PYPROJECT["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert sorted({name_of(each) for each in wanted} - pins().keys()) == []


def test_torch_is_pinned_where_it_was_tested_and_open_for_users():
    assert pins()["torch"] == "2.13.0"
    assert "torch>=2.8,<3" in PYPROJECT["project"]["dependencies"]


def test_every_dependency_is_explained():
    page = (ROOT / "docs" / "explanation-dependencies.md").read_text(encoding="utf-8")
    project = PYPROJECT["project"]
    wanted = {name_of(each) for each in project["dependencies"]}
    wanted |= {name_of(each) for group in project["optional-dependencies"].values() for each in group}
    explained = {name_of(name) for name in re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)}
    assert explained == wanted | set(PYPROJECT["build-system"]["requires"][0].split(">")[:1])


def test_jobs_are_data_of_the_distribution_and_no_package():
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"] == {"jobs": "share/siloscope/jobs"}
    assert not list((ROOT / "jobs").rglob("*.py"))
