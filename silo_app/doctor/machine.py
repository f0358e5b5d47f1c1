"""The machine: what is installed, room on the disk, the processor for training."""

import importlib.metadata
import importlib.util
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import silo_app
from silo_app.doctor.checked import Checked, ok, problem, warning

__all__ = ["decoders", "dependencies", "disk", "gpu"]

_INSTALL = "Install Siloscope as its README says; `constraints.txt` holds the versions that were tested together."
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(;.*)?$")
_BOUND = re.compile(r"(>=|<|==)\s*([0-9.]+)")

LEAST_FREE = 2 << 30
SCARCE_FREE = 20 << 30


def dependencies(requirements: Sequence[str] | None = None) -> Checked:
    """Compare installed packages with what Siloscope needs (without extras)."""
    wanted = required() if requirements is None else requirements
    wrong = [said for said in map(_lacking, wanted) if said]
    if wrong:
        return problem("dependencies", "; ".join(wrong), _INSTALL)
    return ok("dependencies", f"{len(wanted)} packages are there, in versions that fit")


def required() -> list[str]:
    """Return what the installed distribution needs, or the checkout that we run from."""
    try:
        listed = importlib.metadata.requires("siloscope") or []
    except importlib.metadata.PackageNotFoundError:
        file = Path(silo_app.__file__).parent.parent / "pyproject.toml"
        listed = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"] if file.is_file() else []
    return [line for line in listed if "extra ==" not in line]


def _lacking(requirement: str) -> str:
    """Return what is wrong with one requirement, or ""."""
    found = _REQUIREMENT.match(requirement)
    if found is None:
        return ""
    name, bounds = found[1], _BOUND.findall(found[2])
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    fits: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
        ">=": lambda has, bound: has >= bound,
        "<": lambda has, bound: has < bound,
        "==": lambda has, bound: has == bound,
    }
    if all(fits[sign](_numbers(version), _numbers(bound)) for sign, bound in bounds):
        return ""
    return f"{name} {version} is not {found[2].strip()}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def decoders(available: Mapping[str, bool] | None = None) -> Checked:
    """Look for a decoder of each transfer syntax that has a freely licensed one."""
    if available is None:
        from silo_app.imaging.decoders import available_decoders

        available = available_decoders()
    missing = [name for name, there in available.items() if not there]
    if missing:
        return problem("decoders", f"no decoder for {', '.join(missing)}", 'Run `pip install "pydicom[pixeldata]"`.')
    return ok(
        "decoders",
        f"{len(available)} transfer syntaxes; not JPEG Extended of 12 bits, whose one decoder is under the GPL: such files "
        "are refused as unsupported-transfer-syntax",
    )


def disk(folder: Path, *, free: int | None = None) -> Checked:
    """Look for room where the silo lies."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    bytes_free = shutil.disk_usage(there).free if free is None else free
    seen = f"{bytes_free / 1e9:.1f} GB are free at {folder}"
    remedy = "Make room, or move the silo's folder to a larger disk (`home` in silo.yaml): an image takes 0.25 MB of cache."
    if bytes_free < LEAST_FREE:
        return problem("disk", seen, remedy)
    return warning("disk", seen, remedy) if bytes_free < SCARCE_FREE else ok("disk", seen)


def gpu(driver: Path = Path("/proc/driver/nvidia/version"), usable: Sequence[str] | None = None) -> Checked:
    """Say what training runs on; a graphics processor that is there but cannot be used is worth a word."""
    if not driver.exists() and usable is None:
        return ok("graphics processor", "none: training and embedding run on the processor")
    if usable is None:
        from silo_app.encoder.devices import graphics_processors

        usable = graphics_processors()
    if usable:
        return ok("graphics processor", ", ".join(usable))
    return warning(
        "graphics processor",
        "there is a driver, but the installed PyTorch cannot use the processor",
        "Install a PyTorch build that fits the driver (`nvidia-smi` shows its CUDA version).",
    )
