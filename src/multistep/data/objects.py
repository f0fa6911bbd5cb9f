"""JSON -> tables: an object a line, or a list of objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multistep.data.table import Table
from multistep.data.text import TABLES
from multistep.errors import DataError


def json_lines(path: Path, text: str, before: int = 0) -> Table:
    """The table of lines that are an object each, with so many lines of the file before them. Raises DataError."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), start=before + 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error.msg}, column {error.colno}); each line must be one object"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: not an object; each line must be like {{"text": "..."}}')
        rows.append(row)
        numbers.append(number)
    return _of_objects(path, rows, numbers, "line")


def json_list(path: Path, text: str) -> Table:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a table, since it is no list of objects; allowed: {', '.join(TABLES)}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f'{path}: row {number}: not an object; each must be like {{"text": "..."}}')
    return _of_objects(path, rows, range(1, len(rows) + 1), "row")


def _of_objects(path: Path, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], unit: str) -> Table:
    columns = dict.fromkeys(key for row in rows for key in row)
    # A column that mixes text with something else still counts: the error then names the row.
    is_text = {key: any(isinstance(row.get(key), str) for row in rows) for key in columns}
    return Table(str(path), is_text, numbers, unit, lambda name: [row.get(name) for row in rows])
