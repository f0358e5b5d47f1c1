"""What a silo's index holds already: embeddings, by the content that they were made of, and views, with their cases."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CASE_BYTES, EncoderVersion
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.errors import IndexDamaged, NotReady
from silo_app.hex_rows import hex_rows, row_values
from silo_app.index.generations import Generation, encoder_in_use, open_current
from silo_app.index.manifest import CASES_FILE, DIGESTS_FILE, read_manifest, read_rows
from silo_app.index.storage import Storage

__all__ = ["contents_of", "generation_of", "indexed", "known_vectors", "missing_from", "not_indexed", "vectors_of"]


_GONE = "If the server is gone for good, take index.milvus out of silo.yaml: then every image is embedded again."


def known_vectors(
    home: SiloHome, version: EncoderVersion, digests: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return what the generation in use holds of these contents, or of all: float32 (D,) by digest, as it is stored.

    Nothing if it was made with another encoder, or there is none that can be read. Half precision loses nothing twice.
    """
    generation = generation_of(home, version)
    return vectors_of(generation, digests) if generation else {}


def generation_of(home: SiloHome, version: EncoderVersion, *, must_answer: bool = False) -> Generation | None:
    """Return the generation in use, verified and open, if it can be read and this encoder made it.

    With `must_answer`, raises `NotReady` if its vectors are in Milvus, and the server that silo.yaml names does not answer.
    """
    try:
        generation = open_current(home.index, Storage.of(home))
    except IndexDamaged:
        return None
    except NotReady as error:
        if must_answer and home.config.index.milvus is not None and encoder_in_use(home.index) == version:
            raise NotReady(error.problem, where=error.where, remedy=f"{error.remedy} {_GONE}") from None
        return None
    return generation if generation.info.encoder_version == version else None


def not_indexed(home: SiloHome, generation: Generation) -> int:
    """Return how many views of the catalogue are not in a generation; none where there is no catalogue."""
    if not home.catalogue.is_file():
        return 0
    with Catalogue.open(home.catalogue) as catalogue:
        return missing_from(contents_of(generation), catalogue.contents())


def indexed(root: Path, name: str, version: EncoderVersion) -> NDArray[np.uint8] | None:
    """Return a generation's contents, as `contents_of` does, or None if this encoder did not make it.

    As it says of itself: no gallery is opened, and nothing is compared with its digest. Raises `IndexDamaged`.
    """
    folder, info = root / name, read_manifest(root / name)
    if info.encoder_version != version:
        return None
    digests = read_rows(folder / DIGESTS_FILE, (info.views, 32))
    cases = read_rows(folder / CASES_FILE, (info.views, CASE_BYTES))
    return np.hstack([digests, cases])


def contents_of(generation: Generation) -> NDArray[np.uint8]:
    """Return digest and case of each view in a generation, uint8 (n, 48)."""
    return np.hstack([generation.digests, generation.gallery.row_cases])


def vectors_of(generation: Generation, digests: Sequence[str] | None = None) -> dict[str, NDArray[np.float32]]:
    """Return what a generation holds of these contents, or of all, as `known_vectors` does."""
    rows = np.arange(generation.info.views)
    if digests is not None:
        wanted = hex_rows(digests, 32)
        rows = np.flatnonzero(np.isin(row_values(generation.digests), row_values(wanted)))
    vectors = generation.gallery.vectors(rows.astype(np.int64))
    return {row.tobytes().hex(): vector for row, vector in zip(generation.digests[rows], vectors, strict=True)}


def missing_from(indexed: NDArray[np.uint8], contents: Iterable[Sequence[str]]) -> int:
    """Return how many views, given in blocks as digest and case id in one, are none of the indexed, uint8 (n, 48).

    An image under another case is missing too: no query finds it. A catalogue that was lost, and filled by ingest again,
    or an older copy of it, has other cases of the same images.
    """
    known = np.sort(row_values(indexed))
    missing = 0
    for block in contents:
        asked = row_values(hex_rows(block, 48))
        place = np.minimum(np.searchsorted(known, asked), max(0, len(known) - 1))
        missing += len(asked) - (int(np.count_nonzero(known[place] == asked)) if len(known) else 0)
    return missing
