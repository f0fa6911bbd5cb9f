"""Several columns of zeros and ones, one for each class -> one column of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multistep.data.table import Table, quoted

LABEL = "label"  # the column that is made
_SHOWN = 6  # names in a note


def with_one_label(table: Table, candidates: Sequence[str]) -> Table | None:
    """The table with a column of labels instead of its columns of zeros and ones; None if it has no two of them.

    Where each row has a single one, a label is the name of its column; else a list of such names. Only columns among
    the `candidates` are looked at.
    """
    hot = [name for name in candidates if _is_hot(table.column(name))]
    if len(hot) < 2:
        return None
    columns = [[str(value).strip() in ("1", "1.0", "True", "true") for value in table.column(name)] for name in hot]
    rows = [[name for name, held in zip(hot, row, strict=True) if held] for row in zip(*columns, strict=True)]
    single = all(len(row) == 1 for row in rows)
    labels: list[object] = [row[0] for row in rows] if single else list(rows)
    values, made = table.values, _free(table)
    kept = {name: text for name, text in table.is_text.items() if name not in hot}
    shown = quoted(hot[:_SHOWN]) + (", ..." if len(hot) > _SHOWN else "")
    kind = "one class a row" if single else "several classes a row"
    return replace(
        table,
        is_text={**kept, made: single},
        values=lambda name: labels if name == made else values(name),
        roles={**table.roles, "label": made},
        notes=(*table.notes, f"{table.origin}: labels from {len(hot)} columns of zeros and ones, {kind}: {shown}"),
    )


def _free(table: Table) -> str:
    name = LABEL
    while name in table.is_text:
        name += "_"
    return name


def _is_hot(values: Sequence[object]) -> bool:
    found = {str(value).strip() for value in values}
    return found <= {"0", "1", "0.0", "1.0", "True", "False", "true", "false"} and len(found) > 1
