"""What the silo holds and where it comes from: catalogue, cache, sources."""

import itertools
import sqlite3
from collections.abc import Callable
from typing import Any

from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.doctor.checked import Checked, guarded, ok, problem, warning

__all__ = ["cache", "catalogue", "sources"]

_SAMPLE = 100
_INGEST = "Run `silo ingest`: it decodes again what is not in the cache."

Reach = Callable[[SiloHome, Any], str]
"""Returns what was seen, raises one of our errors."""


def catalogue(home: SiloHome) -> Checked:
    """Check every page of the catalogue's file, and every reference in it."""
    if not home.catalogue.is_file():
        return warning("catalogue", "there is none yet", "Run `silo ingest` to read the silo's images.")
    with Catalogue.open(home.catalogue) as opened:
        views = opened.counts().views
    wrong = _integrity(home)
    if wrong:
        return problem("catalogue", wrong, "Restore it from a backup, or move it away and run `silo ingest` again.")
    return ok("catalogue", f"sound; {views} usable images")


def _integrity(home: SiloHome) -> str:
    connection = sqlite3.connect(f"file:{home.catalogue}?mode=ro", uri=True)
    try:
        said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        dangling = len(connection.execute("PRAGMA foreign_key_check").fetchall())
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()
    return (str(said) if said != "ok" else "") or (f"{dangling} rows refer to nothing" if dangling else "")


def cache(home: SiloHome) -> Checked:
    """Look for every image's radiograph, and read some of them whole."""
    from silo_app.imaging.cache import RadiographCache

    if not home.catalogue.is_file():
        return ok("cache", "nothing to hold yet")
    held = RadiographCache(home.cache)
    with Catalogue.open(home.catalogue) as opened:
        digests = [view.digest for view in opened.views()]
    missing = sum(digest not in held for digest in digests)
    damaged = 0
    for digest in itertools.islice(digests, 0, None, max(1, len(digests) // _SAMPLE)):
        if digest in held and not held.is_sound(digest):
            damaged += 1
    if missing or damaged:
        return problem(
            "cache", f"of {len(digests)} radiographs {missing} are missing, {damaged} of a sample damaged", _INGEST
        )
    return ok("cache", f"{len(digests)} radiographs are there; a sample of them was read")


def sources(home: SiloHome, reach: Reach | None = None) -> list[Checked]:
    """Try to reach each source that the configuration names, with the credentials that it names."""
    if not home.config.sources:
        return [warning("sources", "none is named", "Name where your images come from under `sources` in local/silo.yaml.")]
    found = []
    for number, source in enumerate(home.config.sources):
        name = f"source {getattr(source, 'name', '') or number + 1} ({source.kind})"
        found.append(guarded(name, lambda source=source, name=name: _reached(home, source, name, reach)))  # type: ignore[misc]
    return found


def _reached(home: SiloHome, source: Any, name: str, reach: Reach | None) -> Checked:
    from silo_app.imaging.sources.reach import reach as with_our_credentials

    return ok(name, (reach or with_our_credentials)(home, source))
