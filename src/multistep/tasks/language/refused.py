"""Tables of other tasks than classification: what is said of them, instead of a guess which column is the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from multistep.core.values.plan import DataSpec
from multistep.data.table import Table, naming
from multistep.errors import DataError

_ANSWERS = ("answers", "answer")
_LOOKED_AT, _FEW = 1000, 0.2  # rows; of them, at most, are different answers that are classes
_SHOWN = 60  # characters


def refuse_questions(table: Table, data: DataSpec) -> None:
    """Raises DataError for questions with answers out of a context, as of SQuAD, where no label is named."""
    names = {name.strip().lower(): name for name in table.names}
    answers = next((names[name] for name in _ANSWERS if name in names), None)
    if data.label_column is not None or answers is None or not {"question", "context"} <= names.keys():
        return
    told = [str(value) for value in islice(table.each(answers), _LOOKED_AT)]
    if len(set(told)) <= max(2, _FEW * len(told)) and not any(value.startswith(("{", "[")) for value in told):
        return  # yes or no
    raise DataError(
        f"{table.origin}: these are questions with answers out of a context (SQuAD), which are no classes; "
        "--task text-generation learns to answer them, or name a column of classes, such as is_impossible, with "
        f"{naming('label_column')}"
    )


def refuse_parts(table: Table, labels: Sequence[object], column: str) -> None:
    """Raises DataError, with the first row, for labels that mark parts of a text, as names in it are."""
    for row, label in enumerate(labels):
        if _marks_parts(label):
            shown = str(label)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
            raise DataError(
                f"{table.place(row)}: '{column}' marks parts of the text ({shown}), as for finding names in it; labels "
                f"here are of whole texts: name a column of these with {naming('label_column')}"
            )
        if label:
            return


def _marks_parts(label: object) -> bool:
    """Whether a label is one mark of a part, or a list of such: [0, 5, "PERSON"], {"start": 0, "end": 5, ...}."""
    first = label[0] if isinstance(label, list) and label else label
    if isinstance(first, Mapping):
        return {"start", "end"} <= first.keys() or {"start_offset", "end_offset"} <= first.keys()
    part = first if isinstance(first, list) else label  # one of a list, or one alone
    if not isinstance(part, list) or len(part) < 3:
        return False
    return all(isinstance(place, int) for place in part[:2]) and isinstance(part[2], str)
