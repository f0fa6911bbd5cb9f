"""Which columns of a table are the image and the group that it belongs to, and which may hold its label."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.arrays import Pixels, pixels_of
from multistep.data.paths import naming_column
from multistep.data.table import Table, quoted
from multistep.errors import DataError
from multistep.tasks.images.decode import SUFFIXES

PATHS = (
    "path",
    "file",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "img_path",
    "image_index",
)
IDS = ("image_id", "image_name", "image_file", "img_id", "img_name", "id_code", "id", "file_id", "name", "pixels")
LABELS = (
    "label",
    "labels",
    "class",
    "target",
    "category",
    "class_name",
    "label_name",
    "y",
    "class_id",
    "category_id",
    "species",
    "breed",
    "diagnosis",
    "dx",
    "label_id",
    "class_label",
    "emotion",
    "tags",
)
_SHARED = ("group", "subject", "student", "patient", "person", "speaker", "user", "session", "lesion")
GROUPS = (*_SHARED, *(f"{name}_id" for name in _SHARED))
NUMBERING = ("", "unnamed: 0", "index", "idx", "row_id")
_PIXELS = re.compile(r"\d{1,3}(?:\s+\d{1,3}){63,}")


def image_column_of(table: Table, data: DataSpec) -> str:
    """The column of images or of the files that hold them. Raises DataError, which lists the columns."""
    lost = next((name for name in table.names if name.lower().endswith(SUFFIXES)), None)
    if lost is not None and data.path_column is None:
        raise DataError(
            f"{table.origin}:1: the first row names an image, '{lost}', and no columns; say data.header: false, or add "
            "a row with the names of the columns, such as path and label"
        )
    known = table.roles.get("image") or table.roles.get("file")
    image = data.path_column or known or guess(table.names, PATHS) or _holding_images(table) or guess(table.names, IDS)
    if image is None and table.folder is not None:
        image = naming_column(table, table.names, SUFFIXES, data.root)
    return require(table, image, "path_column", "the image files")


def group_column_of(table: Table, image: str, data: DataSpec) -> str | None:
    """The column that says who is on an image, or what else images share, if there is one."""
    return guess([name for name in table.names if name not in (image, data.label_column)], GROUPS)


def rest_of(table: Table, image: str, data: DataSpec) -> list[str]:
    """The columns that may hold labels."""
    taken = (image, group_column_of(table, image, data))
    return [name for name in table.names if name not in taken and name.strip().lower() not in NUMBERING]


def unlabelled(table: Table, data: DataSpec, training: Table) -> str | None:
    """Why a table tells no labels, if so: it has no column for them, as the training split has, or nothing in it."""
    if not len(table):
        return "it is empty"
    if table.names == ("file",):
        return f"its {len(table):,} images lie in {table.origin} without class folders"
    image = image_column_of(table, data)
    rest = rest_of(table, image, data)
    label = data.label_column or table.roles.get("label") or guess(rest, LABELS)
    others = set(rest_of(training, image, data))
    if not rest or (label is None and set(rest) < others):
        return f"{table.origin} has no column of labels beside {quoted((image, *rest))}"
    if label in table.names and all(value in (None, "", -1, "-1") for value in table.column(str(label))):
        return f"{table.origin} has no label in its column '{label}'"
    return None


def guess(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column with the most usual name, if there is one: ClassId, Class ID and class-id are class_id."""
    return next((c for name in usual for c in columns if name in (c.strip().lower(), _plain(c))), None)


def _plain(column: str) -> str:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s\-]+", "_", apart).lower()


def is_pixels(cell: str) -> bool:
    """Whether a cell holds the pixels themselves, as whole numbers with spaces between."""
    return cell[:1].isdigit() and len(cell) >= 127 and _PIXELS.fullmatch(cell) is not None


def pixels_in(cell: str, where: str) -> Pixels:
    """The square of pixels that a cell holds. Raises DataError where they make none."""
    values = np.array(cell.split(), np.int64)
    side = math.isqrt(len(values))
    if side * side != len(values):
        raise DataError(f"{where}: {len(values):,} pixels, which make no square; name the image files instead")
    found: Pixels = pixels_of(where, values.reshape(1, side, side))[0]
    return found


def _holding_images(table: Table) -> str | None:
    """The one column whose first cell is an image, or ends as the name of one does."""
    firsts = {column: table.column(column)[0] for column in table.names} if len(table) else {}
    found = [column for column, first in firsts.items() if _is_image(first)]
    return found[0] if len(found) == 1 else None


def _is_image(cell: object) -> bool:
    if isinstance(cell, Mapping):
        return bool({"bytes", "path"} & cell.keys())
    if isinstance(cell, list):
        return len(cell) > 1 and isinstance(cell[0], list)
    return isinstance(cell, bytes | np.ndarray) or str(cell).lower().endswith(SUFFIXES) or is_pixels(str(cell))


def require(table: Table, column: str | None, setting: str, what: str) -> str:
    """The column, which exists. Raises DataError, which lists the columns, where it is not known or not there."""
    if column is None:
        listed = quoted(table.names)
        raise DataError(f"{table.origin}: which column names {what}? columns: {listed}; name it with data.{setting}")
    table.column(column)  # says what is allowed
    return column
