"""Fields with something between them -> tables: .csv and .tsv."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from multistep.data.table import Table
from multistep.errors import DataError

# The library stops at 128 KiB, shorter than many documents. For all who read tables, whoever of them comes first.
csv.field_size_limit(2**31 - 1)


def separated(path: Path, names: str, text: str, before: int, *, tabs: bool) -> Table:
    """Some rows of a .csv or .tsv file below the line of its `names`, with so many lines before them in the file."""
    return read_separated(path, names + text, tabs=tabs, skipped=before - names.count("\n"))


def read_separated(path: Path, text: str, *, tabs: bool, skipped: int = 0) -> Table:
    """Tab-separated files are read without quoting, since there a quotation mark is a character more often than not.

    One that is not even then, and is with quoting, is read with it.
    """
    if not tabs:
        header, rows, numbers = _separated(path, text, ",", csv.QUOTE_MINIMAL, skipped)
    else:
        try:
            header, rows, numbers = _separated(path, text, "\t", csv.QUOTE_NONE, skipped)
        except DataError as problem:
            try:
                header, rows, numbers = _separated(path, text, "\t", csv.QUOTE_MINIMAL, skipped)
            except DataError:
                raise problem from None
            note = f"{path}: read with quoting, since without it the rows have different numbers of fields"
            return _of_rows(path, header, rows, numbers, (note,))
    return _of_rows(path, header, rows, numbers, ())


def _of_rows(path: Path, header: list[str], rows: list[list[str]], numbers: list[int], notes: tuple[str, ...]) -> Table:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:1: two columns are called '{twice}'; rename one")
    is_text = {name: not all(is_number(row[i]) for row in rows) for i, name in enumerate(header)}
    return Table(
        str(path), is_text, numbers, "line", lambda name: [row[header.index(name)] for row in rows], notes=notes
    )


def _separated(
    path: Path, text: str, delimiter: str, quoting: Any, skipped: int
) -> tuple[list[str], list[list[str]], list[int]]:
    """The names of the first line, the rows below it, and the line that each begins in; `skipped` lie between them."""
    # strict, else an open quotation mark swallows the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    header: list[str] | None = None
    began = 1
    try:
        for row in reader:
            line, began = began, reader.line_num + 1 + skipped
            if not row:
                continue
            if header is None:
                header = row
            elif len(row) != len(header):
                raise DataError(
                    f"{path}:{began - 1}: {len(row)} fields, but the first line names {len(header)}"
                    + ("" if delimiter == "\t" else '; put a text that holds commas between "quotation marks"')
                )
            else:
                rows.append(row)
                numbers.append(line)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + skipped}: not {path.suffix[1:]} ({error})") from None
    return header or [], rows, numbers


def is_number(value: str) -> bool:
    """Whether a field is a number, or nothing."""
    try:
        float(value or "0")
    except ValueError:
        return False
    return True
