"""Sources that are no more: folders that were moved, archives that were taken out of silo.yaml or have another name there.

What only they have stays in the silo, as what does not answer does. What a source that is there has as well is known by that
one alone: else an image would stay though the one source that is left gave it up or corrected it.
"""

from collections.abc import Iterable
from pathlib import Path

from silo_app.config import FolderSource, SiloHome, load

__all__ = ["left_behind"]


def left_behind(home: SiloHome, known: Iterable[str], asked: Iterable[str]) -> list[str]:
    """Return those of the known sources, by name, that are no more; none that is asked now, or that silo.yaml names."""
    there = set(asked)
    for source in (*home.config.sources, *load(home.kit).config.sources):  # the command line may have named others
        there.add(str(home.resolve(source.path)) if isinstance(source, FolderSource) else source.name)
    return [name for name in known if name not in there and (not name.startswith("/") or _is_no_more(Path(name)))]


def _is_no_more(folder: Path) -> bool:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # nobody lets us look
        return False
    return False
