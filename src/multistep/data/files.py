"""A file that holds a table -> the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from multistep.data.columnar import read_parquet
from multistep.data.objects import json_lines, json_list
from multistep.data.separated import read_separated
from multistep.data.table import Table
from multistep.data.text import TABLES, existing_file, kind_of, read_text
from multistep.errors import DataError


def read_table(path: Path) -> Table:
    """The table of a .jsonl, .ndjson, .csv, .tsv, .parquet or .json file; all but .parquet may end in .gz.

    A .json file must hold a list of objects, each a row. The first line of .csv and .tsv names the columns.
    Raises DataError, with the place in the file.
    """
    return replace(_read(path), folder=path.parent)


def _read(path: Path) -> Table:
    kind = kind_of(path)
    if kind == ".parquet":
        return read_parquet(existing_file(path))
    text = read_text(path)
    if kind in (".jsonl", ".ndjson"):
        return json_lines(path, text)
    if kind in (".csv", ".tsv"):
        return read_separated(path, text, tabs=kind == ".tsv")
    if kind == ".json":
        return json_list(path, text)
    raise DataError(f"{path}: not a table; allowed: {', '.join(TABLES)}")
