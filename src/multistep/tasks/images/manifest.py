"""Tables that name image files: path, label and perhaps split and group of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multistep.errors import DataError
from multistep.tasks.images.decode import SUFFIXES
from multistep.tasks.tables import Table, quoted, read_table

PATHS = ("path", "file", "file_name", "filename", "filepath", "file_path", "image", "image_path", "img", "img_path")
LABELS = ("label", "class", "target", "category", "class_name", "label_name", "y")
SPLITS = ("split", "subset", "partition", "set")
GROUPS = ("group", "subject", "student", "patient", "person", "speaker", "user", "session", "group_id", "subject_id")


@dataclass(frozen=True)
class Row:
    where: str
    path: str
    label: str
    split: str | None
    group: str | None


def read_manifest(path: Path, path_column: str | None, label_column: str | None) -> tuple[list[Row], list[str]]:
    """Rows of a table, and notes; columns are guessed where that is obvious. Raises DataError with the line."""
    table = read_table(path)
    if not len(table):
        raise DataError(f"{path}: no rows; each must name an image file and its label")
    columns = table.names
    file = path_column_of(table, path_column)
    split, group = (_guess([c for c in columns if c not in (file, label_column)], names) for names in (SPLITS, GROUPS))
    rest = [c for c in columns if c not in (file, split, group)]
    label = label_column or _guess(rest, LABELS) or (rest[0] if len(rest) == 1 else None)
    label = _require(table, label, "label_column", "the labels")
    files, labels = (_filled(table, column, what) for column, what in ((file, "image file"), (label, "label")))
    splits, groups = (_marks(table, column) for column in (split, group))
    if split and None in splits:
        where = table.place(splits.index(None))
        raise DataError(f"{where}: '{split}' is empty; name a split in every row, or in none")
    places = [table.place(i) for i in range(len(table))]
    rows = [Row(*row) for row in zip(places, files, labels, splits, groups, strict=True)]
    said = {"image files": file, "labels": label, "splits": split, "groups (each kept in one split)": group}
    notes = ", ".join(f"{what} from '{column}'" for what, column in said.items() if column)
    return rows, [*table.notes, f"{path}: {notes}"]


def path_column_of(table: Table, given: str | None) -> str:
    """The column that names image files: the given one, or guessed. Raises DataError, which lists the columns."""
    file = given or _guess(table.names, PATHS) or _holding_images(table)
    return _require(table, file, "path_column", "the image files")


def _guess(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column with the most usual name, if there is one."""
    return next((c for name in usual for c in columns if c.strip().lower() == name), None)


def _holding_images(table: Table) -> str | None:
    firsts = {column: str(table.column(column)[0]).lower() for column in table.names}
    found = [column for column, first in firsts.items() if first.endswith(SUFFIXES)]
    return found[0] if len(found) == 1 else None


def _require(table: Table, column: str | None, setting: str, what: str) -> str:
    if column is None:
        raise DataError(
            f"{table.origin}: which column names {what}? columns: {quoted(table.names)}; name it with data.{setting}"
        )
    table.column(column)  # says what is allowed
    return column


def _filled(table: Table, column: str, what: str) -> list[str]:
    values = _marks(table, column)
    if None in values:
        where = table.place(values.index(None))
        raise DataError(f"{where}: '{column}' is empty; each row needs its {what}: mend or remove it")
    return [str(value) for value in values]


def _marks(table: Table, column: str | None) -> list[str | None]:
    """A column's values as text; None where a row has none."""
    if column is None:
        return [None] * len(table)
    return [None if value is None or not str(value).strip() else str(value).strip() for value in table.column(column)]
