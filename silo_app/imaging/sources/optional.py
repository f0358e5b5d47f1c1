"""The libraries of the extra `pacs`, imported when an archive is first spoken to; nobody else imports them.

Both write what they send and receive, identifiers included, to their loggers: silenced here, where they come in.
"""

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from types import ModuleType
from typing import Any

from silo_app.errors import NotReady

__all__ = ["dicomweb_library", "pynetdicom_library"]


@cache
def pynetdicom_library() -> ModuleType:
    """Return pynetdicom, silent. Raises `NotReady` if it is not installed."""
    module = _imported("pynetdicom")
    config: Any = import_module("pynetdicom._config")
    config.LOG_REQUEST_IDENTIFIERS = config.LOG_RESPONSE_IDENTIFIERS = False
    config.LOG_HANDLER_LEVEL = "none"
    return module


@cache
def dicomweb_library() -> ModuleType:
    """Return dicomweb-client, silent. Raises `NotReady` if it is not installed."""
    return _imported("dicomweb_client")


def _imported(name: str) -> ModuleType:
    for logger in (logging.getLogger(name), logging.getLogger("urllib3")):
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    try:
        return import_module(name)
    except ImportError:
        package = name.replace("_", "-")
        raise NotReady(
            f"{_wanted(package)} is not installed",
            remedy="Install the extra: pip install 'siloscope[pacs]'.",
        ) from None


def _wanted(package: str) -> str:
    """Return the package with the versions that Siloscope's own metadata ask for."""
    try:
        wanted = requires("siloscope") or []
    except PackageNotFoundError:  # run from a checkout
        wanted = []
    found = [entry.partition(";")[0].strip() for entry in wanted if entry.startswith(package)]
    return found[0] if found else package
