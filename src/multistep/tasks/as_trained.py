"""Other data for a finished model, read as its training data were where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec
from multistep.data.dialect import is_number, is_usual
from multistep.data.encodings import LOOKED_AT, find_encoding
from multistep.data.table import Table
from multistep.data.text import opened_bytes
from multistep.data.walk import files_below
from multistep.tasks.folders import read_task

ROOT = "root"
ROWS = 20  # of a table, by which it is seen where its files are
FILES = 20  # of a folder, by which it is seen how they are encoded
WORDS = 4  # a name of a column has fewer
NamesBy = Callable[[DataSpec], Sequence[str]]


def columns_of(model: str) -> Mapping[str, str]:
    """The columns that a model folder's training data were read by, and the `root` of their files where one was named,
    by the keys of a plan's data; none of others' folders.
    """
    about = read_task(model)
    root = (about.get("reading") or {}).get(ROOT)
    return {**(about.get("columns") or {}), **({ROOT: root} if root else {})}


def input_columns_of(model: str) -> list[str]:
    """The columns of training that also data without labels have."""
    columns = read_task(model).get("columns") or {}
    return [name for key, name in columns.items() if name and key != "label_column"]


def as_trained(data: DataSpec, columns: Mapping[str, str], table: Table) -> DataSpec:
    """The data with the columns that a model's training data were read by (by the keys of a plan's data), where a table
    has them and the data do not name others themselves; and with the root of their files, where they do not lie beside
    the table.
    """
    there: dict[str, Any] = {
        key: name for key, name in columns.items() if name in table.names and getattr(data, key, "") is None
    }
    if (root := columns.get(ROOT)) and data.root is None and Path(root).expanduser().is_dir() and not _beside(table):
        there[ROOT] = root
    return replace(data, **there)


def _beside(table: Table) -> bool:
    """Whether any of the first rows names a file below the table's folder."""
    first = table.take(range(min(ROWS, len(table))))
    cells = [cell for name in first.names for cell in first.values(name) if isinstance(cell, str) and len(cell) < 4096]
    folder = table.folder
    return folder is not None and any((folder / cell.strip()).is_file() for cell in cells if cell.strip())


def read_alike(data: DataSpec, model: str, names_by: NamesBy) -> DataSpec:
    """The data with the delimiter, header and encoding that training was told, where their own files do not tell them.

    A file's own look counts where `names_by`, which gives the columns of data as they say, finds those of training by
    it, or where the user says how to read them; so does UTF-8, which tells itself.
    """
    before = read_task(model).get("reading") or {}
    encoding = before.get("encoding")
    if encoding and data.encoding is None and not _is_unicode(data):
        data = replace(data, encoding=encoding)
    if data.delimiter is not None or data.header is not None:
        return data
    columns = input_columns_of(model)
    found = names_by(data)
    if columns and all(name in found for name in columns):
        return data
    header = before.get("header")
    if header is None and columns and all(name.startswith("column ") for name in columns) and any(map(_is_row, found)):
        header = False
    if header is False and any(map(is_usual, found)):
        header = None
    tried = replace(data, delimiter=before.get("delimiter"), header=header)
    if tried == data:
        return data
    names = names_by(tried)
    alone = header is False and len(names) == 1
    fits = alone or all(name in names for name in columns) if columns else len(names) >= len(found)
    return tried if fits and names else data


def _is_row(field: str) -> bool:
    """Whether what stands in the first line is a cell: a number or a text, rather than a name."""
    return (bool(field.strip()) and is_number(field)) or len(field.split()) >= WORDS


def _is_unicode(data: DataSpec) -> bool:
    """Whether the data's first files tell their encoding themselves; also where they are none of texts at all."""
    source = Path(data.source or data.test or data.validation or data.train or "").expanduser()
    files = [source] if source.is_file() else []
    if source.is_dir():
        files = [path for _, (path, _) in zip(range(FILES), files_below(source), strict=False)]
    return not any(map(_is_guessed, files))


def _is_guessed(path: Path) -> bool:
    try:
        with opened_bytes(path) as stream:
            found = find_encoding(stream.read(LOOKED_AT))
    except (OSError, EOFError):
        return False  # which whoever reads it says
    return found is None or found[1]
