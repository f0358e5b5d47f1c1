"""MONAI's networks without the rest of MONAI.

`import monai` imports all that MONAI has, from transforms to plots: more than half of the time in which a trainer's
process starts (`python -X importtime -c "import monai"`). The blocks that encoders are made of need a twentieth of it. So
they are imported as a copy of their own, with bare packages around them, and none of it stays in `sys.modules`: whoever
imports MONAI later gets it whole. A MONAI that is laid out differently is imported as usual.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["DenseNet", "MedNeXtBlock", "MedNeXtDownBlock"]

_BARE = ("monai", "monai.apps", "monai.networks", "monai.networks.blocks", "monai.networks.layers", "monai.networks.nets")
_UNUSED = ("matplotlib", "matplotlib.pyplot", "pandas")
"""What MONAI takes where it is there, for notebooks and profiles."""
_importing = threading.Lock()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Within the block, MONAI's packages are empty; at its end everything is as it was."""
    spec = importlib.util.find_spec("monai")
    if spec is None or spec.origin is None:
        raise ImportError("monai is not installed")
    root = Path(spec.origin).parent
    kept = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in kept:
        del sys.modules[name]
    try:
        for name in _BARE:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
        sys.modules["monai"].__dict__["__version__"] = importlib.metadata.version("monai")
        for name in _UNUSED:
            # the import system's way to say that there is no such module
            sys.modules[name] = None  # type: ignore[assignment]
        yield
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(kept)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "monai" or name in _UNUSED


def _taken(module: str, *names: str) -> tuple[Any, ...]:
    found = importlib.import_module(module)
    return tuple(getattr(found, name) for name in names)


def _parts() -> tuple[Any, ...]:
    return (
        *_taken("monai.networks.nets.densenet", "DenseNet"),
        *_taken("monai.networks.blocks.mednext_block", "MedNeXtBlock", "MedNeXtDownBlock"),
    )


def _imported() -> tuple[Any, ...]:
    try:
        with _importing, _alone():
            return _parts()
    except (ImportError, AttributeError):
        return _parts()


DenseNet, MedNeXtBlock, MedNeXtDownBlock = _imported()
