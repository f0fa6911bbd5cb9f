"""Whatever a user calls "my text" -> documents: text files, folders, tables, Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multistep.errors import DataError, nearest
from multistep.tasks.tables import TABLES, Table, existing_file, kind_of, named_tables, quoted, read_table, read_text
from multistep.tasks.text.manual import MANUAL, python_manual

_FOLDER_KINDS = (".txt", *TABLES, ".md")  # a folder is read by the first kind that it holds
_USUAL_COLUMNS = (
    "content",
    "document",
    "body",
    "article",
    "story",
    "passage",
    "sentence",
    "review",
    "text_a",
)


@dataclass(frozen=True)
class Documents:
    """Texts that have nothing to do with each other, or one running text (`contiguous`)."""

    texts: tuple[str, ...]
    contiguous: bool
    origin: str
    notes: tuple[str, ...] = ()  # what was guessed or dropped, to be said aloud


def read_documents(source: str, *, text_column: str | None = None) -> Documents:
    """Read one source; raises DataError, with the place in the file, for whatever cannot be read.

    A text file (.txt, .md, anything not named below) is one running text. A row of .jsonl, .csv (first line:
    column names), .tsv (no quoting) or .parquet is a document, its text in `text_column`, which is guessed
    where obvious. All but .parquet may end in .gz. A folder: all its .txt files, else its .jsonl files, and
    so on, sorted by name; folders inside it are not read. A Hugging Face data set: a folder made by
    `save_to_disk` or a hub id, "name", "owner/name" or "owner/name:configuration"; of several splits, the one
    called train. "python-manual": see `python_manual`.
    CRLF becomes LF; a byte-order mark and empty documents are dropped.
    """
    named = read_named_splits(source, text_column=text_column)
    if named is not None:
        if len(named) == 1:
            return next(iter(named.values()))
        if "train" not in named:
            raise DataError(f"{source}: no split called train; it has {quoted(named)}")
        return named["train"]
    if source == MANUAL:
        return _documents(python_manual(), MANUAL, [])
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, text_column)
    texts, notes = _read_file(path, text_column)
    return _documents(texts, source, notes)


def read_named_splits(source: str, *, text_column: str | None = None) -> dict[str, Documents] | None:
    """The splits of a Hugging Face data set under its own names; None if `source` is no such data set."""
    tables = None if source == MANUAL else named_tables(source)
    if tables is None:
        return None
    splits = {}
    for split, table in tables.items():
        texts, notes = _texts_of(table, text_column)
        splits[split] = _documents(texts, table.origin, notes)
    return splits


def _read_folder(folder: Path, text_column: str | None) -> Documents:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    kinds = {kind_of(path) for path in files}
    kind = next((kind for kind in _FOLDER_KINDS if kind in kinds), None)
    if kind is None:
        raise DataError(
            f"{folder}: no file to read in this folder; allowed: {', '.join(_FOLDER_KINDS)} "
            "(folders inside it are not read)"
        )
    chosen = [path for path in files if kind_of(path) == kind]
    texts: list[str] = []
    notes = [f"{folder}: files left out because they are not {kind}: {len(files) - len(chosen)}"]
    notes = notes if len(chosen) < len(files) else []
    for path in chosen:
        more, said = _read_file(path, text_column)
        texts += more
        notes += said
    return _documents(texts, str(folder), notes)


def _read_file(path: Path, text_column: str | None) -> tuple[list[str], list[str]]:
    """Texts and notes of one file."""
    kind = kind_of(existing_file(path))
    if kind in TABLES:
        return _texts_of(read_table(path), text_column)
    said = "a .json file is read as running text; for a document a row, save it as .jsonl"
    return [read_text(path)], [f"{path}: {said}"] if kind == ".json" else []


def _texts_of(table: Table, wanted: str | None) -> tuple[list[str], list[str]]:
    column, notes = _pick_column(table.origin, table.is_text, wanted)
    return table.strings(column), [*table.notes, *notes]


def _pick_column(where: str, is_text: Mapping[str, bool], wanted: str | None) -> tuple[str, list[str]]:
    """The column that holds the text, and a note if it was guessed."""
    if wanted is not None:
        if wanted not in is_text:
            raise DataError(f"{where}: no column '{wanted}'; columns: {quoted(is_text)}.{nearest(wanted, is_text)}")
        return wanted, []
    texts = [column for column, yes in is_text.items() if yes]
    for usual in (("text",), _USUAL_COLUMNS):
        matches = [column for column in texts if column.strip().lower() in usual]
        if len(matches) == 1:
            break
    else:
        matches = texts
    if len(matches) != 1:
        problem = "no column holds text" if not texts else "which column is the text?"
        raise DataError(f"{where}: {problem} columns: {quoted(is_text)}; name it with text_column")
    others = f" (of {quoted(is_text)})" if len(is_text) > 1 else ""
    return matches[0], [f"{where}: the text is taken from column '{matches[0]}'{others}"]


def _documents(texts: Sequence[str], origin: str, notes: list[str]) -> Documents:
    kept = tuple(text.replace("\r\n", "\n") for text in texts if text.strip())
    if not kept:
        raise DataError(f"{origin}: there is no text in it; name a source with text")
    for number, text in enumerate(kept, start=1):
        if not text.isascii() and re.search("[\ud800-\udfff]", text):  # JSON can spell out half a character
            raise DataError(f"{origin}: document {number} holds half a surrogate pair (\\ud800 to \\udfff)")
    if dropped := len(texts) - len(kept):
        notes = [*notes, f"{origin}: empty documents dropped: {dropped}"]
    return Documents(kept, len(kept) == 1, origin, tuple(notes))
