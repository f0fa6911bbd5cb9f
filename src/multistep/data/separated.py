"""Fields with something between them -> tables: .csv, .tsv and their kin."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from multistep.data.dialect import HEAD, Dialect, Reading, dialect_of, is_number, is_row
from multistep.data.strangers import tagged_words
from multistep.data.table import Table
from multistep.errors import DataError


def read_separated(path: Path, text: str, kind: str, reading: Reading) -> Table:
    """The table of a whole file. Raises DataError, with the line, for rows of another length than the first."""
    dialect = dialect_of(path, text[:HEAD], kind, reading, whole=len(text) <= HEAD)
    lines = text.split("\n", dialect.skip)[-1]
    rows, numbers = _rows(path, lines, dialect, dialect.skip)
    if not rows:
        raise DataError(f"{path}: the file is empty; name one with rows in it")
    if not dialect.header:
        return table_of(path, unnamed(len(rows[0])), rows, numbers, dialect)
    return table_of(path, names_of(path, rows[0], dialect), rows[1:], numbers[1:], dialect)


def unnamed(columns: int) -> list[str]:
    """Names for columns that have none."""
    return [f"column {i + 1}" for i in range(columns)]


def names_of(path: Path, header: Sequence[str], dialect: Dialect) -> list[str]:
    """The names of the columns as the first row gives them; a second empty one is called by its number."""
    names: list[str] = []
    for i, name in enumerate(map(str.strip, header)):
        if name in names and name.strip():
            raise DataError(f"{path}:{dialect.skip + 1}: two columns are called '{name}'; rename one")
        names.append(f"column {i + 1}" if name in names else name)
    return names


def rows_below(path: Path, names: Sequence[str], text: str, dialect: Dialect, before: int) -> Table:
    """Some rows of a file, with so many lines of it above them. Raises DataError, with the line."""
    rows, numbers = _rows(path, text, dialect, before, len(names))
    return table_of(path, names, rows, numbers, dialect)


def table_of(
    path: Path, names: Sequence[str], rows: Sequence[list[str]], numbers: Sequence[int], dialect: Dialect
) -> Table:
    where = {name: i for i, name in enumerate(names)}
    is_text = {name: not all(is_number(row[i]) for row in rows) for name, i in where.items()}
    # What nobody named and nobody filled is a separator too many at the end of each line.
    for name, i in where.items():
        if name in ("", f"column {i + 1}") and dialect.header and not any(row[i].strip() for row in rows):
            del is_text[name]
    return Table(
        str(path), is_text, numbers, "line", lambda name: [row[where[name]] for row in rows], notes=dialect.notes
    )


def _rows(
    path: Path, text: str, dialect: Dialect, before: int, fields: int | None = None
) -> tuple[list[list[str]], list[int]]:
    """The rows of a text and the line that each begins in, `before` lines above it; all have as many fields."""
    reader = dialect.reader(text)
    rows: list[list[str]] = []
    numbers: list[int] = []
    began = before + 1
    try:
        for row in reader:
            line, began = began, reader.line_num + 1 + before
            if not is_row(row):
                continue
            fields = fields or len(row)
            if len(row) != fields:
                raise DataError(_ragged(path, began - 1, len(row), fields, text, dialect))
            rows.append(row)
            numbers.append(line)
    except csv.Error as error:
        raise DataError(
            f"{path}:{began}: the quotation marks of this row do not close where a field ends ({error}, in line "
            f"{reader.line_num + before}); write one inside a text twice"
        ) from None
    return rows, numbers


def _ragged(path: Path, line: int, found: int, wanted: int, text: str, dialect: Dialect) -> str:
    """What to say of a row that has another number of fields than the first."""
    where = f"{path}:{line}: {found} {'field' if found == 1 else 'fields'}, but"
    if (tagged := tagged_words(text)) is not None:
        return f"{path}: {tagged}"
    if wanted == 1:
        return (
            f"{where} the first line has 1: no comma, semicolon, tab or bar cuts all lines alike; say what stands "
            "between the fields with data.delimiter=CHARACTER, or save the file as .csv with quotation marks"
        )
    names = "the first line names" if dialect.header else "the first line has"
    commas = 'put a text that holds commas between "quotation marks"'
    return f"{where} {names} {wanted}; {commas if dialect.delimiter == ',' else 'mend the line'}"
