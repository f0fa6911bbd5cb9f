"""Spreadsheets -> tables, read by pandas."""

from __future__ import annotations

import math
from pathlib import Path

from multistep.data.table import Table
from multistep.errors import DataError, PlanError


def read_sheet(path: Path) -> Table:
    """The first sheet of an .xlsx file, its first row the names of the columns. Raises DataError."""
    try:
        import openpyxl  # noqa: F401  # which pandas asks for in words of its own
        import pandas
    except ImportError as error:
        raise PlanError(f"{path}: reading .xlsx takes openpyxl ({error}); pip install 'multistep[excel]'") from error
    try:
        with pandas.ExcelFile(path) as book:
            names, frame = book.sheet_names, pandas.read_excel(book, sheet_name=0)
    except Exception as error:  # zip, XML and value errors of three libraries
        why = "parts of it are missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise DataError(f"{path}: not a spreadsheet that can be read ({why}); save it again, or as .csv") from None
    frame = frame.dropna(how="all")
    columns = {str(name): [_cell(value) for value in frame[name]] for name in frame.columns}
    left = f"{path}: read from its first sheet, '{names[0]}'; left out: {', '.join(map(str, names[1:]))}"
    is_text = {name: any(isinstance(cell, str) for cell in cells) for name, cells in columns.items()}
    numbers = [int(i) + 2 for i in frame.index]  # as the program that shows it counts
    notes = (left,) if len(names) > 1 else ()
    return Table(str(path), is_text, numbers, "row", columns.__getitem__, notes=notes)


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value
