"""Whatever a user calls "my text" -> documents: text files, folders, tables, Hugging Face data sets."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multistep.errors import DataError, nearest
from multistep.tasks.text.manual import MANUAL, python_manual

TABLES = (".jsonl", ".ndjson", ".parquet", ".csv", ".tsv")
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
            raise DataError(f"{source}: no split called train; it has {_list(named)}")
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
    path = Path(source).expanduser()
    marks = [(path / mark).is_file() for mark in ("dataset_dict.json", "dataset_info.json", "state.json")]
    saved = marks[0] or all(marks[1:])
    if not saved and (source == MANUAL or path.exists() or not _may_be_hub_id(path, source)):
        return None
    import datasets

    try:
        if saved:
            found = datasets.load_from_disk(str(path))
        else:
            name, _, configuration = source.partition(":")
            found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # the library raises its own kinds, OSError, ValueError and those of httpx
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if saved:
            raise DataError(f"{source}: not a data set that `datasets` can read ({reason})") from None
        hint = nearest(path.name, _names(path.parent))
        raise DataError(
            f"{source}: no such file or folder, and the Hugging Face hub gave no such data set ({reason}); "
            f"check the name and the network, or name a local file.{hint}"
        ) from None
    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    splits = {}
    for split, part in parts.items():
        where = f"{source}[{split}]" if len(parts) > 1 else source
        is_text = {
            column: getattr(kind, "dtype", None) in ("string", "large_string") for column, kind in part.features.items()
        }
        column, notes = _pick_column(where, is_text, text_column)
        texts = _strings(where, column, enumerate(part[column][:], start=1), "row")
        splits[str(split)] = _documents(texts, where, notes)
    return splits


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file, without .gz, in lower case; "" if it has none."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


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
    if not path.exists():
        here = path.parent
        hint = nearest(path.name, _names(here)) if here.is_dir() else f" There is no folder {here} either."
        raise DataError(f"{path}: no such file or folder; check the path.{hint}")
    kind = kind_of(path)
    if kind == ".parquet":
        return _read_parquet(path, text_column)
    text = _decode(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; name one with text in it")
    if kind in (".jsonl", ".ndjson"):
        return _read_json_lines(path, text, text_column)
    if kind in (".csv", ".tsv"):
        return _read_separated(path, text, text_column, tabs=kind == ".tsv")
    said = "a .json file is read as running text; for a document a row, save it as .jsonl"
    return [text], [f"{path}: {said}"] if kind == ".json" else []


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8, for instance with iconv")
    if (at := data.find(b"\0")) >= 0:
        allowed = "text, " + ", ".join(TABLES)
        raise DataError(f"{path}: byte {at} is NUL, so this is not a text file; allowed: {allowed}")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from behind the mark.
        at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"{path}: byte {at} is not UTF-8 (0x{data[at]:02x}); save the file as UTF-8, for instance with "
            "`iconv -f ITS_ENCODING -t UTF-8`"
        ) from None


def _read_json_lines(path: Path, text: str, wanted: str | None) -> tuple[list[str], list[str]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error.msg}, column {error.colno}); each line must be one object"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: not an object; each line must be like {{"text": "..."}}')
        rows.append((number, row))
    columns = dict.fromkeys(key for _, row in rows for key in row)
    # A column that mixes text with something else still counts: the error then names the row.
    is_text = {key: any(isinstance(row.get(key), str) for _, row in rows) for key in columns}
    column, notes = _pick_column(str(path), is_text, wanted)
    return _strings(str(path), column, ((number, row.get(column)) for number, row in rows), "line"), notes


def _read_separated(path: Path, text: str, wanted: str | None, *, tabs: bool) -> tuple[list[str], list[str]]:
    csv.field_size_limit(2**31 - 1)  # the library stops at 128 KiB, shorter than many documents
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,  # in .tsv a quotation mark is a character
        strict=True,  # else an open quotation mark swallows the rest of the file
    )
    rows: list[list[str]] = []
    header: list[str] | None = None
    try:
        for row in reader:
            if not row:
                continue
            if header is None:
                header = row
            elif len(row) != len(header):
                raise DataError(
                    f"{path}:{reader.line_num}: {len(row)} fields, but the first line names {len(header)}"
                    + ("" if tabs else '; put a text that holds commas between "quotation marks"')
                )
            else:
                rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not {path.suffix[1:]} ({error})") from None
    names = header or []
    is_text = {name: not all(_is_number(row[i]) for row in rows) for i, name in enumerate(names)}
    column, notes = _pick_column(str(path), is_text, wanted)
    return [row[names.index(column)] for row in rows], notes


def _read_parquet(path: Path, wanted: str | None) -> tuple[list[str], list[str]]:
    import pyarrow
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        is_text = {
            field.name: pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type)
            for field in schema
        }
        column, notes = _pick_column(str(path), is_text, wanted)
        values = parquet.read_table(path, columns=[column])[column].to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a parquet file that can be read ({error})") from None
    return _strings(str(path), column, enumerate(values, start=1), "row"), notes


def _pick_column(where: str, is_text: Mapping[str, bool], wanted: str | None) -> tuple[str, list[str]]:
    """The column that holds the text, and a note if it was guessed."""
    if wanted is not None:
        if wanted not in is_text:
            raise DataError(f"{where}: no column '{wanted}'; columns: {_list(is_text)}.{nearest(wanted, is_text)}")
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
        raise DataError(f"{where}: {problem} columns: {_list(is_text)}; name it with text_column")
    others = f" (of {_list(is_text)})" if len(is_text) > 1 else ""
    return matches[0], [f"{where}: the text is taken from column '{matches[0]}'{others}"]


def _strings(where: str, column: str, values: Iterable[tuple[int, object]], unit: str) -> list[str]:
    texts = []
    for number, value in values:
        if not isinstance(value, str):
            place = f"{where}:{number}" if unit == "line" else f"{where}: {unit} {number}"
            what = "missing or null" if value is None else type(value).__name__
            raise DataError(f"{place}: '{column}' is {what}, not a text; mend or remove the {unit}")
        texts.append(value)
    return texts


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


def _may_be_hub_id(path: Path, source: str) -> bool:
    shaped = re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", source) is not None
    is_file_name = kind_of(path) in (*_FOLDER_KINDS, ".json") or path.suffix.lower() == ".gz"
    in_a_folder_here = "/" in source and path.parent.is_dir()
    return shaped and not source.startswith(".") and not is_file_name and not in_a_folder_here


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _is_number(value: str) -> bool:
    try:
        float(value or "0")
    except ValueError:
        return False
    return True
