"""Rows of texts with their labels as they stand in a source: tables, folders of them, Hugging Face data sets."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.language.columns import Columns, find_columns
from multistep.tasks.language.docstrings import DOCSTRINGS, python_docstrings
from multistep.tasks.language.labels import is_missing
from multistep.tasks.splits import split_files, split_rows, together
from multistep.tasks.tables import (
    TABLES,
    Table,
    is_number,
    is_saved_set,
    kind_of,
    named_tables,
    naming,
    quoted,
    read_table,
)
from multistep.tasks.text.manual import MANUAL


@dataclass(frozen=True)
class Rows:
    """Texts, their pairs if they have such, and raw labels (None without a label column), all of equal length.

    `place` says where a row stands; `names` what numbers in the label column mean, where the source knows.
    """

    origin: str
    texts: tuple[str, ...]
    seconds: tuple[str, ...] | None
    labels: tuple[object, ...] | None
    place: Callable[[int], str]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Rows:
        """Some of the rows."""
        place = self.place
        return replace(
            self,
            texts=tuple(self.texts[i] for i in rows),
            seconds=None if self.seconds is None else tuple(self.seconds[i] for i in rows),
            labels=None if self.labels is None else tuple(self.labels[i] for i in rows),
            place=lambda i: place(rows[i]),
        )

    def whole(self, row: int) -> str:
        """Both texts of a row as one string, by which equal rows are found."""
        return self.texts[row] if self.seconds is None else f"{self.texts[row]}\0{self.seconds[row]}"


NAMES_HIDDEN = (
    f"{DOCSTRINGS}: the name of a text's own package is replaced by '...' in it, since it would give the answer away"
)


def read_parts(source: str, data: DataSpec, *, labelled: bool) -> dict[str, Rows]:
    """One source by the splits that it names: a Hugging Face data set's, or those of a column; else all under "".

    A table, a folder of tables, a data set, or the docstrings. Rows without text, or without a label where one is
    needed, are left out and counted. Raises DataError that names the place.
    """
    if source == DOCSTRINGS:
        texts, packages = python_docstrings()
        said = (NAMES_HIDDEN,)
        return {"": Rows(DOCSTRINGS, texts, None, packages, lambda i: f"{DOCSTRINGS}: text {i + 1}", notes=said)}
    named = named_tables(source)
    if named is not None:
        if len(named) > 1:
            return {
                name: _of_table(table, _columns(table, data, labelled), data, labelled) for name, table in named.items()
            }
        ((name, table),) = named.items()
        return {split or name: part for split, part in _by_split(table, data, labelled).items()}
    path = Path(source).expanduser()
    if not path.is_dir():
        return _by_split(read_table(path), data, labelled)
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    kind = next((kind for kind in TABLES if any(kind_of(p) == kind for p in files)), None)
    if kind is None:
        raise DataError(f"{path}: no table in this folder; allowed: {', '.join(TABLES)}")
    chosen = [p for p in files if kind_of(p) == kind]
    left_out = len(files) - len(chosen)
    notes = (f"{path}: files left out because they are not {kind}: {left_out}",) if left_out else ()
    tables = together({str(p): _by_split(read_table(p), data, labelled) for p in chosen})
    return {split: _joined(str(path), parts, notes) for split, parts in tables.items()}


def is_table(source: str) -> bool:
    """Whether a source holds rows, rather than running text: by its names alone."""
    path = Path(source).expanduser()
    if source == MANUAL:
        return False
    if source == DOCSTRINGS or kind_of(path) in TABLES:
        return True
    if path.is_dir():
        if files := split_files(source)[0]:
            return is_table(next(iter(files.values())))
        kinds = {kind_of(p) for p in path.iterdir() if not p.name.startswith(".")}
        return ".txt" not in kinds and (bool(kinds & set(TABLES)) or is_saved_set(path))
    return not path.exists() and kind_of(path) == ""  # a hub id


def _by_split(table: Table, data: DataSpec, labelled: bool) -> dict[str, Rows]:
    """The rows of each split by the table's own column, all read alike; "" has them where there is no such column."""
    table, parts = split_rows(table, (data.text_column, data.second_text_column, data.label_column))
    columns = _columns(table, data, labelled)
    if len(parts) == 1:
        return {split: _of_table(table, columns, data, labelled) for split in parts}
    return {split: _of_table(table.take(rows), columns, data, labelled) for split, rows in parts.items()}


def _columns(table: Table, data: DataSpec, labelled: bool) -> Columns:
    if not len(table):
        raise DataError(f"{table.origin}: there is no row below the names of the columns")
    return find_columns(table, data, labelled=labelled)


def _of_table(table: Table, columns: Columns, data: DataSpec, labelled: bool) -> Rows:
    texts = _texts(table, columns.text)
    seconds = _texts(table, columns.second) if columns.second else None
    labels = table.column(columns.label) if columns.label else None
    names = table.class_names.get(columns.label, ()) if columns.label else ()
    if labels is not None and all(is_missing(v, named=True) or v in ("-1", -1) for v in labels):
        labels = None  # a test split whose labels are kept secret
        if labelled:
            labels = tuple([None] * len(table))
    several = data.labels == "classes"
    kept, empty, unlabelled = [], [], []
    for i, text in enumerate(texts):
        if not text.strip() or (seconds and not seconds[i].strip()):
            empty.append(i)
        elif labelled and labels is not None and is_missing(labels[i], several=several, named=bool(names)):
            unlabelled.append(i)
        else:
            kept.append(i)
    notes = [*table.notes, *columns.notes]
    if empty:
        notes.append(f"{table.origin}: rows left out because they have no text: {len(empty)} ({table.place(empty[0])})")
    if unlabelled and kept:
        first = table.place(unlabelled[0])
        notes.append(f"{table.origin}: rows left out because they have no label: {len(unlabelled)} (first: {first})")
    if not kept and not unlabelled:
        where = f"{table.origin}: no row has a text in column '{columns.text}'"
        raise DataError(f"{where}; name another with {naming('text_column')}")
    everything = Rows(
        table.origin,
        tuple(texts),
        tuple(seconds) if seconds else None,
        tuple(labels) if labels is not None else None,
        table.place,
        names,
        tuple(notes),
    )
    return everything.take(kept)


def _texts(table: Table, name: str) -> list[str]:
    """A column of texts, without half characters. Raises DataError for numbers, with the first row's place."""
    values = table.column(name)
    found: list[str] = []
    for i, value in enumerate(values):
        if value is None:
            found.append("")
        elif isinstance(value, str):
            if not value.isascii() and re.search("[\ud800-\udfff]", value):  # JSON can spell out half a character
                raise DataError(f"{table.place(i)}: '{name}' holds half a surrogate pair (\\ud800 to \\udfff)")
            found.append(value)
        else:
            what = f"{value!r}, a {type(value).__name__}"
            raise DataError(
                f"{table.place(i)}: '{name}' is {what}, not a text; name another column with "
                f"{naming('text_column')}; columns: {quoted(table.names)}"
            )
    said = [(i, text) for i, text in enumerate(found) if text.strip()]
    if said and all(is_number(text) for _, text in said):
        raise DataError(
            f"{table.place(said[0][0])}: '{name}' is {said[0][1]!r}: the whole column holds numbers, not text; name "
            f"another with {naming('text_column')}; columns: {quoted(table.names)}"
        )
    return found


def _joined(origin: str, parts: Sequence[Rows], notes: tuple[str, ...]) -> Rows:
    """Several tables as one, in their order."""
    ends = list(accumulate(len(part) for part in parts))
    paired = parts[0].seconds is not None
    for part in parts:
        if (part.seconds is not None) != paired:
            raise DataError(
                f"{part.origin}: has other columns than {parts[0].origin}; name data.text_column and its pair"
            )

    def place(row: int) -> str:
        which = bisect_right(ends, row)
        return parts[which].place(row - (ends[which - 1] if which else 0))

    labelled = all(part.labels is not None for part in parts)
    return Rows(
        origin,
        tuple(text for part in parts for text in part.texts),
        tuple(text for part in parts for text in part.seconds or ()) if paired else None,
        tuple(label for part in parts for label in part.labels or ()) if labelled else None,
        place,
        parts[0].names,
        (*notes, *(note for part in parts for note in part.notes)),
    )
