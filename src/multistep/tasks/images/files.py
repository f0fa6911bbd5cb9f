"""Whatever a user calls "my images" -> items with labels: folders, manifests, arrays, Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.archives import is_archive, stem_of_archive, unpacked
from multistep.data.arrays import DIGITS, digits, idx_parts, npz_parts, pixel_table, pixels_of
from multistep.data.class_names import is_class_list
from multistep.data.classes import SPLIT, class_folders, labels_beside
from multistep.data.dialect import Reading
from multistep.data.files import read_table
from multistep.data.folders import LISTS, is_submission, stem_of
from multistep.data.form import Form, Parts
from multistep.data.labelled import is_labelled, labelled
from multistep.data.names import COLUMNS
from multistep.data.paths import files_of, naming_column
from multistep.data.sources import by_column, read_file, rows_of_folder
from multistep.data.splits import given_splits
from multistep.data.strangers import boxes_beside
from multistep.data.table import Table, joined, quoted
from multistep.data.text import COLUMNAR, existing_file, kind_of
from multistep.data.walk import visible
from multistep.errors import DataError
from multistep.tasks.images.columns import group_column_of, image_column_of, is_pixels, pixels_in, unlabelled
from multistep.tasks.images.decode import SUFFIXES, Content
from multistep.tasks.images.items import Item, Label
from multistep.tasks.images.labels import (
    Beside,
    Names,
    kind_told,
    labels_of,
    names_beside,
    names_classes,
    several_in,
    values_of,
)
from multistep.tasks.labelled.fields import is_missing
from multistep.tasks.labelled.labels import Labels

ALLOWED = (
    "class folders of images, a manifest (.csv, .tsv, .jsonl), images inside .parquet or .arrow, .npz, IDX files, an "
    "archive of these (.zip, .tar.gz), or a Hugging Face image set"
)


def _unheaded(path: Path, _: DataSpec) -> Parts | None:
    """Arrays, or a text file that names an image and its label a line."""
    if kind_of(path) == ".npz":
        return npz_parts(path)
    return None if (table := labelled(path, SUFFIXES)) is None else {"": table}


def _names_images(path: Path) -> bool:
    return is_labelled(path, SUFFIXES)


def _pixels_of(path: Path, _: DataSpec) -> Parts | None:
    table = pixel_table(existing_file(path)) if kind_of(path) == ".csv" else None
    return None if table is None else {"": table}


def _read_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    if parts := idx_parts(folder):
        return parts
    entries = visible(folder)
    lists = [path for path in entries if path.is_file() and kind_of(path) in (*form.tables, ".npz")]
    lists = [path for path in lists if not is_submission(path) and not is_class_list(path)]
    lists = [path for path in lists if kind_of(path) != ".json"] or [p for p in lists if not names_classes(p)]
    named = [path for path in lists if stem_of(path).lower() in LISTS and kind_of(path) in form.tables]
    if len(named) == 1:
        return read_file(named[0], data, form)
    if len(lists) == 1 and not any(path.is_dir() for path in entries):
        return read_file(lists[0], data, form)
    if lists and {kind_of(path) for path in lists} <= COLUMNAR and not any(path.is_dir() for path in entries):
        return rows_of_folder(folder, data, form)  # shards
    naming = [path for path in lists if kind_of(path) in form.tables and _names_files(path, data)]
    if len(naming) > 1:
        raise DataError(
            f"{folder}: {quoted(path.name for path in naming)} all name images here; name one of them with --data, or "
            "call them train, validation and test"
        )
    if naming:
        return read_file(naming[0], data, form)
    listing = [path for path in entries if _names_images(path)]
    if len(listing) == 1:
        return read_file(listing[0], data, form)
    if (table := _of_webdataset(folder, entries)) is not None:
        return {"": table}
    table = class_folders(folder, SUFFIXES, "images", form.allowed)
    return by_column(table, data, form) if SPLIT in table.names else {"": table}


def _of_webdataset(folder: Path, entries: list[Path]) -> Table | None:
    """Images with a .cls beside each, in the folder or in the numbered archives that it holds; None without such."""
    shards = [path for path in entries if is_archive(path) and stem_of_archive(path)[-1:].isdigit()]
    if len(shards) < 2:
        return labels_beside(folder, SUFFIXES)
    tables = [table for path in shards if (table := labels_beside(unpacked(path), SUFFIXES)) is not None]
    return joined(str(folder), tables) if len(tables) == len(shards) else None


def _names_files(path: Path, data: DataSpec) -> bool:
    try:
        table = read_table(path, Reading.of(data))
    except DataError:
        if kind_of(path) == ".json":  # which need be no table
            return False
        raise
    return naming_column(table, table.names, SUFFIXES, data.root) is not None


FORM = Form(
    "images",
    ALLOWED,
    items=(*SUFFIXES, ".npz", *(f"-idx{i}-ubyte{gz}" for i in (1, 3) for gz in ("", ".gz"))),
    made={DIGITS: digits},
    read_file=_unheaded,
    own_table=_pixels_of,
    folder=_read_folder,
    describes=True,
    split_columns=(*COLUMNS, "set", "usage"),
    names_items=_names_images,
)


def read_items(data: DataSpec) -> tuple[dict[str, list[Item]], Labels, list[str]]:
    """The items of each split that the source, or one for each split, names; what labels are; and notes.

    One class an image has no names yet. Raises DataError.

    A split without labels, as the test split of a competition is, is left aside, and a note says so.
    """
    tables, notes = given_splits(data, FORM)
    items, said = {}, list[str]()
    items["train"], labels, more = items_of(tables["train"], data)
    said += [*tables["train"].notes, *more]
    for split, table in tables.items():
        if split == "train":
            continue
        if why := unlabelled(table, data, tables["train"]):
            said += [*table.notes, f"{split}: {why}, so it is left aside"]
            continue
        items[split], _, more = items_of(table, data, labels)
        said += [*table.notes, *more]
    return items, labels, list(dict.fromkeys([*said, *notes]))


def items_of(table: Table, data: DataSpec, like: Labels | None = None) -> tuple[list[Item], Labels, list[str]]:
    """The labelled images of a table, what their labels are, and which columns they are from.

    `like` is what labels are in training, or to a model. Raises DataError that names the row.
    """
    if not len(table):
        raise DataError(f"{table.origin}: no rows; each must name an image file and its label")
    if table.names == ("file",):
        where = f"{table.origin}: {len(table):,} images but no class folders"
        raise DataError(f"{where}; allowed: {ALLOWED}{boxes_beside(table)}")
    image = image_column_of(table, data)
    told, group = labels_of(table, image, data, like), group_column_of(table, image, data)
    known = set(table.roles.values())
    groups = table.column(group) if group else [None] * len(table)
    contents, said = _contents(table, image, data)
    names = told.names or names_beside(table, told.values)
    labels, guessed = (like, []) if like is not None else kind_told(told, table, names, data)
    places = [table.place(row) for row in range(len(table))]
    if labels.kind == "class":
        given = [_label(value, names, place, told.column) for place, value in zip(places, told.values, strict=True)]
        guessed += several_in(table, told) if data.labels == "auto" else []
    else:
        given = values_of(labels, told, table, data)
    cells = table.column(image)
    items = []
    for row, (content, label, who) in enumerate(zip(contents, given, groups, strict=True)):
        shown = f" ({cells[row]})" if isinstance(content, Path) and image not in known else ""
        items.append(Item(places[row] + shown, label, content, _mark(who)))
    said += guessed
    if told.known and not told.names:
        return items, labels, said
    of = "images" if image in known or not any(isinstance(item.content, Path) for item in items) else "image files"
    group_said = f", groups (each kept in one split) from '{group}'" if group else ""
    named = f"; their names are from {names.origin}" if isinstance(names, Beside) else ""
    return items, labels, [f"{of} from '{image}', labels from {told.said}{named}{group_said}", *said]


def _contents(table: Table, column: str, data: DataSpec) -> tuple[list[Content], list[str]]:
    """The images of a column, or their files, and what is to be said of where these were found."""
    contents: list[Content | None] = []
    files: dict[int, str] = {}
    for row, cell in enumerate(table.column(column)):
        held = held_in(cell, table.place(row))
        if isinstance(held, str):
            files[row] = held
            contents.append(None)
        else:
            contents.append(held)
    paths, said = files_of(table.take(list(files)), list(files.values()), SUFFIXES, data.root) if files else ([], [])
    for row, path in zip(files, paths, strict=True):
        contents[row] = path
    return [content for content in contents if content is not None], said


def held_in(cell: object, where: str) -> Content | str:
    """An image as it stands in a table, or the name of its file. Raises DataError for an empty cell."""
    if isinstance(cell, np.ndarray):
        return cell
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, Mapping):
        held = cell.get("bytes")
        cell = cell.get("path") if held is None else held
        if isinstance(cell, bytes):
            return cell
    if isinstance(cell, list):
        found: Content = pixels_of(where, np.asarray([cell]))[0]
        return found
    if (name := _mark(cell)) is None:
        raise DataError(f"{where}: its image is empty; each row needs its image file: mend or remove it")
    if is_pixels(name):
        return pixels_in(name, where)
    return name


def _label(value: object, names: Names, where: str, column: str) -> Label:
    if not isinstance(names, Mapping) and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    label = None if is_missing(value) else _mark(value)
    if label is not None and isinstance(value, float) and value.is_integer():
        label = str(int(value))
    if label is not None and isinstance(names, Mapping) and label in names:
        return names[label]
    if isinstance(value, Mapping):
        raise DataError(
            f"{where}: '{column}' is an object ({', '.join(map(str, value))}), as of boxes for a detector; images have "
            "one class each here, a text or a number: name its column with data.label_column"
        )
    if label is None or (names and label.startswith("-")):
        raise DataError(f"{where}: '{column}' is empty; each row needs its label: mend or remove it")
    return label


def _mark(value: object) -> str | None:
    """A value as text; None where there is none."""
    return None if value is None or not str(value).strip() else str(value).strip()


def order_of(labels: Iterable[Label]) -> tuple[str, ...]:
    """Class names in order: by number where all are numbers, else by name."""
    names = {str(label) for label in labels}
    by_number = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if by_number else 0, name)))
