"""A small federation, provisioned once by the real `nvflare provision`; tests that change one work on a copy."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning import kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation


def describe(*silos: str, **changes: Any) -> Consortium:
    content = {
        "name": "trial",
        "server": {"port": 0, "home": "/srv/trial/server"},  # so that a copy is as right as the original
        "silos": [{"name": name} for name in silos or ("hospital-a", "hospital-b")],
        "researchers": [{"name": "lead@trial.example"}],
        "operator": {"name": "admin@trial.example"},
    }
    return Consortium.model_validate(content | changes)


@pytest.fixture
def make_consortium() -> Callable[..., Consortium]:
    return describe


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Read only: every test of the session shares it."""
    return kits.provision(describe(), tmp_path_factory.mktemp("shared") / "federation")


@pytest.fixture
def federation(provisioned: Federation, tmp_path: Path) -> Federation:
    """A copy that a test may change."""
    folder = tmp_path / "federation"
    shutil.copytree(provisioned.root, folder, symlinks=True)
    return Federation.load(folder)
