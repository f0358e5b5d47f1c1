"""How a CSV of labels is laid out: which column names the image, which hold findings, and what an absence means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from silo_app.cases import Finding
from silo_app.config import CsvLabels
from silo_app.settings.labels import Said, Uncertain

__all__ = ["CsvLayout", "layout_of"]


def _whole(text: str) -> list[str]:
    return [text]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvLayout:
    """How one kind of CSV is read."""

    name: str
    """What a label's provenance calls it: a preset and its version, or "csv"."""
    about: str = ""
    key_kind: str
    """A kind of `table.Key`."""
    key_column: str
    key_parts: int = 1
    key_prefix: str = ""
    words_column: str = ""
    """The column of names; "" if findings have columns of their own."""
    split: Callable[[str], list[str]] = _whole
    """Takes a cell of names apart."""
    mapping: Mapping[str, Finding | None] = field(default_factory=dict)
    """Local name: finding, or None for one that is known and has no shared name."""
    value_columns: Mapping[str, Finding | None] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    """Columns that not every edition of the file has."""
    values: Mapping[str, Said] = field(default_factory=dict)
    also: Mapping[Finding, tuple[Finding, ...]] = field(default_factory=dict)
    """What a finding says about others: a data set with one label for two names of the vocabulary."""
    void: frozenset[str] = frozenset()
    """Names (folded) that say that a row is of no use."""
    mute: frozenset[str] = frozenset()
    """Names (folded) that say nothing of themselves, such as "unchanged"."""
    scope: tuple[Finding, ...] = ()
    normal_scope: tuple[Finding, ...] = ()
    """What "No Finding" says to be absent, beyond the scope."""
    uncertain: Uncertain = Uncertain.IGNORE
    reader_column: str = ""
    """Who read the image, where several people did; "" if one row, or one set of boxes, speaks for all. A file without
    this column is one reader's, or a consensus."""
    many_rows: bool = False
    """Whether several rows of one key belong together (boxes); if not, they must say the same."""
    free_words: bool = False
    """Whether words are from no published list: where none of them is known, they may be misspelt, and deny nothing."""
    blank_speaks: bool = False
    """Whether an empty cell of names means that nothing was found."""
    delimiter: str = ","
    encoding: str = "utf-8"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that there must be."""
        named = (self.key_column, self.words_column, *self.value_columns)
        return tuple(column for column in named if column and column not in self.optional)


def layout_of(settings: CsvLabels) -> CsvLayout:
    """Return the layout that a silo's own configuration describes."""
    separator = settings.separator
    return CsvLayout(
        name="csv",
        key_kind=settings.key,
        key_column=settings.key_column,
        words_column="" if settings.columns else settings.findings_column,
        split=lambda text: text.split(separator),
        mapping=settings.mapping,
        value_columns=settings.columns,
        values=settings.values,
        scope=settings.scope,
        normal_scope=tuple(finding for finding in settings.columns.values() if finding is not Finding.NO_FINDING),
        uncertain=settings.uncertain,
        free_words=True,
        blank_speaks=True,
        delimiter=settings.delimiter,
        encoding=settings.encoding,
    )
