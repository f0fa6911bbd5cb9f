"""The columns of a table, of which only the beginning is read."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from multistep.core.values.plan import DataSpec
from multistep.data.files import read_table
from multistep.data.folders import split_paths, visible
from multistep.data.form import Form
from multistep.data.sets import is_saved_set, named_tables
from multistep.data.text import TABLES, kind_of


def first_columns(data: DataSpec, form: Form) -> tuple[str, ...]:
    """The columns of the table that data are; none where they are no table, or cannot be read."""
    source = data.source or data.train or data.test or data.validation or ""
    try:
        files, _ = split_paths(source, form)
        paths = files.get("train") or next(iter(files.values()), [source])
        return _columns_of(paths[0], form)
    except (OSError, ValueError, EOFError, csv.Error, zlib.error):  # DataError is a ValueError
        return ()


def _columns_of(source: str, form: Form) -> tuple[str, ...]:
    path = Path(source).expanduser()
    if path.is_dir() and not is_saved_set(path):
        files = [p for p in visible(path) if p.is_file()]
        kind = next((kind for kind in (".txt", *form.kinds) if any(kind_of(p) == kind for p in files)), None)
        chosen = [p for p in files if kind_of(p) == kind and kind in form.tables]
        return _columns_of(str(chosen[0]), form) if chosen else ()
    if not path.is_file():
        named = named_tables(source)
        return next(iter(named.values())).names if named else ()
    kind = kind_of(path)
    if kind == ".parquet":
        from pyarrow import parquet

        return tuple(parquet.read_schema(path).names)
    if kind == ".json":
        return read_table(path).names if _first_line(path).startswith("[") else ()
    if kind not in TABLES:
        return ()
    first = _first_line(path)
    if kind in (".csv", ".tsv"):
        return tuple(next(csv.reader([first], delimiter="\t" if kind == ".tsv" else ",")))
    row = json.loads(first)
    return tuple(row) if isinstance(row, dict) else ()


def _first_line(path: Path) -> str:
    """The first line that is not empty, without a byte-order mark; "" if there is none."""
    opening: Callable[..., TextIO] = gzip.open if path.suffix.lower() == ".gz" else open
    with opening(path, "rt", encoding="utf-8-sig") as file:
        return next((line.strip() for line in file if line.strip()), "")
