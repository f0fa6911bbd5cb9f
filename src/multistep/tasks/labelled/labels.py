"""Labels as they stand in a table -> class numbers, several of them at once, or numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from multistep.data.table import naming, quoted
from multistep.errors import DataError, nearest
from multistep.tasks.labelled.fields import (
    SEPARATORS,
    SPACE,
    WORDS,
    are_numbered,
    has_decimal_commas,
    joined_hint,
    list_in,
    look,
)
from multistep.tasks.labelled.numerals import NOTATIONS, PLAIN, bare, is_decorated, name_of, notation_of

Kind = Literal["class", "classes", "number"]
Array = npt.NDArray[np.float64] | npt.NDArray[np.int64]
MOST_WHOLE_NUMBERS = 150  # of different ones that are still taken for classes
MOST_CLASSES_SHARE = 0.5  # of the rows: above, labels are hardly labels
HOT_SHARE = 0.9  # of the rows that are lists of one length: with more odd ones they are lists of classes
SHOWN = 12  # names in a message
TRUTHS = frozenset({"true", "false"})  # which programs write in one case or another
MANY_WHOLE_NUMBERS = 20  # of different ones, from which on a note says that they can be predicted as numbers
FEW_AMOUNTS = 12  # of different ones, 5% and 10%, that are still classes


@dataclass(frozen=True)
class Labels:
    """What a column's labels are: one class a row, several, or a number. `names` of the classes; none of numbers.

    `notation` is that in which training's numbers are written, by its name in NOTATIONS; None: whichever fits a column.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    separator: str | None = None  # of several classes in one string
    multi_hot: bool = False  # several as a list of zeros and ones, one for each class
    notation: str | None = None

    @property
    def outputs(self) -> int:
        return 1 if self.kind == "number" else len(self.names)

    @property
    def record(self) -> dict[str, Any]:
        """What multistep.json of a classifier says of them."""
        notation = {} if self.notation is None else {"notation": self.notation}
        return {"labels": self.kind, "names": list(self.names), "separator": self.separator, **notation}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Labels:
        """The same back."""
        names = tuple(record["names"])
        return cls(record["labels"], names, record.get("separator"), notation=record.get("notation"))

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the outputs of a model are called: the classes, or the one value."""
        return self.names or (VALUE,)


VALUE = "value"  # what the one output for a number is called
PROBLEMS: Mapping[Kind, str] = {  # as transformers calls them
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "number": "regression",
}


def kind_of_problem(problem: object, outputs: int) -> Kind:
    """What the labels of a model of transformers are, by its configuration."""
    if problem == PROBLEMS["number"] or outputs == 1:
        return "number"
    return "classes" if problem == PROBLEMS["classes"] else "class"


@dataclass(frozen=True)
class Column:
    """The label column of one split; `place` says where a row stands, `names` what numbers mean, if that is known."""

    values: Sequence[object]
    place: Callable[[int], str]
    names: tuple[str, ...] = ()


def find_labels(
    train: Column, wanted: Literal["auto", "class", "classes", "number"], separators: Sequence[str] = SEPARATORS
) -> tuple[Labels, list[str]]:
    """What the training split's labels are, and what was guessed. Raises DataError that names the row at fault.

    `separators` may stand between several labels in one field, those first that are the likelier.
    """
    if (written := _amounts(train.values)) and wanted == "auto":
        return _numbers(train), [f"{written}, so they are to be predicted (else data.labels: class)"]
    comma = not written and has_decimal_commas(train.values)
    if wanted == "number" or (wanted == "auto" and comma):
        numbers_of(train)
        said = "labels have a decimal comma, so they are numbers to be predicted (data.labels: number)"
        return _numbers(train), [written] if written else [said] if comma else []
    if wanted == "classes":
        return _several(train, separators)
    if wanted == "class":
        return Labels("class", _names_of(train, [_name(v, train, i) for i, v in enumerate(train.values)])), []
    if wanted == "auto" and are_numbered(train.values):
        labels, notes = _several(train)
        said = "labels are lists of whole numbers such as 0,27, so a row has several classes (else data.labels: class)"
        return labels, [*notes, said]
    kinds = [look(value) for value in train.values]
    common = Counter(kinds).most_common(1)[0][0]
    odd = next((i for i, kind in enumerate(kinds) if kind != common and {kind, common} != {"whole", "fraction"}), None)
    if odd is not None:
        raise DataError(
            f"{train.place(odd)}: the label {train.values[odd]!r} is {WORDS[kinds[odd]]}, but most are "
            f"{WORDS[common]}; mend it, or set data.labels to class to take them all as names"
        )
    if common == "list":
        return _several(train)
    if "fraction" in kinds:
        return _numbers(train), ["labels have fractions, so they are numbers to be predicted (data.labels: number)"]
    names = [_name(value, train, i) for i, value in enumerate(train.values)]
    different = len(set(names))
    if common == "whole" and not train.names and different > MOST_WHOLE_NUMBERS:
        raise DataError(
            f"{train.place(0)}: the labels are {different} different whole numbers; set data.labels to number, or to "
            "class if they are names"
        )
    if different > max(MOST_WHOLE_NUMBERS, MOST_CLASSES_SHARE * len(names)):
        raise DataError(
            f"{train.place(0)}: {different} different labels in {len(names)} rows, so this is hardly a label column; "
            f"name another with {naming('label_column')}, or set data.labels to class"
            + "".join(f"; {hint}" for hint in joined_hint(names))
        )
    notes = joined_hint(names)
    if common == "whole" and not train.names and different >= MANY_WHOLE_NUMBERS:
        notes.append(
            f"labels are {different} different whole numbers, taken for classes; to predict them as numbers, say "
            "--set data.labels=number"
        )
    return Labels("class", _names_of(train, names)), notes


def _numbers(train: Column) -> Labels:
    notation = notation_of(train.values)
    return Labels("number", notation=None if notation is PLAIN else name_of(notation))


def _amounts(values: Sequence[object]) -> str:
    """That labels are numbers with signs of money, per cent or thousands, if they are, and how they are read."""
    if not is_decorated(values):
        return ""
    example = next(str(v) for v in values if PLAIN.number(v) is None or bare(str(v)) != str(v).strip())
    if len({*map(str, values)}) <= FEW_AMOUNTS:
        return ""
    return f"labels such as '{example}' are numbers ({notation_of(values).number(example):g})"


def classes_of(labels: Labels, column: Column) -> list[tuple[str, ...]]:
    """The classes of each row; none of numbers."""
    if labels.kind == "number":
        return [()] * len(column.values)
    if labels.kind == "class":
        return [(_name(value, column, i),) for i, value in enumerate(column.values)]
    if labels.multi_hot:
        return [tuple(labels.names[c] for c, v in enumerate(row) if v) for row in _hot_rows(column, len(labels.names))]
    return [tuple(_parts(value, labels.separator, column, i)) for i, value in enumerate(column.values)]


def numbers_of(column: Column, known: str | None = None) -> npt.NDArray[np.float64]:
    """A column of numbers (shape: rows), in the notation that is known by name, where all are written so: 450.000 is
    as many as in training, whatever stands beside it. Else in whichever most are. Raises DataError for what is none.
    """
    found = np.zeros(len(column.values))
    notation = NOTATIONS.get(known or "")
    if notation is None or any(notation.number(value) is None for value in column.values):
        notation = notation_of(column.values)
    for i, value in enumerate(column.values):
        number = notation.number(value)
        if number is None:
            raise DataError(f"{column.place(i)}: the label {value!r} is not a number; mend or remove the row")
        found[i] = number
        if not math.isfinite(found[i]):
            raise DataError(f"{column.place(i)}: the label is {value!r}; mend or remove the row")
    return found


def encode(labels: Labels, column: Column) -> Array:
    """Class numbers (shape: rows), zeros and ones (shape: rows, classes), or numbers (shape: rows).

    Raises DataError that names the first row with a label that training does not have.
    """
    if labels.kind == "number":
        return numbers_of(column, labels.notation)
    if labels.multi_hot or (labels.kind == "classes" and hot_width(column) == len(labels.names)):
        return np.array(_hot_rows(column, len(labels.names)), np.float64).reshape(-1, len(labels.names))
    numbers = {name: i for i, name in enumerate(labels.names)}

    def number(name: str, row: int) -> int:
        if name not in numbers and (known := _known(name, labels.names, column.names)) is not None:
            numbers[name] = numbers[known]
        if name not in numbers:
            shown = quoted(labels.names[:SHOWN]) + (", ..." if len(labels.names) > SHOWN else "")
            raise DataError(
                f"{column.place(row)}: the label '{name}' does not occur in training, which has {shown}; mend it, or "
                f"add examples of it to the train split.{nearest(name, labels.names)}"
            )
        return numbers[name]

    if labels.kind == "class":
        names = (number(_name(value, column, i), i) for i, value in enumerate(column.values))
        return np.fromiter(names, np.int64, len(column.values))
    table = np.zeros((len(column.values), len(labels.names)))
    for i, value in enumerate(column.values):
        for name in _parts(value, labels.separator, column, i):
            table[i, number(name, i)] = 1.0
    return table


def _known(name: str, known: Sequence[str], own: Sequence[str]) -> str | None:
    """The one class of training that a foreign name means: True where that is true, or 1 where the data set whose
    `own` names these are numbers it so; None where there is none.
    """
    if name.lower() in TRUTHS:
        alike = [each for each in known if each.lower() == name.lower()]
        if alike:
            return alike[0] if len(alike) == 1 else None
    number = str(own.index(name)) if name in own else ""
    return number if number in known else None


def _name(value: object, column: Column, row: int) -> str:
    """The name of a class: the data set's own for its number, else the value as it is written, 1.0 as 1."""
    kind = look(value)
    if kind in ("list", "other"):
        raise DataError(
            f"{column.place(row)}: the label {value!r} is {WORDS[kind]}; allowed: a name or a number a row (for lists: "
            "data.labels: classes)"
        )
    if column.names and isinstance(value, int) and not isinstance(value, bool):
        return column.names[value] if 0 <= value < len(column.names) else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if kind == "whole":
        return (
            str(int(float(str(value))))
            if isinstance(value, float | Decimal) or str(value).endswith(".0")
            else str(value).strip()
        )
    return str(value).strip()


def _names_of(train: Column, names: Sequence[str]) -> tuple[str, ...]:
    """The classes in their order: the data set's own, else by number, else by name."""
    found = set(names)
    if len(found) < 2:
        raise DataError(
            f"{train.place(0)}: every row has the label '{next(iter(found))}'; there is nothing to tell apart: name "
            f"another column with {naming('label_column')}"
        )
    if train.names:
        return tuple(train.names) if found <= set(train.names) else tuple(sorted(found))
    if all(look(name) == "whole" for name in found):
        return tuple(sorted(found, key=float))
    return tuple(sorted(found))


def hot_width(train: Column) -> int | None:
    """How long the rows' lists of zeros and ones are; None where they are no such lists. A few odd rows are faults."""
    rows = [_listed(value, train, i) for i, value in enumerate(train.values)]
    width, count = Counter(len(row) for row in rows if row is not None).most_common(1)[0] if any(rows) else (0, 0)
    if width < 2 or None in rows or count < HOT_SHARE * len(rows):
        return None
    told = all(not isinstance(v, str) and v in (0, 1) for row in rows if row is not None for v in row)
    return width if told else None


def _hot_rows(column: Column, width: int) -> list[list[bool]]:
    """Each row's zeros and ones. Raises DataError for another length, or other values."""
    found = []
    for i, value in enumerate(column.values):
        row = _listed(value, column, i)
        if row is None or len(row) != width or any(isinstance(v, str) or v not in (0, 1) for v in row):
            raise DataError(
                f"{column.place(i)}: the labels are {value!r}, but as in training they must be {width} zeros and ones"
            )
        found.append([bool(v) for v in row])
    return found


def _listed(value: object, column: Column, row: int) -> Sequence[object] | None:
    """A list, also one that is written out in a field; None for anything else."""
    if isinstance(value, str) and look(value) == "list":
        value = list_in(value, column.place(row))
    return list(value) if isinstance(value, list | tuple | np.ndarray) else None


def _several(train: Column, separators: Sequence[str] = SEPARATORS) -> tuple[Labels, list[str]]:
    """Lists of classes, or strings that hold several."""
    if (width := hot_width(train)) is not None:
        names = train.names if len(train.names) == width else tuple(map(str, range(width)))
        said = f"labels are lists of {width} zeros and ones, so each position is a class ({', '.join(names[:SHOWN])})"
        return Labels("classes", names, multi_hot=True), [said]
    separator, notes = None, []
    strings = [value for value in train.values if isinstance(value, str) and look(value) != "list"]
    if strings:
        counts = {mark: sum(mark in value for value in strings) for mark in separators}
        # Spaces are within names where another sign is between them.
        told = [mark for mark in separators if mark != SPACE and counts[mark]] or list(separators)
        separator = max(told, key=lambda mark: counts[mark])
        if counts[separator]:
            notes.append(f"several labels in one field are separated by {separator!r}")
    rows = [_parts(value, separator, train, i) for i, value in enumerate(train.values)]
    found = {name for row in rows for name in row}
    if not found:
        where = f"{train.place(0)}: no row has a label"
        raise DataError(f"{where}; name another column with {naming('label_column')}")
    by_number = all(look(name) == "whole" for name in found)
    ordered = tuple(sorted(found, key=float)) if by_number else tuple(sorted(found))
    names = tuple(train.names) if train.names and found <= set(train.names) else ordered
    return Labels("classes", names, separator), notes


def _parts(value: object, separator: str | None, column: Column, row: int) -> list[str]:
    """The classes of one row."""
    if isinstance(value, str) and look(value) == "list":
        value = list_in(value, column.place(row))
    if isinstance(value, str):
        parts: Sequence[object] = value.split(separator) if separator else [value]
    elif isinstance(value, list | tuple | np.ndarray):
        parts = list(value)
    else:
        parts = [value]
    return [name for part in parts if (name := _name(part, column, row))]
