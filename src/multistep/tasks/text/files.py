"""Whatever a user calls "my text" -> documents: text files, folders, tables, Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError, nearest
from multistep.tasks.splits import held_out, held_out_source, split_rows, together
from multistep.tasks.tables import (
    TABLES,
    Table,
    existing_file,
    kind_of,
    named_tables,
    naming,
    quoted,
    read_table,
    read_text,
)
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
    `save_to_disk` or a hub id, "name", "owner/name" or "owner/name:configuration". "python-manual": see
    `python_manual`. Of a source that holds several splits, the test split, else the validation split.
    CRLF becomes LF; a byte-order mark and empty documents are dropped.
    """
    held = held_out_source(DataSpec(source=source))
    return held_out(read_parts(held, text_column=text_column))


def read_parts(source: str, *, text_column: str | None = None) -> dict[str, Documents]:
    """One source by the splits that it names: those of a Hugging Face data set or of a column; else all under ""."""
    if source == MANUAL:
        return {"": _documents(python_manual(), [], MANUAL)}
    named = named_tables(source)
    if named is not None:
        if len(named) > 1:
            return {name: _documents(*_texts_of(table, text_column), table.origin) for name, table in named.items()}
        ((name, table),) = named.items()
        parts = _texts_by_split(table, text_column)
        return {split or name: _documents(*part, table.origin) for split, part in parts.items()}
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, text_column)
    return {split: _documents(*part, source) for split, part in _read_file(path, text_column).items()}


def _read_folder(folder: Path, text_column: str | None) -> dict[str, Documents]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    kinds = {kind_of(path) for path in files}
    kind = next((kind for kind in _FOLDER_KINDS if kind in kinds), None)
    if kind is None:
        raise DataError(
            f"{folder}: no file to read in this folder; allowed: {', '.join(_FOLDER_KINDS)} "
            "(folders inside it are not read)"
        )
    chosen = [path for path in files if kind_of(path) == kind]
    left_out = len(files) - len(chosen)
    said = [f"{folder}: files left out because they are not {kind}: {left_out}"] if left_out else []
    found = {}
    for split, parts in together({str(path): _read_file(path, text_column) for path in chosen}).items():
        texts = [text for part, _ in parts for text in part]
        found[split] = _documents(texts, [*said, *(note for _, notes in parts for note in notes)], str(folder))
    return found


Part = tuple[list[str], list[str]]  # texts and notes


def _read_file(path: Path, text_column: str | None) -> dict[str, Part]:
    """What one file has of each split."""
    kind = kind_of(existing_file(path))
    if kind in TABLES:
        return _texts_by_split(read_table(path), text_column)
    said = "a .json file is read as running text; for a document a row, save it as .jsonl"
    return {"": ([read_text(path)], [f"{path}: {said}"] if kind == ".json" else [])}


def _texts_by_split(table: Table, wanted: str | None) -> dict[str, Part]:
    table, parts = split_rows(table, (wanted,))
    texts, notes = _texts_of(table, wanted)
    return {split: ([texts[i] for i in rows], notes) for split, rows in parts.items()}


def _texts_of(table: Table, wanted: str | None) -> Part:
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
        problem = "which column is the text?" if texts else "no column holds text;"
        raise DataError(f"{where}: {problem} columns: {quoted(is_text)}; name it with {naming('text_column')}")
    others = f" (of {quoted(is_text)})" if len(is_text) > 1 else ""
    return matches[0], [f"{where}: the text is taken from column '{matches[0]}'{others}"]


def _documents(texts: Sequence[str], notes: list[str], origin: str) -> Documents:
    kept = tuple(text.replace("\r\n", "\n") for text in texts if text.strip())
    if not kept:
        raise DataError(f"{origin}: there is no text in it; name a source with text")
    for number, text in enumerate(kept, start=1):
        if not text.isascii() and re.search("[\ud800-\udfff]", text):  # JSON can spell out half a character
            raise DataError(f"{origin}: document {number} holds half a surrogate pair (\\ud800 to \\udfff)")
    if dropped := len(texts) - len(kept):
        notes = [*notes, f"{origin}: empty documents dropped: {dropped}"]
    return Documents(kept, len(kept) == 1, origin, tuple(notes))
