"""Tables for people that lose nothing: what has no room is wrapped, then folded, and in a pipe there is room for all.

Rich cuts the ends of long words, of ids and digests that are there to be copied; and where there is no terminal, it takes
80 columns for one.
"""

from collections.abc import Collection, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import measure_renderables
from rich.segment import Segment
from rich.table import Table

__all__ = ["WholeTable", "data_screen"]

_WIDE = 10_000
"""Columns where there is no terminal: no line is so long."""
_READABLE = 8
"""A word may be folded after so many characters; after fewer only where all else has been."""
_GAP = 2
"""Columns between two columns of a table."""


def data_screen() -> Console:
    """Return the terminal that data are printed to, or a pipe or file that is as wide as they are."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=_WIDE)


class WholeTable(Table):
    """A table without lines of which no cell is ever cut: columns share the room by their longest words.

    What is in a column of `copied` (ids, digests) is folded only when nothing else is left to fold.
    """

    def __init__(self, *titles: str, copied: Collection[str] = (), gap: int = _GAP, **options: Any) -> None:
        super().__init__(*titles, box=None, pad_edge=False, padding=(0, gap, 0, 0), title_justify="left", **options)
        self._copied, self._gap = copied, gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give every column its width in this room, and render."""
        sizes = [
            measure_renderables(console, options, [*column.cells, *([column.header] if self.show_header else [])])
            for column in self.columns
        ]
        words = [size.minimum for size in sizes]
        short = [min(word, _READABLE) for word in words]
        is_copied = [column.header in self._copied for column in self.columns]
        folded = [word if whole else few for word, few, whole in zip(words, short, is_copied, strict=True)]
        room = options.max_width - self._gap * (len(sizes) - 1)
        widths = _shared([size.maximum for size in sizes], room, least=(words, folded, short, [1] * len(sizes)))
        for column, width in zip(self.columns, widths, strict=True):
            column.width, column.overflow = width, "fold"
        for line in Segment.split_lines(super().__rich_console__(console, options)):  # type: ignore[arg-type]  # it has no other
            yield from _without_end(line)
            yield Segment.line()


def _without_end(line: list[Segment]) -> list[Segment]:
    """Return a line without the blanks that fill its last column: in a pipe they may be hundreds."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else line


def _shared(widths: list[int], room: int, *, least: Sequence[Sequence[int]]) -> list[int]:
    """Return the widths that fit into the room: the widest column gives way first, down to its least of the first kind.

    Only when all columns are as narrow as that, they give way to their least of the second kind, and so on.
    """
    for floors in least:
        while sum(widths) > room and (yielding := [place for place, width in enumerate(widths) if width > floors[place]]):
            widths[max(yielding, key=widths.__getitem__)] -= 1
    return widths
