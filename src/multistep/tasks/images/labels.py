"""The labels of images as they stand in a table: a column, one column a class, numbers with names beside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.onehot import hot_columns, with_one_label
from multistep.data.table import Table, quoted
from multistep.data.walk import visible
from multistep.errors import DataError
from multistep.tasks.images.columns import IDS, LABELS, PATHS, guess, require, rest_of

_SIGNS = ("|", ";", ",", " ")  # between labels that are several at once
Names = Sequence[str] | Mapping[str, str]  # of classes, by number or by what stands in the table


@dataclass(frozen=True)
class Labels:
    """A label a row, as it stands; `column` is how messages name it, `names` what numbers mean where that is known."""

    values: Sequence[object]
    column: str
    said: str
    names: Sequence[str] = ()


class Beside(dict[str, str]):
    """Names of classes by the number of each, from a file beside a table."""

    def __init__(self, names: Mapping[str, str], origin: Path) -> None:
        super().__init__(names)
        self.origin = origin


def labels_of(table: Table, image: str, data: DataSpec) -> Labels:
    """The labels of a table. Raises DataError, which lists the columns, where it is not clear which they are."""
    rest = rest_of(table, image, data)
    label = data.label_column or table.roles.get("label") or guess(rest, LABELS)
    if label is None and len(hot := hot_columns(table, rest)) > 1:
        return _one_hot(with_one_label(table, hot))
    label = require(table, label or (rest[0] if len(rest) == 1 else None), "label_column", "the labels")
    return Labels(table.column(label), label, f"'{label}'", table.class_names.get(label, ()))


def _one_hot(table: Table) -> Labels:
    """The labels that were made of several columns. Raises DataError for a row with none, or with several."""
    column = table.roles["label"]
    for row, value in enumerate(table.column(column)):
        if not isinstance(value, str) and isinstance(value, Sequence) and len(value) != 1:
            says = f"is of {len(value)} classes ({quoted(map(str, value))})" if value else "is of no class"
            raise DataError(
                f"{table.place(row)}: its image {says}, by the columns of zeros and ones; images have one class each "
                "here: name one of these columns with data.label_column, or mend the row"
            )
    return Labels(table.column(column), column, table.notes[-1].removeprefix(f"{table.origin}: labels from "))


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
    if not isinstance(found, dict) or guess(list(found), (*PATHS, *IDS)) is not None:
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
            if isinstance(found, dict) and all(isinstance(value, str | int) for value in found.values()):
                yield path, found


def several_in(table: Table, labels: Labels, image: str) -> list[str]:
    """A note on labels that look like several at once (`haze primary`, `Edema|Effusion`), which are one class each.

    They do where their parts are labels elsewhere, or most of them are parts of several labels.
    """
    if labels.names or {labels.column, image} <= set(table.roles.values()):
        return []
    found = {str(value).strip() for value in labels.values if value is not None}
    for sign in _SIGNS:
        combined = [label for label in found if sign in label]
        parts = Counter(part.strip() for label in found for part in {*label.split(sign)})
        alone = {part for label in combined for part in label.split(sign) if part.strip() in found}
        shared = sum(count > 1 for count in parts.values())
        plural = labels.column.lower().endswith(("tags", "labels", "attributes", "classes"))
        if combined and (sign == "|" or alone or (plural and 2 * shared > len(parts))):
            first = next(row for row, value in enumerate(labels.values) if sign in str(value))
            return [
                f"{table.place(first)}: the label '{labels.values[first]}' looks like several at once; images have one "
                "class each here, so each combination of labels is a class of its own"
            ]
    return []


def require_classes(table: Table, labels: Sequence[str], data: DataSpec) -> None:
    """Raises DataError where labels are fractions, as of a regression, unless the user says that they are classes."""
    if data.labels == "class":
        return
    first = None
    for row, label in enumerate(labels):
        try:
            number = float(label)
        except ValueError:
            return
        if first is None and number != round(number):
            first = row
    if first is not None:
        raise DataError(
            f"{table.place(first)}: its label is {labels[first]}, and all {len(set(labels)):,} labels are numbers, "
            "some with a fraction, as for a regression. Images are told apart by classes here: give each a class (a "
            "name, or a whole number), say data.labels: class if each of these numbers is one, or train a module of "
            "your own on the numbers, in Python"
        )
