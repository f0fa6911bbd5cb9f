"""Several columns of zeros and ones, one for each class -> one column of labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from multistep.data.table import Table, quoted

LABEL = "label"  # the column that is made
_SHOWN = 6  # names in a note
_MOST_SIGNS = 4  # different ones: 0, 1, 0.0 and 1.0


def hot_columns(table: Table, candidates: Sequence[str]) -> list[str]:
    """Those of the `candidates` that hold zeros and ones.

    Or True and False, or 1 and -1, whichever most of them hold.
    """
    written = {name: style for name in candidates if (style := _style(table.each(name))) is not None}
    styles = list(written.values())
    common = max(styles, key=styles.count, default=None)
    return [name for name, style in written.items() if style == common]


def with_one_label(table: Table, hot: Sequence[str], *, single: bool | None = None) -> Table:
    """The table with a column of labels instead of its columns `hot` of zeros and ones.

    A label is the name of the column that has a one, or a list of such names; `single` says which of both (None: one
    name where each row has a single one).
    """
    columns = [[str(value).strip().lower() in ("1", "1.0", "true") for value in table.column(name)] for name in hot]
    rows = [[name for name, held in zip(hot, row, strict=True) if held] for row in zip(*columns, strict=True)]
    alone = all(len(row) == 1 for row in rows)
    single = alone if single is None else single and alone
    labels: list[object] = [row[0] for row in rows] if single else list(rows)
    values, each, made = table.values, table.each_of, _free(table)
    kept = {name: text for name, text in table.is_text.items() if name not in hot}
    shown = quoted(hot[:_SHOWN]) + (", ..." if len(hot) > _SHOWN else "")
    kind = "one class a row" if single else "several classes a row"
    return replace(
        table,
        is_text={**kept, made: single},
        values=lambda name: labels if name == made else values(name),
        each_of=None if each is None else lambda name: labels if name == made else each(name),
        roles={**table.roles, "label": made},
        notes=(*table.notes, f"{table.origin}: labels from {len(hot)} columns of zeros and ones, {kind}: {shown}"),
    )


def _free(table: Table) -> str:
    name = LABEL
    while name in table.is_text:
        name += "_"
    return name


def _style(values: Iterable[object]) -> str | None:
    """Whether values are zeros and ones, and of both, by how they are written; None where they are not.

    Of these are ones and minus ones (CelebA's attributes).
    """
    found = set[str]()
    for value in values:
        found.add(str(value).strip().lower())
        if len(found) > _MOST_SIGNS:
            return None
    if found == {"1", "-1"}:
        return "signs"
    if found == {"true", "false"}:
        return "words"
    return "numbers" if found <= {"0", "1", "0.0", "1.0"} and len({float(each) for each in found}) > 1 else None
