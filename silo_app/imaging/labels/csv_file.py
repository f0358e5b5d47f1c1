"""A CSV of labels -> what each of its keys says; whatever is odd is an issue with its line and column."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from silo_app.cases import Finding
from silo_app.catalogue.records import Label, Origin
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels.layout import CsvLayout
from silo_app.imaging.labels.statement import Statement, agreed, labels_of, stronger, united
from silo_app.imaging.labels.table import Issue, Key, LabelTable, image_name
from silo_app.imaging.labels.vocabulary import Terms, folded
from silo_app.settings.labels import Said

__all__ = ["read_csv", "rows_of"]

MAX_ISSUES = 200
"""Issues that are kept; of a file that is wrong everywhere the first ones tell enough."""


@dataclass(slots=True)
class _Reading:
    """What is gathered while a file is read."""

    layout: CsvLayout
    terms: Terms
    said: dict[Key, dict[str, list[tuple[int, Statement]]]] = field(default_factory=lambda: defaultdict(dict))
    """By key and reader: lines and what they say."""
    issues: list[Issue] = field(default_factory=list)
    issue_count: int = 0
    rows: int = 0

    def odd(self, line: int, column: str, problem: str, *, fatal: bool = False) -> None:
        """Write down an issue; fatal ones are never dropped for want of room."""
        self.issue_count += 1
        if len(self.issues) < MAX_ISSUES or (fatal and not any(issue.fatal for issue in self.issues)):
            self.issues.append(Issue(line, column, problem, fatal))


def read_csv(layout: CsvLayout, path: Path, content: bytes, origin: Origin) -> LabelTable:
    """Read a label file's content. Raises `LabelsInvalid` for one that has not the columns of the layout."""
    reading = _Reading(layout, Terms(layout.mapping))
    for line, row in rows_of(path, content, layout, layout.columns):
        reading.rows += 1
        _take(reading, line, row)
    if not reading.said and not any(issue.fatal for issue in reading.issues):
        raise LabelsInvalid("the file has no line with a key", where=str(path), remedy="Give a CSV with labels.")
    source = f"{path.name}:{layout.words_column or 'columns'}"
    keys = _decided(reading, source, origin)
    return LabelTable(
        path=path,
        origin=origin,
        keyed_by=f"column {layout.key_column}, taken as {layout.key_kind}",
        keys=keys,
        parts=layout.key_parts,
        rows=reading.rows,
        unmapped=reading.terms.unmapped,
        outside=reading.terms.outside,
        issues=tuple(sorted(reading.issues)),
        issue_count=reading.issue_count,
    )


def rows_of(
    path: Path, content: bytes, layout: CsvLayout, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield (line, row) of a CSV; a row with too few or too many cells has None in every column.

    Raises `LabelsInvalid` for a wrong encoding, a file that is no CSV, and missing or repeated columns.
    """
    text = io.StringIO(_decoded(path, content, layout.encoding), newline="")
    reader = csv.reader(text, delimiter=layout.delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(path, header, columns, layout.delimiter)
        for cells in reader:
            if not cells:
                continue
            whole = len(cells) == len(header)
            yield reader.line_num, {name: cells[number] if whole else None for number, name in enumerate(header)}
    except csv.Error as error:
        place = f"{path}:{reader.line_num}"
        raise LabelsInvalid(f"this is not a CSV file: {error}", where=place, remedy="Save it as CSV.") from None


def _take(reading: _Reading, line: int, row: dict[str, str | None]) -> None:
    layout = reading.layout
    value = row[layout.key_column]
    if value is None:
        reading.odd(line, "", "the line has more or fewer cells than the header", fatal=True)
        return
    key = _key(layout, value.strip())
    if key is None:
        reading.odd(line, layout.key_column, "the key is empty, or has too few parts")
        return
    statement = _values(reading, line, row) if layout.value_columns else _words(reading, line, row)
    if statement.contradicts_itself:
        reading.odd(line, layout.words_column, '"No Finding" stands beside a finding, and counts for nothing')
    reader = (row.get(layout.reader_column) or "").strip() if layout.reader_column else ""
    earlier = reading.said[key].setdefault(reader, [])
    _compare(reading, line, statement, earlier)
    earlier.append((line, statement))


def _key(layout: CsvLayout, value: str) -> Key | None:
    if layout.key_kind == "image":
        value = image_name(value, layout.key_parts) if value else ""
    return Key(layout.key_kind, layout.key_prefix + value) if value else None


def _words(reading: _Reading, line: int, row: dict[str, str | None]) -> Statement:
    layout = reading.layout
    words = [word.strip() for word in layout.split(row[layout.words_column] or "") if word.strip()]
    if {folded(word) for word in words} & layout.void:
        return Statement(silent=True)
    if words and {folded(word) for word in words} <= layout.mute:
        return Statement(silent=True)
    if not words and not layout.blank_speaks:
        reading.odd(line, layout.words_column, "the cell is empty; the line says nothing")
        return Statement(silent=True)
    found = [(reading.terms.finding(word), word) for word in words if folded(word) not in layout.mute]
    if layout.free_words and found and not any(reading.terms.knows(word) for _, word in found):
        return Statement(silent=True)
    return _with_also(layout, {finding: (Said.PRESENT, word) for finding, word in found if finding is not None})


def _values(reading: _Reading, line: int, row: dict[str, str | None]) -> Statement:
    layout = reading.layout
    said: dict[Finding, tuple[Said, str]] = {}
    for column, finding in layout.value_columns.items():
        if column not in row:
            continue
        value = (row[column] or "").strip()
        if value not in layout.values:
            reading.odd(line, column, "the value is none of " + ", ".join(repr(known) for known in layout.values))
        what = layout.values.get(value, Said.UNKNOWN)
        if finding is None:
            reading.terms.outside[column] += what is Said.PRESENT
        elif what is not Said.UNKNOWN and not (finding is Finding.NO_FINDING and what is Said.ABSENT):
            said[finding] = stronger(said.get(finding, (what, column)), (what, column))
    return _with_also(layout, said)


def _with_also(layout: CsvLayout, said: dict[Finding, tuple[Said, str]]) -> Statement:
    for finding, others in layout.also.items():
        if finding in said:
            said |= dict.fromkeys(others, said[finding])
    return Statement(said)


def _compare(reading: _Reading, line: int, statement: Statement, earlier: list[tuple[int, Statement]]) -> None:
    """Report a line that says otherwise than an earlier one of the same key and reader."""
    layout = reading.layout
    column = layout.words_column or layout.key_column
    for number, other in earlier[:1]:
        if not layout.many_rows and (_plain(other), other.silent) != (_plain(statement), statement.silent):
            problem = f"says otherwise than line {number}, which has the same {layout.key_column}"
            reading.odd(line, column, problem, fatal=True)
        elif layout.many_rows and other.of(Said.PRESENT) & statement.of(Said.ABSENT):
            reading.odd(line, column, f"denies what line {number} of the same {layout.key_column} says")
    if layout.many_rows and earlier:
        normal = [Finding.NO_FINDING in one.of(Said.PRESENT) for one in (earlier[0][1], statement)]
        if normal[0] != normal[1]:
            reading.odd(line, column, f'"No Finding" on one of lines {earlier[0][0]} and {line} of one {layout.key_column}')


def _plain(statement: Statement) -> dict[Finding, Said]:
    return {finding: what for finding, (what, _) in statement.said.items()}


def _decided(reading: _Reading, source: str, origin: Origin) -> dict[Key, tuple[Label, ...]]:
    """Return the labels of every key; what is said alike is decided once, since most rows say one of a few things."""
    layout = reading.layout
    known: dict[tuple[frozenset[tuple[Finding, tuple[Said, str]]], bool], tuple[Label, ...]] = {}
    keys = {}
    for key, by_reader in reading.said.items():
        readers = [_one_reader([statement for _, statement in lines]) for lines in by_reader.values()]
        whole = agreed(readers, layout.scope) if layout.reader_column else readers[0]
        content = (frozenset(whole.said.items()), whole.silent)
        if content not in known:
            known[content] = labels_of(
                whole,
                scope=layout.scope,
                normal_scope=layout.normal_scope,
                uncertain=layout.uncertain,
                source=source,
                origin=origin,
            )
        keys[key] = known[content]
    return keys


def _one_reader(statements: list[Statement]) -> Statement:
    return statements[0] if len(statements) == 1 else united(statements)


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8"}
    mark = next((name for begin, name in marks.items() if content.startswith(begin)), "")
    if mark and mark != encoding and not (mark == "utf-8" and encoding != "utf-16"):
        raise LabelsInvalid(
            f"the file begins like one in {mark.upper()}, and is to be read as {encoding.upper()}",
            where=str(path),
            remedy=f"Set `encoding: {mark}` under `labels` in local/silo.yaml, or save it as CSV in UTF-8.",
        )
    try:
        return content.decode("utf-8-sig" if "utf-8" in {mark, encoding} else encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabelsInvalid(
            f"the label file is not {encoding.upper()} (byte {error.start}, line {line})",
            where=str(path),
            remedy="Save it as CSV in UTF-8, or set `encoding` under `labels` in local/silo.yaml.",
        ) from None


def _check_columns(path: Path, header: Sequence[str], wanted: Sequence[str], delimiter: str) -> None:
    missing = [name for name in dict.fromkeys(wanted) if name not in header]
    shown = ", ".join(column[:40] for column in list(header)[:20]) or "none"
    if missing:
        other = next((sign for sign in (";", "\t", ",", "|") if sign != delimiter and sign in "".join(header)), "")
        hint = f"Perhaps columns are separated by {other!r}: set `delimiter`. " if other and len(header) == 1 else ""
        raise LabelsInvalid(
            f"there is no column {' and no column '.join(missing)}; the columns are: {shown}",
            where=f"{path}:1",
            remedy=f"{hint}Correct the columns of `labels` in local/silo.yaml, the preset, or the header line.",
        )
    repeated = sorted({name for name in wanted if header.count(name) > 1})
    if repeated:
        raise LabelsInvalid(
            f"the column {', '.join(repeated)} stands in the header more than once",
            where=f"{path}:1",
            remedy="Keep one column of each name.",
        )
