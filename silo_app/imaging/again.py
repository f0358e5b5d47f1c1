"""Cached radiographs that were lost, decoded once more from the files that an ingest read them from.

For whoever needs them before the next ingest: sources are not listed, and the catalogue stays as it is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from silo_app.catalogue import Catalogue, SiloKey, Vault
from silo_app.config import FolderSource, SiloHome
from silo_app.errors import SiloscopeError
from silo_app.imaging.arriving import arriving
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import SECONDS_PER_FILE, only_one
from silo_app.imaging.pool import decode_all
from silo_app.imaging.sources import Source, SourceFile, open_source
from silo_app.imaging.worker import Request

__all__ = ["decode_again"]


def decode_again(home: SiloHome, digests: Sequence[str]) -> list[str]:
    """Decode what the cache lacks of these contents, as far as a file still has them; return those that it lacks still.

    All of them if an ingest runs, which decodes them itself, or if the silo's key or catalogue cannot be read.
    """
    cache = RadiographCache(home.cache)
    try:
        key = SiloKey.load(home.key)
        with only_one(home), Catalogue.open(home.catalogue, vault=Vault(key)) as catalogue:
            for digest in digests:
                if not cache.is_sound(digest):  # a damaged one would pass for what the file has
                    cache.discard(digest)
            made = set(_decoded(home, key, catalogue.files_holding(digests)))
            for digest in made:
                if catalogue.case_of_digest(digest) is None:  # the file has changed, or its study was taken out meanwhile
                    cache.discard(digest)
    except (SiloscopeError, OSError):
        pass
    return [digest for digest in digests if not cache.is_sound(digest)]


def _decoded(home: SiloHome, key: SiloKey, files: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Decode files into the cache; yield what is in it then."""
    sources = {name: source for name in {name for name, _, _ in files} if (source := _source(home, name))}
    todo: list[tuple[Source, SourceFile]] = []
    wanted: list[str] = []
    for name, path, digest in files:
        if name in sources:
            todo.append((sources[name], sources[name].named(path)))
            wanted.append(digest)
    imaging = home.config.imaging

    def request(index: int, path: object) -> Request:
        return Request(
            path=str(path),
            cache=str(home.cache),
            content_key=key.contents.hex,
            seconds=SECONDS_PER_FILE,
            known=wanted[index],
            burned_in=imaging.burned_in,
            ocr=imaging.ocr,
        )

    with arriving(todo, request, home.spool) as requests:
        for index, reply in enumerate(decode_all(requests)):
            settled = requests.settled(index, reply)
            if settled and "digest" in settled:
                yield settled["digest"]


def _source(home: SiloHome, name: str) -> Source | None:
    """Return the source that the catalogue calls so, if it is still one; folders need not be in silo.yaml."""
    try:
        for settings in home.config.sources:
            if not isinstance(settings, FolderSource) and settings.name == name:
                return open_source(home, settings)
        return open_source(home, FolderSource(path=Path(name))) if name.startswith("/") else None
    except SiloscopeError:
        return None
