"""Spreadsheets -> tables, read by pandas."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from multistep.data.dialect import Reading, looks_like_data, no_header_note
from multistep.data.names import COLUMNS, splits_among
from multistep.data.table import Table, joined
from multistep.errors import DataError, PlanError

Cells = Sequence[Sequence[object]]
_TITLES = 20  # rows, at most, above a table
_LOOKED_AT = 50  # rows, for how many cells one has


def read_sheet(path: Path, reading: Reading = Reading()) -> Table:  # noqa: B008  # a frozen value
    """The sheets of an .xlsx file that are named for splits, with a column `split`; else the first that holds a table.

    Titles above the names of the columns are left out. Raises DataError.
    """
    try:
        import openpyxl  # noqa: F401  # which pandas asks for in words of its own
        import pandas
    except ImportError as error:
        raise PlanError(f"{path}: reading .xlsx takes openpyxl ({error}); pip install 'multistep[excel]'") from error
    try:
        with pandas.ExcelFile(path) as book:
            frames = pandas.read_excel(
                book, sheet_name=None, header=None, keep_default_na=False, na_values=[""]
            )  # "None" and "NA" are classes of some; who reads labels knows what is none
    except Exception as error:  # zip, XML and value errors of three libraries
        why = "parts of it are missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise DataError(f"{path}: not a spreadsheet that can be read ({why}); save it again, or as .csv") from None
    sheets = {str(name): [[_cell(v) for v in row] for row in frame.to_numpy(object)] for name, frame in frames.items()}
    splits = splits_among(sheets)
    if len(splits) > 1 and "train" in splits.values():
        return _of_splits(path, [(split, name, sheets[name]) for name, split in splits.items()], reading)
    name = next((name for name, cells in sheets.items() if _width(cells) > 1), next(iter(sheets)))
    others = [other for other in sheets if other != name]
    which = "first sheet" if name == next(iter(sheets)) else "sheet"
    left = f"{path}: read from its {which}, '{name}'; left out: {', '.join(others)}"
    return _table(path, sheets[name], reading).saying(*([left] if others else []))


def _of_splits(path: Path, sheets: Sequence[tuple[str, str, Cells]], reading: Reading) -> Table:
    tables = []
    for split, name, cells in sheets:
        table = _table(path, cells, reading)
        tables.append(replace(_with_column(table, COLUMNS[0], split), place_of=_place(path, name, table)))
    return joined(str(path), tables)


def _place(path: Path, name: str, table: Table) -> Callable[[int], str]:
    return lambda row: f"{path}: sheet '{name}', row {table.numbers[row]}"


def _with_column(table: Table, name: str, value: object) -> Table:
    values = table.values
    return replace(
        table,
        is_text={**table.is_text, name: True},
        values=lambda wanted: [value] * len(table) if wanted == name else values(wanted),
    )


def _table(path: Path, cells: Cells, reading: Reading) -> Table:
    """The table of one sheet."""
    width = _width(cells)
    filled = [i for i, row in enumerate(cells) if any(value is not None for value in row)]
    if not filled:
        raise DataError(f"{path}: its first sheet is empty; name a file with rows in it")
    # A title stands in one cell, the names of several columns in several.
    first = next((i for i in filled[:_TITLES] if width < 2 or _count(cells[i]) > 1), filled[0])
    titles = [i + 1 for i in filled if i < first]
    rows = [i for i in filled if i > first]
    notes = (
        [f"{path}: rows left out, since they stand above the table: {', '.join(map(str, titles))}"] if titles else []
    )
    names = [_name(value, i) for i, value in enumerate(cells[first])]
    header = reading.header
    if header is None:
        shown = [["" if value is None else str(value) for value in cells[i]] for i in (first, *rows)]
        if not (header := not looks_like_data(shown)):
            notes.append(no_header_note(path, shown[0]))
    if not header:
        names, rows = [f"column {i + 1}" for i in range(len(cells[first]))], [first, *rows]
    columns = {name: [cells[i][place] for i in rows] for place, name in enumerate(names)}
    unnamed = {name for place, name in enumerate(names) if cells[first][place] is None and header}
    columns = {name: held for name, held in columns.items() if name not in unnamed or any(v is not None for v in held)}
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: row {first + 1}: two columns are called '{twice}'; rename one")
    is_text = {name: any(isinstance(cell, str) for cell in held) for name, held in columns.items()}
    texts = {name: [_text(cell) for cell in held] if is_text[name] else held for name, held in columns.items()}
    numbers = [i + 1 for i in rows]  # as the program that shows it counts
    return Table(str(path), is_text, numbers, "row", texts.__getitem__, notes=tuple(notes))


def _width(cells: Cells) -> int:
    """How many cells most rows fill."""
    counts = Counter(count for row in cells[:_LOOKED_AT] if (count := _count(row)))
    return max(counts, key=lambda count: (counts[count], count), default=0)


def _count(row: Sequence[object]) -> int:
    return sum(value is not None for value in row)


def _name(value: object, place: int) -> str:
    return f"Unnamed: {place}" if value is None else _text(value) or ""


def _text(value: object) -> str | None:
    """A cell of a column of texts, as it would stand in a .csv."""
    if value is None or isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "NaT":
        return None
    return value.item() if hasattr(value, "item") else value
