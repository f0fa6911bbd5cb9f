"""The columns of a table, of which only the beginning is read."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.dialect import Reading
from multistep.data.folders import split_paths
from multistep.data.form import Form
from multistep.data.objects import table_in
from multistep.data.opening import opened
from multistep.data.pieces import read_pieces
from multistep.data.sets import is_hub_folder, is_saved_set, named_tables
from multistep.data.text import TABLES, kind_of, read_said
from multistep.data.walk import visible


def first_columns(data: DataSpec, form: Form) -> tuple[str, ...]:
    """The columns of the table that data are; none where they are no table, or cannot be read."""
    source = data.source or data.train or data.test or data.validation or ""
    try:
        source, _ = opened(source, form)
        files, _ = split_paths(source, form)
        paths = files.get("train") or next(iter(files.values()), [source])
        return _columns_of(paths[0], data, form)
    except (OSError, ValueError, EOFError, csv.Error, zlib.error):  # DataError is a ValueError
        return ()


def _columns_of(source: str, data: DataSpec, form: Form) -> tuple[str, ...]:
    source, _ = opened(source, form)
    path = Path(source).expanduser()
    if path.is_dir() and not is_saved_set(path) and not is_hub_folder(path):
        files = [p for p in visible(path) if p.is_file()]
        kind = next((kind for kind in (".txt", *form.kinds) if any(kind_of(p) == kind for p in files)), None)
        chosen = [p for p in files if kind_of(p) == kind and kind in form.tables]
        return _columns_of(str(chosen[0]), data, form) if chosen else ()
    if not path.is_file():
        named = named_tables(source)
        return next(iter(named.values())).names if named else ()
    kind = kind_of(path)
    if kind == ".parquet":
        from pyarrow import parquet

        return tuple(parquet.read_schema(path).names)
    if kind not in TABLES:
        return ()
    if kind == ".json":  # whose rows need not be lines
        table = table_in(path, read_said(path, data.encoding)[0])
        return table.names if table else ()
    return next(read_pieces(source, 1, Reading.of(data))).table.names
