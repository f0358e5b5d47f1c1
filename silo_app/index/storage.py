"""Where a generation's vectors are held: which of the galleries is written, and which is opened again."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.config import IndexSettings, MilvusSettings, SiloHome
from silo_app.errors import NotReady
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.index.gallery import GalleryIndex
from silo_app.index.ivf_gallery import MIN_VIEWS, IvfGallery, write_ivf
from silo_app.index.manifest import INDEX_FILE, VECTORS_FILE, GenerationInfo, IndexKind

__all__ = ["Storage", "Written"]


@dataclass(frozen=True, slots=True)
class Written:
    """What holds a generation's vectors: files of its folder, or a collection of Milvus."""

    kind: IndexKind
    files: tuple[str, ...] = ()
    collection: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """A silo's choice (`silo.yaml`, index); without one, files of FAISS."""

    settings: IndexSettings = field(default_factory=IndexSettings)
    kit: Path = Path()
    silo: str = ""

    @classmethod
    def of(cls, home: SiloHome) -> "Storage":
        """Return the choice of a silo."""
        return cls(home.config.index, home.kit, home.config.name)

    def kind_for(self, views: int) -> IndexKind:
        """Return how a gallery of so many views is held."""
        if self.settings.held_in == "milvus":
            return "milvus"
        return "ivf" if views > max(self.settings.exact_up_to, MIN_VIEWS) else "exact"

    def write(self, folder: Path, vectors: NDArray[np.float32]) -> Written:
        """Write unit vectors (n, D) for a generation in `folder`. Raises `NotReady` if Milvus does not answer."""
        kind = self.kind_for(len(vectors))
        if kind == "milvus":
            from silo_app.index.milvus_gallery import write_milvus

            return Written(kind, collection=write_milvus(self._milvus(), self.kit, self.silo, vectors))
        if kind == "ivf":
            write_ivf(folder / INDEX_FILE, folder / VECTORS_FILE, vectors)
            return Written(kind, (INDEX_FILE, VECTORS_FILE))
        write_faiss(folder / INDEX_FILE, vectors)
        return Written(kind, (INDEX_FILE,))

    def open(self, folder: Path, info: GenerationInfo, cases: NDArray[np.uint8]) -> GalleryIndex:
        """Open what `write` wrote, whatever the settings say by now. Raises `IndexDamaged`, `NotReady`."""
        if info.kind == "milvus":
            from silo_app.index.milvus_gallery import MilvusGallery

            return MilvusGallery.open(self._milvus(), self.kit, info.collection, info.dimension, cases)
        if info.kind == "ivf":
            return IvfGallery.open(folder / INDEX_FILE, folder / VECTORS_FILE, cases)
        return FaissGallery.open(folder / INDEX_FILE, cases)

    def has_lost(self, info: GenerationInfo) -> bool:
        """Return whether Milvus says that it does not have a generation's vectors; one that does not answer says nothing."""
        if info.kind != "milvus" or self.settings.milvus is None:
            return False
        from silo_app.index.milvus_gallery import has_collection

        try:
            return not has_collection(self.settings.milvus, self.kit, info.collection)
        except NotReady:
            return False

    def tidy(self, kept: set[str]) -> None:
        """Remove this silo's collections in Milvus that no generation names."""
        if self.settings.milvus is not None:
            from silo_app.index.milvus_gallery import drop_others

            drop_others(self.settings.milvus, self.kit, self.silo, kept)

    def collections(self) -> set[str]:
        """Return this silo's collections in Milvus; none where no server is named. Raises `NotReady`."""
        if self.settings.milvus is None:
            return set()
        from silo_app.index.milvus_gallery import collections_of

        return set(collections_of(self.settings.milvus, self.kit, self.silo))

    def _milvus(self) -> MilvusSettings:
        if self.settings.milvus is None:
            raise NotReady(
                "the index in use is in Milvus, and silo.yaml names no server",
                where="silo.yaml: index.milvus",
                remedy="Name the server. If it is gone for good, `silo index build` embeds every image again.",
            )
        return self.settings.milvus
