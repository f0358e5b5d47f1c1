"""The encoder to ask with, kept in memory; exchanged when the silo asks with another or its index learned another look."""

import logging
import threading
from typing import TYPE_CHECKING, Literal

from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome
from silo_app.errors import SiloscopeError
from silo_app.index.generations import look_in_use, pointer
from silo_app.search.own_encoder import asking_version, own_encoder

if TYPE_CHECKING:
    from silo_app.encoder.embed import LoadedEncoder

__all__ = ["EncoderInUse"]

_log = logging.getLogger(__name__)


class EncoderInUse:
    """One encoder for many threads; whoever needs it while it is loaded waits."""

    def __init__(self, home: SiloHome) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._held: LoadedEncoder | None = None
        self._pointer = (0, 0)
        self._is_loading = False
        self._was_tried = False
        self._failed: tuple[str, tuple[int, int]] | None = None
        """The version that could not be loaded ahead, and the index that there was."""

    @property
    def state(self) -> Literal["loading", "ready", "missing"]:
        """Whether it can be used at once."""
        if self._is_loading or not self._was_tried:
            return "loading"
        return "missing" if self._held is None else "ready"

    @property
    def version(self) -> EncoderVersion | None:
        """Of what is loaded."""
        return None if self._held is None else self._held.version

    def get(self, home: SiloHome, version: EncoderVersion | None = None) -> "LoadedEncoder":
        """Return a version, or the one in use, as `own_encoder` does, which this stands for; only the one in use is kept."""
        at = pointer(home.index)  # before reading: what is published meanwhile is read next
        used = asking_version(home)
        if version is not None and version != used:
            return own_encoder(home, version)
        with self._lock:
            if self._held is None or self._held.version != used:
                self._load(used)
            elif self._held.look is not None and self._pointer != at:
                self._held = self._held.without(look_in_use(home.index, used))
            self._pointer = at
            assert self._held is not None  # noqa: S101  (loaded just now)
            return self._held

    def refresh(self) -> None:
        """Load the one in use ahead of a search, unless the same failed before: a search tries again, and says why."""
        at = "", (0, 0)
        try:
            at = str(asking_version(self._home)), pointer(self._home.index)
            if at != self._failed:
                self.get(self._home)
        except Exception as error:  # noqa: BLE001  (a search says it whole; whoever calls goes on)
            why = error.code if isinstance(error, SiloscopeError) else type(error).__name__
            if at != self._failed:
                _log.warning("the encoder cannot be loaded: %s", why)
            self._failed = at
        finally:
            self._was_tried = True

    def _load(self, version: EncoderVersion) -> None:
        self._is_loading = True
        try:
            self._held = None  # not both at once: the old one is not asked with any more
            self._held = own_encoder(self._home, version)
        finally:
            self._is_loading = False
        _log.info("encoder %s is loaded", version[:12])
