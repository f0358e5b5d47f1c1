"""A catalogue that is read for as long as a process lives, although its file may be replaced meanwhile."""

from pathlib import Path

from silo_app.catalogue.catalogue import Catalogue

__all__ = ["ReopenedCatalogue", "Version"]

Version = tuple[int, int]
"""Changes whenever the content does; only to be compared with others of the same `ReopenedCatalogue`."""


class ReopenedCatalogue:
    """It is opened at first use, and again when its file was replaced. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: Catalogue | None = None
        self._inode = 0
        self._times = 0

    def now(self) -> tuple[Catalogue, Version]:
        """Return the open catalogue, and its version as of now. Raises `NotReady`, `CatalogueDamaged`."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if self._opened is None or inode != self._inode:
            self.close()
            self._opened, self._inode, self._times = Catalogue.open(self._path), inode, self._times + 1
        return self._opened, (self._times, self._opened.version())

    @property
    def opened(self) -> Catalogue | None:
        """The catalogue as `now` last gave it; None before, and when it was closed."""
        return self._opened

    def close(self) -> None:
        """Close it; a later look opens it again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
