"""Frames, lists and mappings -> one table of Arrow columns; images and sounds in them become files in bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multistep.data.media import Kind, encoded, is_array, is_missing, is_of, media_of
from multistep.errors import DataError

NAMES: Mapping[Kind, tuple[str, str]] = {  # of columns that have none
    "text": ("text", "label"),
    "image": ("image", "label"),
    "sound": ("audio", "text"),
}
ALLOWED = (
    "a pandas or polars DataFrame, a pyarrow Table, a list of dicts, a dict of columns, (inputs, labels), or a Hugging "
    "Face Dataset or DatasetDict"
)
_SCALARS = (str, bytes, int, float, bool, type(None))


def columns_of(keyword: str, given: Any, kind: Kind) -> tuple[Any, dict[str, Kind]]:
    """A pyarrow.Table, and which of its columns hold images or sounds as {bytes, path}. Raises DataError."""
    import pyarrow

    columns, media = {}, {}
    for name, values in _columns(keyword, given, kind).items():
        columns[name], holds = _column(f"{keyword}: column '{name}'", values, kind)
        if holds:
            media[name] = holds
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"'{name}' {length:,}" for name, length in lengths.items())
        raise DataError(f"{keyword}: columns must have equal lengths; these have {told} values")
    return pyarrow.table(columns), media


def pair_of(given: Any) -> tuple[Any, Any] | None:
    """(inputs, labels), or a mapping of these two: whole columns, rather than two rows."""
    if isinstance(given, Mapping) and len(given) == 2:
        deeper, other = sorted(given.values(), key=lambda part: -len(part.shape) if is_array(part) else 0)
        return deeper, other
    if (
        isinstance(given, tuple)
        and len(given) == 2
        and not any(isinstance(part, (*_SCALARS, Mapping)) for part in given)
    ):
        return given[0], given[1]
    return None


# Columns --------------------------------------------------------------------------------------------


def _columns(keyword: str, given: Any, kind: Kind) -> dict[str, Any]:
    """The columns by name, each a sequence of values."""
    import pyarrow

    pandas = sys.modules.get("pandas")
    if pandas and isinstance(given, pandas.DataFrame):
        if any(name is not None and name not in given.columns for name in given.index.names):
            given = given.reset_index()  # an index that has a name is a column by its right
        named = [str(name) for name in given.columns]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise DataError(f"{keyword}: two columns are called '{twice}'; rename one")
        return {name: given.iloc[:, place] for place, name in enumerate(named)}
    if isinstance(given, pyarrow.Table | pyarrow.RecordBatch):
        return dict(zip(given.schema.names, given.columns, strict=True))
    if is_of("polars", "DataFrame", given):
        return {str(column.name): _of_polars(column) for column in given.get_columns()}
    if hasattr(given, "collect_schema") and hasattr(given, "collect"):  # a lazy frame of polars
        return _columns(keyword, given.collect(), kind)
    if (pandas and isinstance(given, pandas.Series)) or is_of("polars", "Series", given):
        return _of_rows(keyword, list(given), kind)
    if hasattr(given, "__arrow_c_stream__"):
        table = pyarrow.table(given)
        return dict(zip(table.schema.names, table.columns, strict=True))
    if isinstance(given, Mapping):
        return {str(name): values for name, values in given.items()}
    if (pair := pair_of(given)) is not None:
        return dict(zip(NAMES[kind], pair, strict=True))
    if isinstance(given, str | bytes) or not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise DataError(f"{keyword} is a {type(given).__name__}; allowed: {ALLOWED}, or the path of a file or folder")
    return _of_rows(keyword, given, kind)


def _of_rows(keyword: str, given: Any, kind: Kind) -> dict[str, Any]:
    rows = [given[i] for i in range(len(given))]
    if not rows:
        raise DataError(f"{keyword}: there are no rows in it")
    first = next((row for row in rows if row is not None), None)
    for number, row in enumerate(rows, start=1):
        if type(row) is not type(first) and not (isinstance(row, Mapping) and isinstance(first, Mapping)):
            raise DataError(
                f"{keyword}: row {number} is a {type(row).__name__}, but others are {type(first).__name__}s; make all "
                "rows alike"
            )
    if isinstance(first, Mapping):
        names = dict.fromkeys(str(name) for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
    if isinstance(first, tuple | list) and all(len(row) == 2 for row in rows):
        found = {name: [row[i] for row in rows] for i, name in enumerate(NAMES[kind])}
        classes = getattr(given, "classes", None)  # torchvision's data sets name what their numbers mean
        if classes and all(isinstance(value, int) and 0 <= value < len(classes) for value in found[NAMES[kind][1]]):
            found[NAMES[kind][1]] = [str(classes[value]) for value in found[NAMES[kind][1]]]
        return found
    if isinstance(first, str):
        return {NAMES[kind][0]: rows}
    raise DataError(f"{keyword}: a list of {type(first).__name__}s; allowed: {ALLOWED}")


def _of_polars(column: Any) -> Any:
    return column.to_list() if str(column.dtype) == "Object" else column.to_arrow()


# Values ---------------------------------------------------------------------------------------------


def _column(where: str, values: Any, kind: Kind) -> tuple[Any, Kind | None]:
    """A column as an Arrow array, and what it holds where that is images or sounds."""
    import pyarrow

    if isinstance(values, pyarrow.Array | pyarrow.ChunkedArray):
        found = values
    else:
        if isinstance(values, str | bytes) or not (isinstance(values, Sequence) or hasattr(values, "dtype")):
            raise DataError(f"{where} is {values!r:.40}; a column is a sequence with a value for each row")
        objects = isinstance(values, Sequence) or getattr(values.dtype, "kind", "") == "O"
        looked_at = values if objects or len(values.shape) > 2 else ()  # numbers are neither images nor sounds
        first = next((value for value in looked_at if not is_missing(value)), None)
        if (holds := media_of(first, kind)) is not None:
            return encoded(where, list(values), holds), holds
        found = _array(where, values)
    if pyarrow.types.is_dictionary(found.type):
        found = found.cast(found.type.value_type)
    if pyarrow.types.is_string(found.type):  # some libraries make these, some the others: the rows are the same
        found = found.cast(pyarrow.large_string())
    if kind != "text" and pyarrow.types.is_large_string(found.type):
        found = _absolute(found)
    return found, None


def _array(where: str, values: Any) -> Any:
    import pyarrow

    if is_array(values) and not hasattr(values, "iloc"):
        array = np.asarray(values)
        values = list(array) if array.ndim > 1 else array
    try:
        found = pyarrow.array(values, from_pandas=True)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} {_why_not(list(values), error)}; make all values alike, or leave it out") from None
    if isinstance(found.type, pyarrow.BaseExtensionType):  # pandas' periods and intervals
        raise DataError(f"{where} holds {values.dtype} values, which no file can hold; make texts or numbers of them")
    return found


def _why_not(values: Sequence[Any], error: Exception) -> str:
    """What is wrong with the values of a column: the first of another type than those before it."""
    kinds: dict[type, tuple[int, Any]] = {}
    for number, value in enumerate(values, start=1):
        if not is_missing(value):
            kinds.setdefault(type(value), (number, value))
    told = [f"row {number} is {value!r:.40} ({kind.__name__})" for kind, (number, value) in list(kinds.items())[:2]]
    if len(told) < 2:
        told.append(str(error).splitlines()[0])
    return f"cannot be kept in a file: {', '.join(told)}"


def _absolute(texts: Any) -> Any:
    """Paths of files from here; the table will lie elsewhere. Texts that are no such paths stay as they are."""
    import pyarrow

    values = texts.to_pylist()
    some = [value for value in values if value][:5]
    if not some or not all(_is_file(value) for value in some):
        return texts
    return pyarrow.array([value and os.path.abspath(Path(value).expanduser()) for value in values], texts.type)  # noqa: PTH100


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, an unknown user
        return False
