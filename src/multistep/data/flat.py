"""Flat rows that were made of nested ones, and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from multistep.data.walk import few

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Flat:
    """Flat rows, which of the nested ones each is from, and what is to be said of it."""

    rows: list[dict[str, Any]]
    origins: list[int]
    notes: tuple[str, ...]


Forms: TypeAlias = Sequence[tuple[Callable[[Row], bool], Callable[[Path, Sequence[Row]], Flat]]]  # whether, and how


def with_label(rows: list[dict[str, Any]], name: str, held: Sequence[Any]) -> None:
    """Adds a column: what was chosen, as a list only where some rows have several; None where nothing was."""
    single = all(not isinstance(value, list) or len(value) < 2 for value in held)
    for row, value in zip(rows, held, strict=True):
        row[name] = (value[0] if single else value) if isinstance(value, list) and value else None


def with_parts(rows: list[dict[str, Any]], held: Sequence[Sequence[Any]]) -> None:
    """Adds a column of the first mark of a part in each row, of which whoever wants classes says what is wrong."""
    for row, value in zip(rows, held, strict=True):
        row["label"] = next(iter(value), None)


def said_of(path: Path, rows: list[dict[str, Any]], notes: list[str], origins: Sequence[int] | None = None) -> Flat:
    labels = [row.get("label") for row in rows]
    told = Counter(str(label) for label in labels if isinstance(label, str))
    if told and len(told) + labels.count(None) <= len(labels):
        notes[0] += f"; labels: {few(f'{name} ({count:,})' for name, count in told.most_common())}"
    return Flat(rows, list(range(len(rows))) if origins is None else list(origins), tuple(notes))
