"""What stands for what is sought: a DICOM file, a case of the own silo, or what a UID of it names; and their vectors.

Only what the asking hospital holds: other hospitals hand out no embeddings. What its index holds already is not embedded
again, so that most searches by case or UID never load the network.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, Embedding, EncoderVersion, PatientKey, View
from silo_app.catalogue import Catalogue, SiloKey
from silo_app.catalogue.named import case_named, views_of_uid
from silo_app.config import SiloHome
from silo_app.encoder.region import Region
from silo_app.errors import CaseUnknown, CatalogueDamaged, ConfigInvalid, ImageUnsupported, NotReady
from silo_app.imaging.cache import RadiographCache, as_cached
from silo_app.imaging.content import read_bytes
from silo_app.index.known import known_vectors
from silo_app.search.own_encoder import asking_version, own_encoder
from silo_app.search.rocchio import mean_embedding

if TYPE_CHECKING:
    from silo_app.encoder.embed import LoadedEncoder
    from silo_app.imaging.header import Header

__all__ = ["OWN", "Example", "Examples", "Means"]

Radiograph = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Exactly one of a DICOM file or its content, a case id of the own silo (or its first 8 digits), a UID that it holds.

    Raises `ConfigInvalid` for none, or more than one.
    """

    file: Path | None = None
    content: bytes | None = field(default=None, repr=False)
    case: str = ""
    uid: str = field(default="", repr=False)
    """SOP or Study Instance UID; looked up by its pseudonym, and never sent, logged or printed."""
    name: str = field(default="", compare=False)
    """What an error calls a content that cannot be read."""

    def __post_init__(self) -> None:
        """Check it."""
        named = sum((self.file is not None, self.content is not None, bool(self.case), bool(self.uid)))
        if named != 1:
            raise ConfigInvalid(
                f"{named} things say what is sought, one is needed",
                where="query",
                remedy="Give a DICOM file, or a case id, or a UID.",
            )

    @property
    def source(self) -> Path | bytes | None:
        """The DICOM file, or its content; None for what the silo holds."""
        return self.content if self.file is None else self.file


def _read(source: Path | bytes) -> "tuple[Radiograph, Header]":
    from silo_app.imaging.header import header_of
    from silo_app.imaging.parse import dataset_of
    from silo_app.imaging.radiograph import naming, radiograph_of

    with naming(source):
        parsed = dataset_of(content := read_bytes(source))
        return as_cached(radiograph_of(parsed)), header_of(parsed, content)


def _catalogue(home: SiloHome) -> Catalogue:
    return Catalogue.open(home.catalogue)


@dataclass(frozen=True, slots=True)
class Means:
    """What images are read, embedded and looked up with: as usual here, or as a process keeps it ready."""

    encoder: Callable[[SiloHome, EncoderVersion | None], "LoadedEncoder"] = own_encoder
    """Gives a version, or the one in use (`own_encoder`)."""
    read: "Callable[[Path | bytes], tuple[Radiograph, Header]]" = _read
    """Gives a file's radiograph as the encoder sees it, float32 (H, W) in [0, 1], and its header. Raises
    `ImageUnsupported`."""
    catalogue: Callable[[SiloHome], AbstractContextManager[Catalogue]] = _catalogue
    """Gives the silo's catalogue for a look. Raises `NotReady`, `CatalogueDamaged`."""
    known: Callable[[SiloHome, EncoderVersion, Sequence[str]], dict[str, Embedding]] = known_vectors
    """Gives what the index holds of contents (`known_vectors`)."""


OWN = Means()


class Examples:
    """Examples found in a silo, all at once, and their vectors: of the encoder to ask with, as it was at first use.

    Raises `CaseUnknown` for one that the silo does not hold.
    """

    def __init__(self, home: SiloHome, examples: Sequence[Example], means: Means = OWN) -> None:
        self._home = home
        self._means = means
        self._read: dict[Example, tuple[Radiograph, Header]] = {}
        self._views = self._found([example for example in examples if example.source is None])

    @cached_property
    def version(self) -> EncoderVersion:
        """The encoder whose vectors these are. Raises `NotReady` if there is none."""
        if "encoder" in self.__dict__:
            return self.encoder.version
        return asking_version(self._home)

    @cached_property
    def encoder(self) -> "LoadedEncoder":
        """The encoder, loaded when it is first needed. Raises `NotReady`, `CheckpointInvalid`."""
        return self._means.encoder(self._home, self.__dict__.get("version"))

    def vectors(self, examples: Sequence[Example]) -> list[Embedding]:
        """Return unit vectors, float32 (D,) each; a case or study with several images has that of their mean.

        Raises `ImageUnsupported`, `NotReady`.
        """
        sources = [example for example in examples if example.source is not None]
        files = {example: self.encoder.radiographs([self._file(example)[0]])[0] for example in sources}
        known = self._of_views([view for example in examples for view in self._views.get(example, ())])
        return [
            files[example] if example in files else mean_embedding([known[view.digest] for view in self._views[example]])
            for example in examples
        ]

    def region_vector(self, example: Example, region: Region) -> Embedding:
        """Return the unit vector of a region of an example's one image. Raises `ConfigInvalid` if it has several."""
        from silo_app.encoder.places import region_embedding

        image = self.image(example)
        if image is None:
            raise ConfigInvalid(
                f"this case has {len(self._views[example])} images, and a region is of one",
                where="region",
                remedy="Name the image by its SOP Instance UID, or give its file.",
            )
        return region_embedding(self.encoder, image, region)

    def image(self, example: Example) -> Radiograph | None:
        """Return an example's image, float32 (H, W) in [0, 1]; None if it has several.

        Raises `ImageUnsupported`, or `NotReady` for one that is not in the cache.
        """
        if example.source is not None:
            return self._file(example)[0]
        views = self._views[example]
        return RadiographCache(self._home.cache).read(views[0].digest) if len(views) == 1 else None

    def image_if_cached(self, example: Example) -> Radiograph | None:
        """Return what `image` does, to be looked at; None as well for one that is not in the cache."""
        try:
            return self.image(example)
        except NotReady:  # the next ingest makes it anew; what is searched for is there without it
            return None

    def case(self, example: Example) -> CaseId | None:
        """Return the silo's case that an example names, None for a file."""
        return None if example.source is not None else self._views[example][0].case

    @property
    def cases_of_files(self) -> frozenset[CaseId]:
        """The silo's cases that hold the images of the files that were read, by their UIDs; none without a catalogue."""
        from silo_app.imaging.apply import keys_of

        if not self._read:
            return frozenset()
        try:
            key = SiloKey.load(self._home.key)
            instances = [keys_of(key, header).instance for _, header in self._read.values()]
            with self._means.catalogue(self._home) as catalogue:
                return frozenset(view.case for one in instances for view in catalogue.views_keyed(instance=one))
        except (NotReady, CatalogueDamaged):  # whoever holds nothing, or cannot read it, may ask by a file all the same
            return frozenset()

    def patients_cases(self, example: Example) -> list[CaseId]:
        """Return the silo's cases of an example's patient: of a file, whom its header names, ingested or not."""
        patient = self._views[example][0].patient if example.source is None else self._patient_of_file(example)
        with self._means.catalogue(self._home) as catalogue:
            return catalogue.patient_cases(patient)

    def _patient_of_file(self, example: Example) -> PatientKey:
        from silo_app.imaging.apply import keys_of

        return keys_of(SiloKey.load(self._home.key), self._file(example)[1]).patient

    def _found(self, examples: Sequence[Example]) -> dict[Example, list[View]]:
        """Return the views of cases and UIDs, at least one each. Raises `CaseUnknown`."""
        if not examples:
            return {}
        with self._means.catalogue(self._home) as catalogue:
            found = {}
            for example in examples:
                if example.uid:
                    found[example] = views_of_uid(catalogue, SiloKey.load(self._home.key), example.uid)
                    continue
                found[example] = catalogue.views_of(case_named(catalogue, example.case))
                if not found[example]:
                    raise CaseUnknown(
                        "no image of this case is held any more",
                        where=example.case,
                        remedy="Search with another case, or with a file.",
                    )
            return found

    def _file(self, example: Example) -> "tuple[Radiograph, Header]":
        """Read a file or its content, once."""
        if example not in self._read and example.source is not None:
            try:
                self._read[example] = self._means.read(example.source)
            except ImageUnsupported as error:
                error.where = error.where or example.name
                raise
        return self._read[example]

    def _of_views(self, views: Sequence[View]) -> dict[str, Embedding]:
        """Return unit vectors by digest: from the silo's index, or embedded now from the cached radiographs."""
        digests = sorted({view.digest for view in views})
        if not digests:
            return {}
        known = self._means.known(self._home, self.version, digests)
        missing = [digest for digest in digests if digest not in known]
        if missing:
            cache = RadiographCache(self._home.cache)
            fresh = self.encoder.radiographs([cache.read(digest) for digest in missing])
            known |= dict(zip(missing, fresh, strict=True))
        return {digest: np.asarray(vector / np.linalg.norm(vector), np.float32) for digest, vector in known.items()}
