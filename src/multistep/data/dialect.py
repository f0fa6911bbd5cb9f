"""How the fields of a text are set apart: by which character, with which quotes, under which names."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec

# The library stops at 128 KiB, shorter than many documents. For all who read tables, whoever of them comes first.
csv.field_size_limit(2**31 - 1)

HEAD = 200_000  # characters that are looked at
SHOWN_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_AT_ONCE = 2**20  # characters
_ROWS = 200  # of the beginning, by which delimiters are told apart
_TITLES = 10  # lines, at most, above a table
_WORDS = 4  # a field with as many, above fields with as many, is a text rather than a name
_NAMES_IN_QUOTES = re.compile(r'(?:"[^"]*(?:""[^"]*)*"\t)*"[^"]*(?:""[^"]*)*"(?:\n|\Z)')
_DIGITS = re.compile(r"[-+]?[\d.,;|eE+-]*\d[\d.,;|]*")  # a number, or several
_DISTINCT = 0.2  # of the rows, at most: values of a column that repeat as labels do
_USUAL = """
    id idx index guid uid text texts sentence sentence1 sentence2 label labels class category target title body review
    comment tweet message content description name path file filename file_name image image_path audio transcript
    transcription speaker split score rating stars sentiment polarity emotion topic intent question answer prompt
    completion response instruction input output context premise hypothesis query date time timestamp user username url
    lang language y x v1 v2
"""
USUAL = frozenset(_USUAL.split())  # names of columns


@dataclass(frozen=True)
class Reading:
    """What a user says of how tables are written; None: to be found."""

    delimiter: str | None = None
    header: bool | None = None
    encoding: str | None = None

    @classmethod
    def of(cls, data: DataSpec) -> Reading:
        return cls(data.delimiter, data.header, data.encoding)


@dataclass(frozen=True)
class Dialect:
    """How the rows of a file are written. `skip` lines stand above the first; `notes` say what was found."""

    delimiter: str
    quoting: int = csv.QUOTE_MINIMAL
    escape: str | None = None
    header: bool = True
    skip: int = 0
    spaces: bool = False  # behind a delimiter are none of the field
    notes: tuple[str, ...] = ()

    def reader(self, text: str) -> Any:
        """A csv reader of a text."""
        return self.reader_of(_lines(text))

    def reader_of(self, lines: Iterable[str]) -> Any:
        # strict, else an open quotation mark swallows the rest of the file
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=self.quoting,  # type: ignore[arg-type]
            escapechar=self.escape,
            doublequote=self.escape is None,
            skipinitialspace=self.spaces,
            strict=True,
        )


def _lines(text: str) -> Iterator[str]:
    """The lines of a text with their ends; StringIO takes four bytes a character, so that a long one goes in parts."""
    before = 0
    while before < len(text):
        cut = text.find("\n", before + _AT_ONCE) + 1 or len(text)
        yield from io.StringIO(text[before:cut], newline="")
        before = cut


def dialect_of(path: Path, head: str, kind: str, reading: Reading, *, whole: bool) -> Dialect:
    """The dialect of a .csv or .tsv file by its beginning; `whole` says whether that is all of it."""
    notes: list[str] = []
    skip, said = 0, reading.delimiter
    if (excel := re.match(r"sep=(.)\r?\n", head)) is not None:  # Excel's own line
        head, skip, said = head[excel.end() :], 1, said or excel[1]
    if not whole:
        head = head[: head.rfind("\n") + 1]
    if not skip and (skip := lines_above(head)):
        head = head.split("\n", skip)[-1]
        what = "line is left out, since it stands" if skip == 1 else f"{skip} lines are left out, since they stand"
        notes.append(f"{path}: the first {what} above the table")
    usual = "\t" if kind == ".tsv" else ","
    delimiter = said or _delimiter(head, usual)
    found = _quoted(Dialect(delimiter, skip=skip), head, plain=delimiter == "\t" and kind == ".tsv")
    if delimiter != usual and reading.delimiter is None:
        named = SHOWN_NAMES.get(delimiter, repr(delimiter))
        notes.append(f"{path}: fields are separated by {named}; data.delimiter=CHARACTER names another")
    if found.quoting != csv.QUOTE_NONE and delimiter == "\t" and kind == ".tsv" and not _NAMES_IN_QUOTES.match(head):
        notes.append(f"{path}: read with quoting, since without it the rows have different numbers of fields")
    rows = _first_rows(found, head)
    header = reading.header if reading.header is not None else not looks_like_data(rows)
    if not header and reading.header is None:
        notes.append(no_header_note(path, rows[0]))
    return replace(found, header=header, notes=tuple(notes))


def no_header_note(path: Path, first: Sequence[str]) -> str:
    """That the first line is a row."""
    shown = ", ".join(repr(cell if len(cell) <= 30 else cell[:30] + "...") for cell in first[:4])
    return (
        f"{path}: the first line looks like a row ({shown}), not like names of columns, so the columns are called "
        "'column 1', 'column 2' and so on; data.header=true takes it for names"
    )


def _delimiter(head: str, usual: str) -> str:
    """The character that cuts all first rows into as many fields, two or more; else the usual one."""
    if (alike := cutting_alike(head, usual)) is not None:
        return alike
    # Where none does, the first row may say more than the rest: its names hold no commas of their own.
    first = head.lstrip().split("\n", 1)[0]
    return usual if usual in first else next((c for c in (",", ";", "\t", "|") if c in first), usual)


def cutting_alike(head: str, usual: str = ",") -> str | None:
    """The character, the usual one first, that cuts all first rows into as many fields, two or more."""
    for candidate in dict.fromkeys((usual, ",", ";", "\t", "|")):
        rows = _first_rows(_quoted(Dialect(candidate), head, plain=candidate == "\t"), head)
        widths = {len(row) for row in rows}
        if len(widths) == 1 and min(widths) > 1:
            return candidate
    return None


def is_usual(name: str) -> bool:
    """Whether a field is what columns are called."""
    return name.strip().lower() in USUAL


def tells_labels(head: str, mark: str) -> bool:
    """Whether rows that a character cuts are of a table, rather than texts with as many commas each.

    They have usual names above them, or a column of a few different values of a few words, as labels are.
    """
    rows = _first_rows(_quoted(Dialect(mark), head, plain=mark == "\t"), head)
    if sum(map(is_usual, rows[0])) > 1:
        return True
    columns = [{*map(str.strip, column)} for column in zip(*rows[1:], strict=True)]
    few = max(2, _DISTINCT * (len(rows) - 1))
    return any(2 <= len(held) <= few and all(len(value.split()) < _WORDS for value in held) for held in columns)


def _quoted(dialect: Dialect, head: str, *, plain: bool) -> Dialect:
    """The dialect with the quotes under which the first rows have as many fields: in tab-separated files, where a
    quotation mark is a character more often than not, none, else those that are doubled, else those that are escaped.
    Where each name stands in quotation marks, they are meant as such in any file.
    """
    plain = plain and not _NAMES_IN_QUOTES.match(head)
    usual, none = dialect, replace(dialect, quoting=csv.QUOTE_NONE)
    escaped = replace(dialect, escape="\\")
    spaced = replace(dialect, spaces=True)
    tried = [none, usual] if plain else [usual, escaped] if '\\"' in head else [usual]
    if f'{dialect.delimiter} "' in head and f'{dialect.delimiter}"' not in head:
        tried = [spaced]  # quotation marks that would be taken for characters
    elif dialect.delimiter == "\t" and not plain:
        tried.append(none)
    for each in tried:
        rows = _first_rows(each, head)
        if rows and len({len(row) for row in rows}) == 1:
            return each
    return tried[0]


def lines_above(head: str) -> int:
    """How many lines stand above a table: titles and comments, of fewer fields than each of the many lines below."""
    lines = head.split("\n")[:_ROWS]
    for mark in (",", ";", "\t", "|"):
        counts = [len(row) for row in _first_rows(Dialect(mark), "\n".join(lines))]
        width = max(set(counts), key=counts.count, default=1)
        if width < 2 or len(lines) < 2 * _TITLES or not _is_title(lines[0], mark):
            continue
        for above in range(1, _TITLES + 1):
            if not _is_title(lines[above], mark):
                rows = [row for row in _first_rows(Dialect(mark), "\n".join(lines[above:])) if row]
                whole = {len(row) for row in rows} == {width} and all(map(str.strip, rows[0]))
                return above if whole and not looks_like_data(rows) else 0
    return 0


def _is_title(line: str, mark: str) -> bool:
    """Whether a line is a comment, or holds a single field: Excel writes the separators of the empty ones, too."""
    first, *others = line.split(mark)
    return first.startswith("# ") or (not any(map(str.strip, others)) and (bool(first.strip()) or not line.strip(mark)))


def is_row(fields: Sequence[str]) -> bool:
    """Whether a line holds more than spaces."""
    return len(fields) > 1 or bool(fields and fields[0].strip())


def _first_rows(dialect: Dialect, head: str) -> list[list[str]]:
    """The first rows; one of no field at the end where the quotes do not close."""
    rows: list[list[str]] = []
    reader = dialect.reader(head)
    try:
        for row in reader:
            if is_row(row):
                rows.append(row)
            if len(rows) == _ROWS:
                break
    except csv.Error:
        rows.append([])
    return rows


def looks_like_data(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is one like those below, instead of the names of the columns."""
    if len(rows) < 4 or any(len(row) != len(rows[0]) for row in rows):
        return False
    first, below = rows[0], list(zip(*rows[1:], strict=True))
    if any(map(is_usual, first)):
        return False
    if [name.strip() for name in first] == [str(i) for i in range(len(first))]:  # numbered columns
        return False
    alike = [_is_like(name, column) for name, column in zip(first, below, strict=True)]
    texts = [_is_text(name, column) for name, column in zip(first, below, strict=True)]
    return any(alike) or sum(texts) > 1


def _is_like(name: str, column: Sequence[str]) -> bool:
    """Whether a field of the first row is of the kind of those below it, as a name hardly is."""
    filled = [value.strip() for value in column if value.strip()]
    if not (name := name.strip()) or not filled:
        return False
    if _DIGITS.fullmatch(name):
        return all(map(_DIGITS.fullmatch, filled))
    return name in filled and len(set(filled)) <= max(2, _DISTINCT * len(filled))


def _is_text(name: str, column: Sequence[str]) -> bool:
    """Whether a field is as long as the texts below it; a question of a survey is none."""
    filled = [value.strip() for value in column if value.strip()]
    words = statistics.fmean([len(value.split()) for value in filled] or [0])
    return len(name.split()) >= _WORDS <= words and not name.strip().endswith(("?", ":"))


def is_number(value: str) -> bool:
    """Whether a field is a number, or nothing."""
    try:
        float(value or "0")
    except ValueError:
        return False
    return True
