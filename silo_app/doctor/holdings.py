"""What the silo holds and where it comes from: catalogue, cache, index, sources."""

import itertools
import sqlite3
from collections.abc import Callable
from typing import Any

from silo_app.catalogue import Catalogue, SiloKey
from silo_app.catalogue.schema import ANEW
from silo_app.config import SiloHome
from silo_app.doctor.checked import Checked, guarded, ok, problem, warning
from silo_app.errors import NotReady, ProcessFailed
from silo_app.policy.canaries import read_canaries

__all__ = ["cache", "catalogue", "index", "index_process", "planted", "sources"]

_SAMPLE = 100
_BUILD = "Run `silo index build`, or ask for the job `jobs/index`."
_PLANT = "Plant them anew (`silo audit plant`), by the ids that they have now; `silo audit unplant` takes the old ones away."
_SERVE = "Start it: `silo serve --silo KIT`; its log says why if it ends."
_KEY = "Restore silo.key and catalogue.db of the same backup: `silo ingest` goes on with no other key."
_INGEST = "Run `silo ingest`: it decodes again what is not in the cache."
_ANEW = "Look at the disk, delete {} and run `silo ingest`: it decodes everything again; nothing else is in there."

Reach = Callable[[SiloHome, Any], str]
"""Returns what was seen, raises one of our errors."""


def catalogue(home: SiloHome) -> Checked:
    """Check every page of the catalogue's file, every reference in it, and the key that it goes on with."""
    if not home.catalogue.is_file():
        return warning("catalogue", "there is none yet", "Run `silo ingest` to read the silo's images.")
    with Catalogue.open(home.catalogue) as opened:
        views, is_ours = opened.counts().views, opened.is_of(SiloKey.load(home.key).check)
    wrong = _integrity(home)
    if wrong:
        return problem("catalogue", wrong, ANEW)
    if not is_ours:
        return problem("catalogue", f"it was made with another key than {home.key}", _KEY)
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


def planted(home: SiloHome) -> Checked:
    """Compare the planted cases with the catalogue: one that has left it, or has another id by now, alerts nobody."""
    if not (cases := read_canaries(home.canaries)):
        return ok("planted cases", "none")
    with Catalogue.open(home.catalogue) as opened:
        held = opened.cards(sorted(cases))
    if gone := len(cases) - len(held):
        return problem(
            "planted cases", f"of {len(cases)} {gone} are not in the catalogue: who finds them gives no alert", _PLANT
        )
    return ok("planted cases", f"{len(cases)}, all in the catalogue")


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
            "cache",
            f"of {len(digests)} radiographs {missing} are missing, {damaged} of a sample damaged",
            _ANEW.format(home.cache) if damaged else _INGEST,  # an ingest reads nothing that is there
        )
    return ok("cache", f"{len(digests)} radiographs are there; a sample of them was read")


def index(home: SiloHome) -> Checked:
    """Open the generation in use, and compare it with the silo's encoder and catalogue. Raises as opening it does."""
    from silo_app.encoder.checkpoint import current_version
    from silo_app.index.generations import has_generations, open_current
    from silo_app.index.known import not_indexed
    from silo_app.index.storage import Storage

    try:
        current = current_version(home.models)
    except NotReady:
        return ok("index", "none: the silo has no encoder yet")
    if not has_generations(home.index):
        return warning("index", f"there is none yet; the encoder {current[:12]} is there", _BUILD)
    opened = open_current(home.index, Storage.of(home))
    info = opened.info
    seen = f"generation {info.generation}, {info.cases} cases"
    if opened.skipped:
        return problem("index", f"{seen}; damaged and not used: {', '.join(opened.skipped)}", _BUILD)
    if info.encoder_version != current:
        older = f"{seen}, of encoder {info.encoder_version[:12]}; the current one is {current[:12]}"
        return warning("index", f"{older}: hospitals that use that cannot search here", _BUILD)
    if missing := not_indexed(home, opened):
        return warning("index", f"{seen}; {missing} usable images are not in it", _BUILD)
    return ok("index", f"{seen}, of the current encoder {current[:12]}")


def index_process(home: SiloHome) -> Checked:
    """Ask the silo's index process which generation it answers from."""
    from silo_app.index.generations import encoder_in_use
    from silo_app.search.standing import open_generation

    if not (home.kit / "startup").is_dir():
        return ok("index process", "none is needed: this silo is not of a federation")
    try:
        generation = open_generation(home)
    except ProcessFailed as error:
        seen = f"it does not answer: {error.problem}"
        if encoder_in_use(home.index) is None:
            return warning("index process", f"{seen}; there is no index to search yet", _SERVE)
        return problem("index process", f"{seen}; nobody finds this silo's cases", _SERVE)
    if not generation:
        return warning("index process", "it answers, and has no index to search", _BUILD)
    return ok("index process", f"it answers from generation {generation}")


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
