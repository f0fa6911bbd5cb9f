"""Whatever a user calls "my images" -> items with labels: folders, manifests, arrays, Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.arrays import DIGITS, digits, idx_parts, npz_parts
from multistep.data.classes import class_folders
from multistep.data.folders import LISTS, stem_of, visible
from multistep.data.form import Form, Parts
from multistep.data.names import COLUMNS
from multistep.data.sources import read_file
from multistep.data.splits import given_splits
from multistep.data.table import Table
from multistep.data.text import TABLES, kind_of
from multistep.errors import DataError
from multistep.tasks.images.columns import group_column_of, image_column_of, label_column_of
from multistep.tasks.images.decode import SUFFIXES, Content
from multistep.tasks.images.items import Item

ALLOWED = "class folders of images, a manifest (.csv, .tsv, .jsonl), .npz, IDX files, or a Hugging Face image set"


def _arrays_of(path: Path, _: DataSpec) -> Parts | None:
    return npz_parts(path) if kind_of(path) == ".npz" else None


def _read_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    if parts := idx_parts(folder):
        return parts
    entries = visible(folder)
    lists = [path for path in entries if path.is_file() and kind_of(path) in (*TABLES, ".npz")]
    named = [path for path in lists if stem_of(path).lower() in LISTS and kind_of(path) in TABLES]
    if len(named) == 1:
        return read_file(named[0], data, form)
    if len(lists) == 1 and not any(path.is_dir() for path in entries):
        return read_file(lists[0], data, form)
    return {"": class_folders(folder, SUFFIXES, "images", form.allowed)}


FORM = Form(
    "images",
    ALLOWED,
    made={DIGITS: digits},
    read_file=_arrays_of,
    folder=_read_folder,
    describes=True,
    split_columns=(*COLUMNS, "set"),
)


def read_items(data: DataSpec) -> tuple[dict[str, list[Item]], list[str]]:
    """The items of each split that the source, or one for each split, names; and notes. Raises DataError."""
    if data.labels in ("classes", "number"):
        raise DataError(f"data.labels is '{data.labels}'; images have one class each: leave it out, or 'class'")
    tables, notes = given_splits(data, FORM)
    items, said = {}, list[str]()
    for split, table in tables.items():
        items[split], more = items_of(table, data)
        said += [*table.notes, *more]
    return items, list(dict.fromkeys([*said, *notes]))


def items_of(table: Table, data: DataSpec) -> tuple[list[Item], list[str]]:
    """The labelled images of a table, and which columns they are from. Raises DataError that names the row."""
    if not len(table):
        raise DataError(f"{table.origin}: no rows; each must name an image file and its label")
    image = image_column_of(table, data.path_column)
    label, group = label_column_of(table, image, data), group_column_of(table, image, data)
    names, known = table.class_names.get(label, ()), set(table.roles.values())
    groups = table.column(group) if group else [None] * len(table)
    cells = zip(table.column(image), table.column(label), groups, strict=True)
    items = []
    for row, (content, value, who) in enumerate(cells):
        where = table.place(row)
        held, shown = _content(content, table, where, image)
        items.append(Item(where + shown, _label(value, names, where, label), held, _mark(who)))
    if {image, label} <= known and not names:
        return items, []
    of = "images" if image in known else "image files"
    group_said = f", groups (each kept in one split) from '{group}'" if group else ""
    return items, [f"{table.origin}: {of} from '{image}', labels from '{label}'{group_said}"]


def _content(cell: object, table: Table, where: str, column: str) -> tuple[Content, str]:
    """An image or its file, and what is added to the place of its row."""
    if isinstance(cell, np.ndarray):
        return cell, ""
    if isinstance(cell, Mapping):
        held = cell.get("bytes")
        return held if held is not None else _path(str(cell.get("path") or ""), table), ""
    if (name := _mark(cell)) is None:
        raise DataError(f"{where}: '{column}' is empty; each row needs its image file: mend or remove it")
    return _path(name, table), "" if table.folder is None else f" ({name})"


def _path(name: str, table: Table) -> Path:
    return Path(name) if table.folder is None else table.folder / name


def _label(value: object, names: Sequence[str], where: str, column: str) -> str:
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    label = _mark(value)
    if label is None or (names and label.startswith("-")):
        raise DataError(f"{where}: '{column}' is empty; each row needs its label: mend or remove it")
    return label


def _mark(value: object) -> str | None:
    """A value as text; None where there is none."""
    return None if value is None or not str(value).strip() else str(value).strip()


def order_of(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by number where all are numbers, else by name."""
    names = set(labels)
    by_number = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if by_number else 0, name)))
