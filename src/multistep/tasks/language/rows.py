"""Rows of texts with their labels as they stand in a source: tables, folders of them, Hugging Face data sets."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from multistep.core.values.plan import DataSpec
from multistep.data.class_files import class_files, holds_class_files, may_be_table, tables_of_classes
from multistep.data.classes import SPLIT, TEXTS, text_classes
from multistep.data.dialect import Reading, is_number
from multistep.data.files import label_first, read_table
from multistep.data.folders import split_paths
from multistep.data.form import Form, Parts
from multistep.data.opening import opened
from multistep.data.parallel import holds_parallel_texts, parallel_texts
from multistep.data.separated import read_separated
from multistep.data.sets import is_hub_folder, is_saved_set
from multistep.data.sources import by_column, rows_of_files, rows_of_folder
from multistep.data.strangers import what_else
from multistep.data.table import Table, joined, naming, of_columns, quoted
from multistep.data.text import TABLES, kind_of, read_said
from multistep.data.walk import few, is_about, visible
from multistep.errors import DataError
from multistep.tasks.as_trained import as_trained
from multistep.tasks.labelled.fields import is_missing
from multistep.tasks.language.columns import Columns, find_columns, named_label, with_label
from multistep.tasks.language.docstrings import DOCSTRINGS, python_docstrings
from multistep.tasks.language.refused import refuse_parts, refuse_questions
from multistep.tasks.text.corpus import LongTexts
from multistep.tasks.text.manual import MANUAL

NAMES_HIDDEN = (
    f"{DOCSTRINGS}: the name of a text's own package is replaced by '...' in it, since it would give the answer away"
)


Hold: TypeAlias = Callable[[Iterable[str]], Sequence[str]]  # texts as they come -> texts to be asked for
Keys = NDArray[np.uint64]  # hashes, by which equal texts are found; shape: rows, 2, in the order of their bytes
GOLD, NO_GOLD = "gold_label", "-"  # of SNLI and MNLI: pairs on which the annotators did not agree


def _docstrings() -> Parts:
    texts, packages = python_docstrings()
    places = [f"{DOCSTRINGS}: text {i + 1}" for i in range(len(texts))]
    return {"": of_columns(DOCSTRINGS, {"text": texts, "label": packages}, places, notes=(NAMES_HIDDEN,))}


def _read_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    """Files or folders that are named for classes, or else tables."""
    table = parallel_texts(folder, data.encoding) or class_files(folder, data.encoding)
    if table is None:
        table = text_classes(folder, data.encoding)
    if table is not None:
        return by_column(table, data, form) if SPLIT in table.names else {"": table}
    files = [path for path in visible(folder) if path.is_file() and not is_about(path)]
    if any(kind_of(path) in TABLES for path in files):
        return _rows_by_class(folder, files, data) or rows_of_folder(folder, data, form)
    kind = next((kind for kind in (".txt", "") if any(kind_of(path) == kind for path in files)), None)
    if kind is None:
        return rows_of_folder(folder, data, form)  # which says what there is
    chosen = [path for path in files if kind_of(path) == kind]
    if data.delimiter is None and not any(map(may_be_table, chosen)):
        raise DataError(
            f"{folder}: holds files of text ({few(path.name for path in chosen)}), none of them a table, and nothing "
            "says which class a text is of; allowed: a folder for each class, with a text a file; a file for each "
            "class, called like it, with a text a line (pos.txt, neg.txt); a table with a column of labels"
        )
    return rows_of_files(folder, chosen, data, form)


def _rows_by_class(folder: Path, files: Sequence[Path], data: DataSpec) -> Parts | None:
    """Tables of one class each, by their names, where no column says it: Fake.csv beside True.csv; None of others."""
    kind = next(kind for kind in TABLES if any(kind_of(path) == kind for path in files))
    chosen = [path for path in files if kind_of(path) == kind]
    if data.label_column is not None or len(chosen) < 2 or not tables_of_classes(chosen, known=False):
        return None
    tables = {path: read_table(path, Reading.of(data)) for path in chosen}
    names = [name for table in tables.values() for name in table.names]
    bare = all(len(table.names) == 1 for table in tables.values())
    classes = tables_of_classes(chosen, known=not bare)
    if not classes or named_label(next(iter(tables.values())), names):
        return None
    counts = few(f"{classes[path]} ({len(table):,})" for path, table in tables.items())
    note = f"{folder}: the class is the name of each table: {counts}; data.label_column names a column instead"
    labelled = [_with_label(table, classes[path]) for path, table in tables.items()]
    return {"": joined(str(folder), labelled, note)}


def _with_label(table: Table, label: str) -> Table:
    values, each, rows = table.values, table.each_of, len(table)
    return replace(
        table,
        is_text={**table.is_text, "label": True},
        values=lambda name: [label] * rows if name == "label" else values(name),
        each_of=None if each is None else lambda name: [label] * rows if name == "label" else each(name),
    )


def _read_other(path: Path, data: DataSpec) -> Parts | None:
    """A file whose name says nothing, such as SMSSpamCollection: a table where its lines are those of one."""
    table = lines_of(path, Reading.of(data))
    return by_column(table, data, FORM) if table is not None and len(table.names) > 1 else None


def lines_of(path: Path, reading: Reading) -> Table | None:
    """The table of a file whose name says nothing; None of what is no text. Raises DataError."""
    if what_else(path) is not None:
        return None
    text, said = read_said(path, reading.encoding)
    table = label_first(path, text) or read_separated(path, text, ".txt", reading)
    return table.saying(*said)


FORM = Form(
    "labelled texts",
    f"{', '.join(TABLES)}, a .txt file with a separator in each line, a folder of them, class folders of texts, or "
    "a file for each class with a text a line",
    tables=(*TABLES, ".txt"),
    items=tuple(suffix for suffix in TEXTS if suffix),
    made={DOCSTRINGS: _docstrings},
    read_file=_read_other,
    folder=_read_folder,
    by_class=lambda folder: holds_parallel_texts(folder) or holds_class_files(folder),
)


LONG_FORM = replace(FORM, long=True)


@dataclass(frozen=True)
class Rows:
    """Texts, their pairs if they have such, and raw labels (None without a label column), all of equal length.

    `place` says where a row stands; `names` what numbers in the label column mean, where the source knows.
    """

    origin: str
    texts: Sequence[str]  # LongTexts, where memory should not hold them
    seconds: Sequence[str] | None
    labels: tuple[object, ...] | None
    place: Callable[[int], str]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Columns | None = None  # of the table that they were read from
    hashed: Keys | None = None  # the `keys`, where they are known already

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Rows:
        """Some of the rows."""
        place, keys = self.place, self.__dict__.get("keys", self.hashed)
        return replace(
            self,
            texts=_taken(self.texts, rows),
            seconds=None if self.seconds is None else _taken(self.seconds, rows),
            labels=None if self.labels is None else tuple(self.labels[i] for i in rows),
            place=lambda i: place(rows[i]),
            hashed=None if keys is None else keys[np.asarray(rows, np.int64)],
        )

    @functools.cached_property
    def keys(self) -> Keys:
        """A hash of each row's texts without the white space around them."""
        return keys_of(map(self.whole, range(len(self)))) if self.hashed is None else self.hashed

    def whole(self, row: int) -> str:
        """Both texts of a row as one string, by which equal rows are found."""
        return self.texts[row] if self.seconds is None else f"{self.texts[row]}\0{self.seconds[row]}"


def _taken(texts: Sequence[str], rows: Sequence[int]) -> Sequence[str]:
    return texts.take(rows) if isinstance(texts, LongTexts) else tuple(texts[i] for i in rows)


def keys_of(texts: Iterable[str]) -> Keys:
    """Their hashes, which are equal where the texts are, and in no order but that of chance."""
    found = b"".join(hashlib.blake2b(text.strip().encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(found, ">u8").astype(np.uint64).reshape(-1, 2)


def groups_of(*parts: Keys) -> list[NDArray[np.int64]]:
    """The number of the group of equal texts that each row is in, part by part; groups are numbered by their hashes."""
    keys = np.concatenate(parts)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    another = (keys[order[1:]] != keys[order[:-1]]).any(1)
    found = np.empty(len(keys), np.int64)
    found[order] = np.concatenate(([0], np.cumsum(another)))[: len(keys)]
    return np.split(found, np.cumsum([len(part) for part in parts[:-1]]))


def is_table(source: str) -> bool:
    """Whether a source holds rows, rather than running text: by its names alone."""
    if source == MANUAL:
        return False
    source, _ = opened(source, FORM)
    path = Path(source).expanduser()
    if source == DOCSTRINGS or kind_of(path) in TABLES:
        return True
    if path.is_dir():
        if files := split_paths(source, FORM)[0]:
            return is_table(next(iter(files.values()))[0])
        kinds = {kind_of(p) for p in visible(path)}
        return ".txt" not in kinds and (bool(kinds & set(TABLES)) or is_saved_set(path) or is_hub_folder(path))
    return not path.exists() and kind_of(path) == ""  # a hub id


def rows_of(table: Table, data: DataSpec, *, labelled: bool, like: Sequence[str] = (), hold: Hold = tuple) -> Rows:
    """The rows of a table. Those without text, or without a label where one is needed, are left out and counted.

    `like` are the columns of zeros and ones that the label was in the training data; `hold` says where texts are kept.
    Raises DataError that names the place.
    """
    if not len(table):
        raise DataError(f"{table.origin}: there is no row below the names of the columns")
    if labelled:
        refuse_questions(table, data)
    table, hot = with_label(table, data, like)
    columns = find_columns(table, data, labelled=labelled)
    texts = hold(_texts(table, columns.text))
    seconds = hold(_texts(table, columns.second)) if columns.second else None
    labels = table.column(columns.label) if columns.label else None
    names = table.class_names.get(columns.label, ()) if columns.label else ()
    if labels is not None and columns.label == GOLD:
        labels = [None if label == NO_GOLD else label for label in labels]
    if labels is not None and all(is_missing(v, named=True) or v in ("-1", -1) for v in labels):
        labels = None  # a test split whose labels are kept secret
        if labelled:
            labels = tuple([None] * len(table))
    if labelled and labels is not None and columns.label is not None:
        refuse_parts(table, labels, columns.label)
    several = data.labels == "classes"
    alone = not several and labels is not None and _are_alone(labels)
    if alone:
        labels = [label[0] if isinstance(label, list | tuple) else label for label in labels or ()]
    kept, empty, unlabelled = [], [], []
    for i, text in enumerate(texts):
        if not text.strip() or (seconds and not seconds[i].strip()):
            empty.append(i)
        elif labelled and labels is not None and is_missing(labels[i], several=several, named=bool(names)):
            unlabelled.append(i)
        else:
            kept.append(i)
    notes = [*table.notes, *columns.notes]
    if alone:
        said = "the lists of labels hold one each, so a row has one class (else data.labels: classes)"
        notes.append(f"{table.origin}: {said}")
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
        texts,
        seconds,
        tuple(labels) if labels is not None else None,
        table.place,
        names,
        tuple(notes),
        replace(columns, hot=hot),
    )
    return everything.take(kept)


def _are_alone(labels: Sequence[object]) -> bool:
    """Whether labels are lists of a single name each, as tools for labelling write them."""
    lists = [label for label in labels if isinstance(label, list | tuple)]
    named = all(len(held) == 1 and isinstance(held[0], str) for held in lists)
    return bool(lists) and named and all(isinstance(v, list | tuple) or is_missing(v) for v in labels)


def columns_like(data: DataSpec, columns: Mapping[str, str], table: Table) -> DataSpec:
    """The data with the columns that another table was read by (by the keys of a plan's data), where this one has them.

    What the data name themselves stays. A table without the text column is read as one that nobody knows.
    """
    known = as_trained(data, columns, table)
    return known if known.text_column != data.text_column else data


def _texts(table: Table, name: str) -> Iterator[str]:
    """A column of texts, without half characters. Raises DataError for numbers, with the first row's place."""
    first: tuple[int, str] | None = None
    numbers = True
    for i, value in enumerate(table.each(name)):
        if value is None:
            yield ""
        elif isinstance(value, str):
            if not value.isascii() and re.search("[\ud800-\udfff]", value):  # JSON can spell out half a character
                raise DataError(f"{table.place(i)}: '{name}' holds half a surrogate pair (\\ud800 to \\udfff)")
            if numbers and value.strip():
                first = first or (i, value)
                numbers = numbers and is_number(value)
            yield value
        else:
            what = f"{value!r}, a {type(value).__name__}"
            raise DataError(
                f"{table.place(i)}: '{name}' is {what}, not a text; name another column with "
                f"{naming('text_column')}; columns: {quoted(table.names)}"
            )
    if first is not None and numbers:
        raise DataError(
            f"{table.place(first[0])}: '{name}' is {first[1]!r}: the whole column holds numbers, not text; name "
            f"another with {naming('text_column')}; columns: {quoted(table.names)}"
        )
