"""Rows of texts with their labels as they stand in a source: tables, folders of them, Hugging Face data sets."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from multistep.core.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.language.columns import find_columns
from multistep.tasks.language.docstrings import DOCSTRINGS, python_docstrings
from multistep.tasks.language.labels import is_missing
from multistep.tasks.tables import TABLES, Table, is_number, kind_of, named_tables, quoted, read_table


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


def read_rows(source: str, data: DataSpec, *, labelled: bool) -> Rows:
    """All rows of one source: a table, a folder of tables, or the docstrings. Raises DataError that names the place.

    Rows without text, or without a label where one is needed, are left out and counted.
    """
    if source == DOCSTRINGS:
        texts, packages = python_docstrings()
        return Rows(DOCSTRINGS, texts, None, packages, lambda i: f"{DOCSTRINGS}: text {i + 1}", notes=(NAMES_HIDDEN,))
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        kind = next((kind for kind in TABLES if any(kind_of(p) == kind for p in files)), None)
        if kind is None:
            raise DataError(f"{path}: no table in this folder; allowed: {', '.join(TABLES)}")
        chosen = [p for p in files if kind_of(p) == kind]
        left_out = len(files) - len(chosen)
        notes = (f"{path}: files left out because they are not {kind}: {left_out}",) if left_out else ()
        return _joined(str(path), [_of_table(read_table(p), data, labelled) for p in chosen], notes)
    return _of_table(read_table(path), data, labelled)


NAMES_HIDDEN = (
    f"{DOCSTRINGS}: the name of a text's own package is replaced by '...' in it, since it would give the answer away"
)


def read_named(source: str, data: DataSpec, *, labelled: bool) -> dict[str, Rows] | None:
    """The splits of a Hugging Face data set under its own names; None if `source` is none."""
    if source == DOCSTRINGS:
        return None
    tables = named_tables(source)
    if tables is None:
        return None
    return {name: _of_table(table, data, labelled) for name, table in tables.items()}


def is_table(source: str) -> bool:
    """Whether a source holds rows, rather than running text: by its names alone."""
    path = Path(source).expanduser()
    if source == DOCSTRINGS or kind_of(path) in TABLES:
        return True
    if path.is_dir():
        kinds = {kind_of(p) for p in path.iterdir() if not p.name.startswith(".")}
        return ".txt" not in kinds and bool(kinds & set(TABLES) or (path / "dataset_dict.json").is_file())
    return not path.exists() and kind_of(path) == ""  # a hub id


def _of_table(table: Table, data: DataSpec, labelled: bool) -> Rows:
    if not len(table):
        raise DataError(f"{table.origin}: there is no row below the names of the columns")
    columns = find_columns(table, data, labelled=labelled)
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
        raise DataError(f"{table.origin}: no row has a text in column '{columns.text}'; name another with text_column")
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
                f"{table.place(i)}: '{name}' is {what}, not a text; name another column with text_column "
                f"(columns: {quoted(table.names)})"
            )
    said = [(i, text) for i, text in enumerate(found) if text.strip()]
    if said and all(is_number(text) for _, text in said):
        raise DataError(
            f"{table.place(said[0][0])}: '{name}' is {said[0][1]!r}: the whole column holds numbers, not text; name "
            f"another with text_column (columns: {quoted(table.names)})"
        )
    return found


def _joined(origin: str, parts: Sequence[Rows], notes: tuple[str, ...]) -> Rows:
    """Several tables as one, in their order."""
    ends = list(accumulate(len(part) for part in parts))
    paired = parts[0].seconds is not None
    for part in parts:
        if (part.seconds is not None) != paired:
            raise DataError(f"{part.origin}: has other columns than {parts[0].origin}; name text_column and its pair")

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
