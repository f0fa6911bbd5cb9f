"""Fields with something between them -> tables: .csv, .tsv and their kin."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from multistep.data.dialect import HEAD, Dialect, Reading, dialect_of, is_number
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
    for i, name in enumerate(header):
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
            if not row:
                continue
            fields = fields or len(row)
            if len(row) != fields:
                names = "the first line names" if dialect.header else "the first line has"
                raise DataError(
                    f"{path}:{began - 1}: {len(row)} fields, but {names} {fields}"
                    + ('; put a text that holds commas between "quotation marks"' if dialect.delimiter == "," else "")
                )
            rows.append(row)
            numbers.append(line)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + before}: not {path.suffix[1:]} ({error})") from None
    return rows, numbers
