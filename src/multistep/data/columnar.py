"""Parquet -> tables, a column at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multistep.data.arrow import said_of_columns, texts_of
from multistep.data.strangers import what_else
from multistep.data.table import Table
from multistep.errors import DataError

_ROWS, _BUFFER = 500, 2**20  # that are held at once where a column is read value by value; bytes


def read_parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    def read(columns: list[str]) -> Any:
        try:
            return parquet.read_table(path, columns=columns)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a parquet file that can be read ({error})") from None

    def each(name: str) -> Iterator[object]:
        try:
            with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
                for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
                    yield from batch.column(0).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a parquet file that can be read ({error})") from None

    try:
        schema = parquet.read_schema(path)
        rows = int(parquet.read_metadata(path).num_rows)
    except (OSError, pyarrow.ArrowException) as error:
        if (what := what_else(path)) is not None:
            raise DataError(f"{path}: not a parquet file but {what}") from None
        raise DataError(f"{path}: not a parquet file that can be read ({error})") from None
    values = functools.cache(lambda name: read([name])[name].to_pylist())
    names, roles = said_of_columns(schema)
    return Table(str(path), texts_of(schema), range(1, rows + 1), "row", values, names, roles=roles, each_of=each)


def of_parquet(path: Path, part: Any, before: int) -> Table:
    """The table of a pyarrow.Table that holds some rows of a file, with so many before them."""
    values = functools.cache(lambda name: part[name].to_pylist())
    return Table(str(path), texts_of(part.schema), range(before + 1, before + 1 + part.num_rows), "row", values)
