"""Which columns of a table are the image, its label, and the group that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from multistep.core.values.plan import DataSpec
from multistep.data.table import Table, quoted
from multistep.errors import DataError
from multistep.tasks.images.decode import SUFFIXES

PATHS = ("path", "file", "file_name", "filename", "filepath", "file_path", "image", "image_path", "img", "img_path")
LABELS = ("label", "class", "target", "category", "class_name", "label_name", "y")
GROUPS = ("group", "subject", "student", "patient", "person", "speaker", "user", "session", "group_id", "subject_id")


def image_column_of(table: Table, given: str | None) -> str:
    """The column of images or of the files that hold them. Raises DataError, which lists the columns."""
    known = table.roles.get("image") or table.roles.get("file")
    image = given or known or _guess(table.names, PATHS) or _holding_images(table)
    return _require(table, image, "path_column", "the image files")


def label_column_of(table: Table, image: str, data: DataSpec) -> str:
    """The column of labels. Raises DataError, which lists the columns."""
    rest = [name for name in table.names if name not in (image, group_column_of(table, image, data))]
    only = rest[0] if len(rest) == 1 else None
    label = data.label_column or table.roles.get("label") or _guess(rest, LABELS) or only
    return _require(table, label, "label_column", "the labels")


def group_column_of(table: Table, image: str, data: DataSpec) -> str | None:
    """The column that says who is on an image, or what else images share, if there is one."""
    return _guess([name for name in table.names if name not in (image, data.label_column)], GROUPS)


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
