"""The silo's look as a generation keeps it: learned once for an encoder, so that vectors of many builds stay comparable."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from silo_app.encoder.looks import FEWEST, Look
from silo_app.index.manifest import LOOK_FILE, GenerationInfo, damaged, digest_of

__all__ = ["KeptLook", "read_look"]

_GROWTH = 2


@dataclass(frozen=True, slots=True)
class KeptLook:
    """A look, and the number of training views from which it was learned."""

    look: Look
    views: int

    def still_fits(self, train_views: int) -> bool:
        """Return whether so many training views need no new look: not twice as many as it was learned from, or too few."""
        return train_views < (_GROWTH * self.views if self.views >= FEWEST else FEWEST)

    def without_the_gone(self, digests: Iterable[str]) -> "KeptLook":
        """Return it without views that are none of these: they have left the silo."""
        return KeptLook(self.look.only_near(set(digests)), self.views)


def read_look(folder: Path, info: GenerationInfo) -> KeptLook | None:
    """Read a generation's look, or None if its vectors have it. Raises `IndexDamaged`."""
    if info.look_views is None:
        return None
    file = folder / LOOK_FILE
    try:
        if digest_of(file) != info.files[LOOK_FILE]:
            raise damaged(folder, f"{LOOK_FILE} is not as it was written")
        look = Look.read(file.read_bytes())
    except (OSError, ValueError):
        raise damaged(folder, f"{LOOK_FILE} cannot be read") from None
    if look.dimension != info.dimension:
        raise damaged(folder, "its look has another dimension than its vectors")
    return KeptLook(look, info.look_views)
