"""The labels of images as they stand in a table, and what they are: one class, several, or a number an image."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.onehot import hot_columns, with_one_label
from multistep.data.table import Table, quoted
from multistep.data.walk import visible
from multistep.errors import DataError
from multistep.tasks.images.columns import IDS, LABELS, PATHS, guess, require, rest_of
from multistep.tasks.images.decode import SUFFIXES
from multistep.tasks.images.items import Label
from multistep.tasks.labelled.fields import SEPARATORS, SPACE, are_numbered, is_missing, look
from multistep.tasks.labelled.joined import looks_joined, separator_of
from multistep.tasks.labelled.labels import (
    MANY_WHOLE_NUMBERS,
    MOST_CLASSES_SHARE,
    MOST_WHOLE_NUMBERS,
    Column,
    Labels,
    classes_of,
    find_labels,
    hot_width,
    numbers_of,
)
from multistep.tasks.labelled.numerals import is_decorated, numbers_in

ODD = 0.01  # of the rows with a column a class: as few without a class, or with several, are mistakes
AMOUNTS = frozenset((  # that columns are called
    "age", "ages", "angle", "angles", "amount", "count", "counts", "degrees", "depth", "distance", "height", "length",
    "months", "price", "size", "speed", "temperature", "weight", "width", "years",
))  # fmt: skip
Names = Sequence[str] | Mapping[str, str]  # of classes, by number or by what stands in the table


@dataclass(frozen=True)
class Told:
    """A label a row, as it stands; `column` is how messages name it, `names` what numbers mean where that is known.

    `hot` are the columns of zeros and ones that it was made of. `known` says that it is a class by how the table came
    to be, such as by the name of a folder.
    """

    values: Sequence[object]
    column: str
    said: str
    names: Sequence[str] = ()
    hot: tuple[str, ...] = ()
    known: bool = False


class Beside(dict[str, str]):
    """Names of classes by the number of each, from a file beside a table."""

    def __init__(self, names: Mapping[str, str], origin: Path) -> None:
        super().__init__(names)
        self.origin = origin


def labels_of(table: Table, image: str, data: DataSpec, like: Labels | None = None) -> Told:
    """The labels of a table. Raises DataError, which lists the columns, where it is not clear which they are.

    `like` are those of the training split or of a model: a table with a column for each has these.
    """
    if like is not None and len(like.names) > 1 and set(like.names) <= set(table.names):
        return _hot(table, like.names, single=like.kind == "class")
    rest = rest_of(table, image, data)
    label = data.label_column or table.roles.get("label") or guess(rest, LABELS)
    if label is None and len(hot := hot_columns(table, rest)) > 1:
        return _hot(table, hot, single=None if data.labels == "auto" else data.labels == "class")
    label = require(table, label or (rest[0] if len(rest) == 1 else None), "label_column", "the labels")
    known = {label, image} <= set(table.roles.values())
    return Told(table.column(label), label, f"'{label}'", table.class_names.get(label, ()), known=known)


def _hot(table: Table, hot: Sequence[str], *, single: bool | None) -> Told:
    """The labels that columns of zeros and ones make. Raises DataError where hardly a row has not exactly one of them.

    `single` says whether each row must have one; None: wherever nearly all have.
    """
    made = with_one_label(table, hot, single=False if single is False else None)
    column = made.roles["label"]
    values = made.column(column)
    said = made.notes[-1].removeprefix(f"{table.origin}: labels from ")
    odd = [] if single is False else [i for i, value in enumerate(values) if _is_odd(value)]
    if odd and (single or len(odd) < ODD * len(values)):
        value = values[odd[0]]
        assert isinstance(value, Sequence)
        says = f"is of {len(value)} classes ({quoted(map(str, value))})" if value else "is of no class"
        count = f", as {len(odd):,} of {len(values):,} do" if len(odd) > 1 else ", the only one"
        raise DataError(
            f"{table.place(odd[0])}: its image {says}, by the columns of zeros and ones{count}; mend the row, or say "
            "--set data.labels=classes if an image can have several classes, or none"
        )
    return Told(values, column, said, hot=tuple(hot))


def _is_odd(value: object) -> bool:
    return not isinstance(value, str) and isinstance(value, Sequence) and len(value) != 1


# What they are --------------------------------------------------------------------------------------


def kind_told(told: Told, table: Table, names: Names, data: DataSpec) -> tuple[Labels, list[str]]:
    """What the labels of the training images are, and what was guessed. One class has no names yet: see `splits`.

    By the rules for texts, where a column of a table is read; classes that are known as such stay classes. Raises
    DataError that names the row at fault.
    """
    column = _present(told, table)
    if data.labels == "class" or not column.values or isinstance(names, Mapping):
        return Labels("class"), []
    if told.hot and data.labels != "number":
        several = any(not isinstance(value, str) for value in column.values)
        return Labels("classes" if several else "class", told.hot), []
    if data.labels in ("classes", "number"):
        labels, notes = find_labels(column, data.labels, (*SEPARATORS, SPACE))
    else:
        looks = Counter(map(look, column.values))
        if 2 * looks["list"] > len(column.values):
            labels, notes = find_labels(column, "classes")
        elif told.names or looks["other"]:
            labels, notes = Labels("class"), []
        else:
            labels, notes = _in_fields(told, column)
    return labels, [f"{table.origin}: {note}" for note in notes]


def _in_fields(told: Told, column: Column) -> tuple[Labels, list[str]]:
    """What labels are that stand in fields without names: numbers, several in a field, or else a class."""
    values = column.values
    numbers = numbers_in(values)
    if numbers is not None and (is_decorated(values) or any(number % 1 for number in numbers)):
        return find_labels(column, "auto")
    if told.known:
        return Labels("class"), []
    if are_numbered(values):
        return find_labels(column, "auto")
    if numbers is not None:
        return _whole(column, sorted(set(numbers)), told.column)
    sign = separator_of({str(value) for value in values}, told.column)
    if sign is None:
        return Labels("class"), []
    labels, _ = find_labels(column, "classes", (sign,))
    return labels, [
        f"labels in '{told.column}' are several in one field, separated by {sign!r}, so an image has several of "
        f"{len(labels.names)} labels (else data.labels: class)"
    ]


def _whole(column: Column, counted: Sequence[float], name: str) -> tuple[Labels, list[str]]:
    """Whole numbers: classes, unless they are many, and called like an amount, or most of them stand on one image.

    Of very many that do not count from 0 or 1 nobody but the user knows.
    """
    if len(counted) < MANY_WHOLE_NUMBERS:
        return Labels("class"), []
    first, last = counted[0], counted[-1]
    named = re.split(r"[\W_]+", name.lower())[-1] in AMOUNTS
    if named or len(counted) > MOST_CLASSES_SHARE * len(column.values):
        said = f"labels are {len(counted)} different whole numbers from {first:g} to {last:g}"
        return Labels("number"), [f"{said}, so they are to be predicted (else data.labels: class)"]
    if len(counted) > MOST_WHOLE_NUMBERS and first in (0, 1) and last - first < len(counted):
        said = f"labels are the whole numbers from {first:g} to {last:g}, taken for classes; to predict them as numbers"
        return Labels("class"), [f"{said}, say --set data.labels=number"]
    labels, notes = find_labels(column, "auto")
    return Labels(labels.kind, notation=labels.notation), notes


def values_of(labels: Labels, told: Told, table: Table, data: DataSpec) -> list[Label]:
    """Several classes, or the number, of each row. Raises DataError that names the first row with neither.

    An empty field is no label at all where the plan says that labels are several, else it is one that is missing.
    """
    if labels.kind == "number":
        return [float(number) for number in numbers_of(Column(told.values, table.place), labels.notation)]
    empty = next((row for row, value in enumerate(told.values) if is_missing(value)), None)
    if empty is not None and data.labels != "classes":
        raise DataError(
            f"{table.place(empty)}: '{told.column}' is empty; each row needs its labels: mend or remove it, or say "
            "--set data.labels=classes if that means none of them"
        )
    column = Column(["" if is_missing(value) else value for value in told.values], table.place, tuple(told.names))
    hot = not told.hot and (labels.multi_hot or hot_width(column) == len(labels.names))
    return [tuple(dict.fromkeys(names)) for names in classes_of(replace(labels, multi_hot=hot), column)]


def _present(told: Told, table: Table) -> Column:
    """The rows with a label, as a column that the rules of all tasks read."""
    rows = [row for row, value in enumerate(told.values) if not is_missing(value)]
    return Column([told.values[row] for row in rows], lambda i: table.place(rows[i]), tuple(told.names))


# Names beside a table -------------------------------------------------------------------------------


def names_beside(table: Table, values: Sequence[object]) -> Names:
    """What a .json file beside a table calls its labels: an object from each of them to a name, or the other way."""
    if table.folder is None or not table.folder.is_dir():
        return ()
    wanted = {str(value).strip() for value in values if value is not None} - {""}
    for path, names in _objects(table.folder):
        for known in (names, {str(label): name for name, label in names.items()}):
            if wanted and wanted <= known.keys() and all(isinstance(name, str) for name in known.values()):
                return Beside({label: str(known[label]) for label in wanted}, path)
    return ()


def names_classes(path: Path) -> bool:
    """Whether a .json file is no table but one object of names: {"0": "healthy"}, {"n01440764": "tench"}."""
    if path.suffix.lower() != ".json" or path.stat().st_size >= 2**20:
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    if not isinstance(found, dict) or _are_files(found) or guess(list(found), (*PATHS, *IDS)) is not None:
        return False
    return all(not isinstance(value, dict | list) or _are_strings(value) for value in found.values())


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _objects(folder: Path) -> Iterator[tuple[Path, Mapping[str, object]]]:
    for path in visible(folder):
        if path.suffix.lower() == ".json" and path.is_file() and path.stat().st_size < 2**20:
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            scalars = isinstance(found, dict) and all(isinstance(value, str | int) for value in found.values())
            if scalars and not _are_files(found):
                yield path, found


def _are_files(names: Iterable[str]) -> bool:
    """Whether keys are images, so that an object says what each is: {"0.png": "cat"}."""
    return any(name.lower().endswith(SUFFIXES) for name in names)


def several_in(table: Table, told: Told) -> list[str]:
    """A note on labels that may be several at once, which are taken for one class each."""
    if told.names or told.known:
        return []
    sign = looks_joined({str(value) for value in told.values if value is not None}, told.column)
    if sign is None:
        return []
    first = next(row for row, value in enumerate(told.values) if sign in str(value))
    return [
        f"{table.place(first)}: the label '{told.values[first]}' looks like several at once, and is taken for a class "
        "of its own; if an image has several labels, say --set data.labels=classes"
    ]
