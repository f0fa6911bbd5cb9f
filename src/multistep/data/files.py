"""A file that holds a table -> the table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from multistep.data.arrow import read_arrow
from multistep.data.columnar import read_parquet
from multistep.data.dialect import HEAD, Reading, cutting_alike
from multistep.data.objects import json_lines, read_objects
from multistep.data.separated import read_separated
from multistep.data.spreadsheets import read_sheet
from multistep.data.strangers import refuse_pages
from multistep.data.table import Table, of_columns
from multistep.data.text import TABLES, existing_file, kind_of, read_said
from multistep.errors import DataError

SEPARATED = (".csv", ".tsv", ".tab", ".psv")
FASTTEXT = "__label__"  # begins a line's labels, in the format of fastText


def read_table(path: Path, reading: Reading = Reading()) -> Table:  # noqa: B008  # a frozen value
    """The table of a .jsonl, .ndjson, .json, .csv, .tsv, .xlsx or .parquet file; those of text may end in .gz.

    What is said of neither delimiter, header nor encoding is found in the file, and noted. Raises DataError, with the
    place in the file.
    """
    return replace(_read(path, reading), folder=path.parent)


def _read(path: Path, reading: Reading) -> Table:
    kind = kind_of(path)
    if kind == ".parquet":
        return read_parquet(existing_file(path))
    if kind in (".arrow", ".feather"):
        return read_arrow(existing_file(path))
    if kind == ".xlsx":
        return read_sheet(existing_file(path), reading)
    text, notes = read_said(path, reading.encoding)
    refuse_pages(path, text)
    if kind in (".jsonl", ".ndjson"):
        table = read_objects(path, text) if text.lstrip().startswith("[") else json_lines(path, text)
    elif kind == ".txt" and text.startswith(FASTTEXT):
        table = _fasttext(path, text)
    elif kind == ".txt" and (first := label_first(path, text)) is not None:
        table = first
    elif kind in (*SEPARATED, ".txt"):
        table = read_separated(path, text, kind, reading)
    elif kind == ".json":
        table = read_objects(path, text)
    else:
        raise DataError(f"{path}: not a table; allowed: {', '.join(TABLES)}")
    return replace(table, notes=(*notes, *table.notes))


def _fasttext(path: Path, text: str) -> Table:
    """Lines of labels, each with its mark, and then the text."""
    texts, labels, numbers = [], [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        words = line.split()
        marked = [word for word in words if word.startswith(FASTTEXT)]
        labels.append([word.removeprefix(FASTTEXT) for word in marked])
        texts.append(" ".join(words[len(marked) :]))
        numbers.append(number)
    single = all(len(held) == 1 for held in labels)
    columns: dict[str, Sequence[object]] = {"text": texts, "label": [held[0] for held in labels] if single else labels}
    return replace(
        of_columns(str(path), columns), numbers=numbers, unit="line", notes=(f"{path}: read as lines of fastText",)
    )


_TREC = re.compile(r"[A-Z]{3,}:\w+")  # DESC:manner, before a question
_RATING = re.compile(r"[-+]?\d")
_MOST_RATINGS = 10


def label_first(path: Path, text: str) -> Table | None:
    """Lines that begin with a label as of TREC, or with a figure that repeats as of the SST; None of others."""
    numbered = [
        (number, line.split(maxsplit=1)) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]
    if len(numbered) < 2 or any(len(words) < 2 for _, words in numbered):
        return None
    counts = Counter(words[0] for _, words in numbered)
    of_trec = all(map(_TREC.fullmatch, counts))
    rated = all(map(_RATING.fullmatch, counts)) and len(counts) <= _MOST_RATINGS and min(counts.values()) > 1
    if len(counts) < 2 or not (of_trec or (rated and cutting_alike(text[:HEAD]) is None)):
        return None
    columns = {"text": [words[1] for _, words in numbered], "label": [words[0] for _, words in numbered]}
    note = f"{path}: each line begins with its label, such as {numbered[0][1][0]}"
    return replace(of_columns(str(path), columns), numbers=[n for n, _ in numbered], unit="line", notes=(note,))
