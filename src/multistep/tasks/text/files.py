"""Whatever a user calls "my text" -> documents: text files, folders, tables, Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.form import Form, Parts
from multistep.data.long import LongText
from multistep.data.objects import table_in
from multistep.data.sources import by_column, rows_of_folder
from multistep.data.splits import held_out_table
from multistep.data.table import Table, naming, of_columns, quoted
from multistep.data.text import TABLES, kind_of, read_said
from multistep.data.trees import CODE, PROSE, text_size, texts_below
from multistep.data.walk import visible
from multistep.errors import DataError, nearest
from multistep.tasks.text.manual import MANUAL, python_manual

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
    "poem",
    "lyrics",
)
_NUMBERING = frozenset({"id", "idx", "index", "guid", "uid", "uuid", "unnamed: 0", ""})
_LOOKED_AT = 1000  # rows
_LONGER = 3.0  # times: what a text is to a title


@dataclass(frozen=True)
class Documents:
    """Texts that have nothing to do with each other, or one running text (`contiguous`)."""

    texts: tuple[str, ...]
    contiguous: bool
    origin: str
    notes: tuple[str, ...] = ()  # what was guessed or dropped, to be said aloud


def _manual() -> Parts:
    return {"": of_columns(MANUAL, {"text": python_manual()})}


def _one_text(path: Path, data: DataSpec) -> Parts:
    """A file that is one running text; a .json file that holds rows is a table."""
    text, notes = read_said(path, data.encoding)
    if kind_of(path) == ".json":
        if (table := table_in(path, text)) is not None:
            return by_column(table, data, FORM)
        notes = (*notes, f"{path}: holds no list of objects, so it is read as running text")
    return {"": of_columns(str(path), {"text": [text]}, [str(path)], notes=notes)}


def _one_long_text(path: Path, data: DataSpec) -> Parts:
    """The same of a file that memory should not hold."""
    if kind_of(path) == ".json":
        return _one_text(path, data)
    text = LongText(path, data.encoding)
    notes = text.notes()
    columns = {"text": [text]}
    return {
        "": Table(
            str(path),
            {"text": True},
            [1],
            "row",
            columns.__getitem__,
            notes=notes,
            roles={"text": "text"},
            place_of=lambda _: str(path),
            each_of=columns.__getitem__,
        )
    }


def _read_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    """Tables where they lie in the folder itself and nothing that is text does; else all texts, at any depth."""
    files = [path for path in visible(folder) if path.is_file()]
    kinds = {kind_of(path) for path in files}
    inside = any(path.is_dir() for path in visible(folder))
    if inside and kinds & set(form.tables) and _is_mostly_text(folder, files, form):
        return {"": texts_below(folder, data.encoding, long=form.long)}
    if not inside and kinds & {".txt", *form.tables}:
        return rows_of_folder(folder, data, form)
    if kinds & set(form.tables) and not any(kind in kinds for kind in (*PROSE, *CODE) if kind != ".md"):
        return rows_of_folder(folder, data, form)
    return {"": texts_below(folder, data.encoding, long=form.long)}


def _is_mostly_text(folder: Path, files: Sequence[Path], form: Form) -> bool:
    """Whether the texts and the code below a folder are more than its tables, as in a program's repository."""
    tables = sum(path.stat().st_size for path in files if kind_of(path) in form.tables)
    return text_size(folder) > tables


TEXT_TABLES = tuple(kind for kind in TABLES if kind != ".json")  # which may be running text
# A folder is read by the first kind that it holds.
FORM = Form(
    "text",
    f"{', '.join(TABLES)}, text files, or a folder of them",
    tables=TEXT_TABLES,
    kinds=(".txt", *TEXT_TABLES, ".json", ".md"),
    made={MANUAL: _manual},
    read_file=_one_text,
    folder=_read_folder,
    tree=True,
)
LONG_FORM = replace(FORM, read_file=_one_long_text, long=True)


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
    data = DataSpec(source=source, text_column=text_column)
    return documents_of(held_out_table(data, FORM), text_column)


def documents_of(table: Table, text_column: str | None) -> Documents:
    """The documents of a table, a row each. Raises DataError for what is no text."""
    column, said = text_column_of(table, text_column)
    texts, origin, notes = table.strings(column), table.origin, [*table.notes, *said]
    kept = tuple(text.replace("\r\n", "\n") for text in texts if text.strip())
    if not kept:
        raise DataError(f"{origin}: there is no text in it; name a source with text")
    for number, text in enumerate(kept, start=1):
        if not text.isascii() and re.search("[\ud800-\udfff]", text):  # JSON can spell out half a character
            raise DataError(f"{origin}: document {number} holds half a surrogate pair (\\ud800 to \\udfff)")
    if dropped := len(texts) - len(kept):
        notes.append(f"{origin}: empty documents dropped: {dropped}")
    return Documents(kept, len(kept) == 1, origin, tuple(notes))


def text_column_of(table: Table, wanted: str | None) -> tuple[str, list[str]]:
    """The column that holds the texts, and a note if it was guessed. Raises DataError where none or several may."""
    known = table.roles.get("text")
    return (known, []) if known is not None and wanted is None else _pick_column(table, wanted)


def _pick_column(table: Table, wanted: str | None) -> tuple[str, list[str]]:
    """The column that holds the text, and a note if it was guessed."""
    where, is_text = table.origin, table.is_text
    if wanted is not None:
        if wanted not in is_text:
            raise DataError(f"{where}: no column '{wanted}'; columns: {quoted(is_text)}.{nearest(wanted, is_text)}")
        return wanted, []
    texts = [column for column, yes in is_text.items() if yes and column.strip().lower() not in _NUMBERING]
    for usual in (("text",), _USUAL_COLUMNS):
        matches = [column for column in texts if column.strip().lower() in usual]
        if len(matches) == 1:
            break
    else:
        matches = _longest(table, texts)
    if len(matches) != 1:
        problem = "which column is the text?" if texts else "no column holds text;"
        raise DataError(
            f"{where}: {problem} columns: {quoted(is_text)}{_nested(table)}; name it with {naming('text_column')}"
        )
    others = f" (of {quoted(is_text)})" if len(is_text) > 1 else ""
    return matches[0], [f"{where}: the text is taken from column '{matches[0]}'{others}"]


def _longest(table: Table, names: Sequence[str]) -> list[str]:
    """The column whose texts are much longer than all others', if there is one, such as a poem beside its title."""
    if len(names) < 2:
        return list(names)
    some = {name: [str(value) for value in _first(table, name) if value is not None] for name in names}
    means = {name: sum(map(len, held)) / max(1, len(held)) for name, held in some.items()}
    first, second = sorted(means, key=lambda name: -means[name])[:2]
    return [first] if means[first] >= _LONGER * means[second] else list(names)


def _nested(table: Table) -> str:
    """Which columns hold lists or objects, in which no text is looked for."""
    held = [name for name, text in table.is_text.items() if not text and _is_nested(_first(table, name))]
    return f" ({quoted(held)}: lists or objects, in which no text is looked for)" if held else ""


def _first(table: Table, name: str) -> list[object]:
    return list(islice(table.each(name), _LOOKED_AT))


def _is_nested(values: Sequence[object]) -> bool:
    return any(isinstance(value, list | dict) for value in values)
