"""JSON -> tables: an object a line, a list of objects, or an object of columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multistep.data import exports, questions, records
from multistep.data.coco import is_of_coco, rows_of_coco
from multistep.data.flat import Flat
from multistep.data.names import COLUMNS, splits_among
from multistep.data.table import Table
from multistep.data.walk import few
from multistep.errors import DataError

_FEW_KEYS = 8  # of one object that may be as many rows: fewer are one row
_ENDING = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?|wav|flac|mp3|ogg|opus|m4a)$", re.IGNORECASE)
_SOUNDS = frozenset({"wav", "flac", "mp3", "ogg", "opus", "m4a"})
ALLOWED = "a list of objects, an object a line, or one of columns of equal length"


def read_objects(path: Path, text: str) -> Table:
    """The table of a JSON file, however its rows are written. Raises DataError, with the place."""
    found = table_in(path, text)
    if found is not None:
        return found
    return json_lines(path, text)


def table_in(path: Path, text: str) -> Table | None:
    """The table of a text that is one JSON value, or several that are an object a line; None of any other.

    A list of objects; {"data": [...]} or another single list of objects; lists of equal length by name; objects by
    name, as pandas writes a table by its index; lists of rows by split. Raises DataError for a list of something else.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return json_lines(path, text) if _begins_with_objects(text) else None
    if isinstance(value, Mapping) and (parts := _by_split(value)):
        rows = [{**row, COLUMNS[0]: name} for name, held in parts.items() for row in held]
        left = [name for name in value if name not in parts]
        table = _of_objects(path, rows, range(1, len(rows) + 1), "row")
        return (
            table.saying(f"{path}: left out, since their names are not those of splits: {few(left)}") if left else table
        )
    while isinstance(value, Mapping) and len(value) == 1 and _holds_a_list(inner := next(iter(value.values()))):
        value = inner  # {"rasa_nlu_data": {"common_examples": [...]}}
    if isinstance(value, Mapping) and is_of_coco(value):
        value = rows_of_coco(path, value)
    if isinstance(value, Mapping) and isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        value = [dict(zip(value["columns"], row, strict=False)) for row in value["data"] if isinstance(row, list)]
    if isinstance(value, Mapping):
        lists = [held for held in value.values() if isinstance(held, list) and held and isinstance(held[0], Mapping)]
        viewed = value.get("rows")
        if len(lists) == 1:
            value = lists[0]
        elif viewed in lists:
            value = viewed
        elif value and all(isinstance(held, list) for held in value.values()) and len({*map(len, value.values())}) == 1:
            return _of_columns(path, value)
        elif value and all(isinstance(held, Mapping) for held in value.values()):
            value = _of_mappings(value)
        elif (pairs := _pairs_in(value)) is not None:
            return _of_objects(path, pairs, range(1, len(pairs) + 1), "row")
        elif "\n" not in text.strip():
            return json_lines(path, text)  # one row
        else:
            return None
    if not isinstance(value, list):
        return None
    value = _listed_rows(value)
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise DataError(f'{path}: row {number}: not an object; each must be like {{"text": "..."}}')
    return _of_objects(path, value, range(1, len(value) + 1), "row")


def _holds_a_list(value: Any) -> bool:
    """Whether an object holds one list of objects, whatever it holds beside."""
    lists = [held for held in value.values() if isinstance(held, list)] if isinstance(value, Mapping) else []
    return sum(bool(held) and isinstance(held[0], Mapping) for held in lists) == 1


def _by_split(value: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split of {"train": [...], "test": [...]}, if it is that."""
    known = splits_among(value)
    if "train" not in known.values() or len(known) < 2:
        return {}
    parts = {name: _listed_rows(value[name]) for name in known if isinstance(value[name], list)}
    told = all(isinstance(row, dict) for rows in parts.values() for row in rows) and all(parts.values())
    return parts if told and len(parts) == len(known) else {}


def _pairs_in(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of one object with many keys: of a file or a text to what it is, or of a class to its texts; None of others.

    The columns are called by what is in them: `file`, `text`, `label`.
    """
    held = list(value.values())
    if len(value) > 1 and all(isinstance(each, list) for each in held):
        texts = all(isinstance(text, str) for each in held for text in each)
        return [{"text": text, "label": name} for name, each in value.items() for text in each] if texts else None
    if len(value) < _FEW_KEYS or not all(isinstance(each, str | int) for each in held):
        return None
    endings = [_ENDING.search(str(key)) for key in value]
    if all(endings):
        sounds = endings[0] is not None and endings[0][1].lower() in _SOUNDS
        return [{"file": key, "text" if sounds else "label": each} for key, each in value.items()]
    if all(" " in str(key).strip() for key in value) and len({*map(str, held)}) <= max(2, len(held) // 5):
        return [{"text": key, "label": each} for key, each in value.items()]
    return None


def _listed_rows(value: list[Any]) -> list[Any]:
    """Rows as objects: lists of one length by the number of the column, and {"row": {...}} by what is in it."""
    if value and all(isinstance(row, Mapping) and isinstance(row.get("row"), Mapping) for row in value):
        return [row["row"] for row in value]  # as the hub's viewer hands them out
    if value and all(isinstance(row, list) for row in value) and len({*map(len, value)}) == 1:
        return [{f"column {i + 1}": cell for i, cell in enumerate(row)} for row in value]
    return value


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


def _begins_with_objects(text: str) -> bool:
    """Whether the first two lines are an object each."""
    try:
        return all(isinstance(json.loads(line), dict) for line in text.strip().split("\n", 2)[:2])
    except json.JSONDecodeError:
        return False


def _of_mappings(value: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows from {"0": {"text": ...}, ...}, or from {"text": {"0": ...}, ...}, whose inner keys are the rows'."""
    inner = [tuple(held) for held in value.values()]
    by_column = len(value) < len(inner[0]) and len({*inner}) == 1
    if not by_column:
        return [dict(held) for held in value.values()]
    return [{name: held[row] for name, held in value.items()} for row in inner[0]]


def _of_columns(path: Path, value: Mapping[str, list[Any]]) -> Table:
    is_text = {name: any(isinstance(cell, str) for cell in held) for name, held in value.items()}
    rows = len(next(iter(value.values())))
    return Table(str(path), is_text, range(1, rows + 1), "row", value.__getitem__)


def _of_objects(path: Path, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], unit: str) -> Table:
    notes: tuple[str, ...] = ()
    if (flat := _flattened(path, rows)) is not None:
        rows, numbers, notes = flat.rows, [numbers[i] for i in flat.origins], flat.notes
    columns = dict.fromkeys(key for row in rows for key in row)
    # A column that mixes text with something else still counts: the error then names the row.
    is_text = {key: any(isinstance(row.get(key), str) for row in rows) for key in columns}
    return Table(str(path), is_text, numbers, unit, lambda name: [row.get(name) for row in rows], notes=notes)


def _flattened(path: Path, rows: Sequence[Mapping[str, Any]]) -> Flat | None:
    """The rows without their nests, where all are of one of the forms that are known here; None else.

    Texts, images and sounds keep the names of their columns; the class that somebody chose is in `label`, as a list
    where some rows have several, and None where nobody has chosen.
    """
    for is_such, flatten in (*exports.FORMS, *records.FORMS, *questions.FORMS):
        if rows and all(map(is_such, rows)):
            return flatten(path, rows)
    return None
