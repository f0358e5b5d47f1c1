"""The architecture's rules that import-linter cannot see: what is loaded when, and what a job may name."""

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "monai", "faiss", "tenseal", "nvflare", "matplotlib", "sklearn", "pydicom", "scipy"}
NVFLARE_CLASSES: frozenset[str] = frozenset()
"""Classes of NVFlare itself that a job may name: none."""
JOBS = sorted(path.parent.name for path in (ROOT / "jobs").glob("*/meta.json"))
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs").rglob("config_fed_*.json"))


def modules(*packages: str) -> list[str]:
    """The modules of packages (or modules) that exist, by name."""
    found = []
    for package in packages:
        path = ROOT / package.replace(".", "/")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.is_file()]
        found += [name.removesuffix(".__init__") for name in names]
    return found


def loaded_after(code: str) -> set[str]:
    """The top-level packages that are loaded in a fresh process after `code`."""
    report = "import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


LIGHT = modules(
    "silo_app.cli", "silo_app.policy", "silo_app.config", "silo_app.cases", "silo_app.errors", "provisioning.cli"
)


def test_help_loads_nothing_heavy():
    """All commands' modules at once: what `silo --help` and `consortium --help` need."""
    assert loaded_after("\n".join(f"import {name}" for name in LIGHT)) & HEAVY == set()


ANSWERING = [
    name
    for name in (
        "silo_app.search.server",
        "silo_app.search.answer",
        "silo_app.search.merge",
        "silo_app.search.messages",
        "silo_app.search.broker",
        "silo_app.search.envelope",
        "silo_app.search.local",
        "silo_app.policy.release",
        "silo_app.audit.log",
    )
    if name in modules("silo_app.search", "silo_app.policy", "silo_app.audit")
]


def test_the_answering_side_loads_no_training_library():
    """The index process compares vectors; it must start at once and stay small."""
    assert "silo_app.search.server" in ANSWERING
    loaded = loaded_after("\n".join(f"import {name}" for name in ANSWERING))
    assert loaded & {"torch", "monai", "tenseal", "nvflare", "matplotlib", "sklearn", "pydicom"} == set()


def test_the_server_of_a_training_job_holds_no_key_library():
    assert loaded_after("import silo_app.aggregation.sums") & {"tenseal", "torch"} == set()


def test_neither_the_server_nor_the_job_process_of_an_evaluation_holds_an_encoder():
    loaded = loaded_after("import silo_app.encoder.evaluation_record, silo_app.encoder.tell")
    assert loaded & {"torch", "monai", "tenseal", "sklearn"} == set()


def test_the_check_of_what_is_loaded_can_fail():
    assert "matplotlib" in loaded_after("import matplotlib")


def exported(file: Path) -> list[str] | None:
    """The names in a module's `__all__`, read without importing it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return None


SOURCES = sorted([*(ROOT / "silo_app").rglob("*.py"), *(ROOT / "provisioning").rglob("*.py")])
WITH_ALL = [file.relative_to(ROOT).as_posix() for file in SOURCES if exported(file) is not None]


@pytest.mark.parametrize("name", WITH_ALL)
def test_public_names_are_sorted_and_exist(name):
    """Sorted as ruff sorts them (RUF022): constants, then classes, then the rest."""
    file = ROOT / name
    names = exported(file)
    assert names is not None
    assert names == sorted(set(names), key=lambda each: (kind_of(each), each))
    defined = {found for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) for found in names_bound_by(node)}
    assert set(names) <= defined


def kind_of(name: str) -> int:
    return 0 if name.isupper() else 1 if name[0].isupper() else 2


def names_bound_by(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Import() | ast.ImportFrom():
            return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        case ast.Name(ctx=ast.Store()):
            return {node.id}
    return set()


@pytest.mark.parametrize("name", [file.relative_to(ROOT).as_posix() for file in SOURCES])
def test_no_module_is_longer_than_one_sitting(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 400


def test_there_is_a_job_for_each_thing_the_federation_does():
    assert {"index", "search", "train"} <= set(JOBS)


def test_jobs_hold_declarations_only():
    kinds = {path.suffix for path in (ROOT / "jobs").rglob("*") if path.is_file() and not path.name.startswith(".__nvfl")}
    assert kinds <= {".json", ".md"}
    assert not list((ROOT / "jobs").rglob("custom"))


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_named_like_its_folder_and_has_both_sides(job):
    folder = ROOT / "jobs" / job
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    assert meta["name"] == job
    assert meta["min_clients"] >= 1
    for app in meta["deploy_map"]:
        config = folder / app / "config"
        assert {file.name for file in config.glob("[!.]*.json")} == {"config_fed_client.json", "config_fed_server.json"}


def classes_named_in(content) -> set[str]:
    """Every class that a configuration names, by whichever key NVFlare reads it."""
    if isinstance(content, dict):
        own = {content[key] for key in ("path", "class_path", "name") if isinstance(content.get(key), str)}
        return own.union(*(classes_named_in(value) for value in content.values()))
    if isinstance(content, list):
        return set().union(*(classes_named_in(value) for value in content))
    return set()


@pytest.mark.parametrize("config", CONFIGS)
def test_jobs_name_allow_listed_classes_that_exist(config):
    from provisioning.site_policy import CLASS_ALLOW_LIST

    named = classes_named_in(json.loads((ROOT / config).read_text(encoding="utf-8")))
    assert named
    for path in named:
        assert path in NVFLARE_CLASSES or path.startswith(tuple(CLASS_ALLOW_LIST)), f"{path} is not allowed at sites"
        module, _, name = path.rpartition(".")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert name in {
            node.name
            for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef)
        }


def test_the_allow_list_is_our_adapters_alone():
    from provisioning.site_policy import CLASS_ALLOW_LIST

    assert set(CLASS_ALLOW_LIST) == {"silo_app.flare."}


def test_the_training_jobs_plan_is_valid_as_it_is_delivered():
    from silo_app.encoder.plan import TrainingPlan

    config = json.loads((ROOT / "jobs/train/app/config/config_fed_server.json").read_text(encoding="utf-8"))
    plan = TrainingPlan.checked(config["workflows"][0]["args"]["plan"])
    assert plan.encryption == "bfv"
    assert plan.min_silos >= 2


def test_the_readme_of_jobs_tells_the_defaults_that_hold():
    from silo_app.encoder.plan import TrainingPlan

    text = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    text = text.partition("## Settings of `train`")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", text, re.MULTILINE))
    assert told
    config = json.loads((ROOT / "jobs/train/app/config/config_fed_server.json").read_text(encoding="utf-8"))
    plan = TrainingPlan.checked(config["workflows"][0]["args"]["plan"])
    for name, value in told.items():
        held = getattr(plan, name)
        assert float(value) == held if value.replace(".", "").isdigit() else value == str(held).lower()
