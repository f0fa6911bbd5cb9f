"""What a model is asked about -> tables of rows: texts, files, folders of files, tables, data frames."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from multistep.data.archives import is_archive, unpacked
from multistep.data.dialect import Reading
from multistep.data.pieces import ALLOWED, STDIN, TEXT, of_table, read_pieces
from multistep.data.sets import is_saved_set, named_tables
from multistep.data.table import Table, quoted
from multistep.data.text import TABLES, existing_file, kind_of, names_in, read_text
from multistep.data.walk import files_below
from multistep.errors import DataError, nearest
from multistep.tasks.notes import say
from multistep.tasks.prediction import Predictor

FILE = "file"  # the column that names the files of a folder, and files given by hand
DOCUMENTS = (".txt",)  # in a folder each is one text
BY_HAND = "the inputs"
MOST_OF_NAME = 200  # characters; what is longer is no name of a file
Given: TypeAlias = Any  # a text, a path, a pair of texts, or turns of a conversation
ReadingOf: TypeAlias = Callable[[str], Reading]


@dataclass(frozen=True)
class Part:
    """Some rows of what was given, and which share of it is read by now (None where that is not known).

    `columns` make up the input; None: they are to be found among the table's. Files are named from `folder`.
    """

    table: Table
    folder: Path
    columns: tuple[str, ...] | None = None
    read: float | None = None


def holds_rows(given: Given, predictor: Predictor | None = None) -> bool:
    """Whether an input is no input itself but holds some: a table, a folder, an archive, or standard input. A file
    whose name has no ending is a table, but for predictors of files.
    """
    if not isinstance(given, str | Path):
        return False
    if given == STDIN or _is_folder(given):
        return True
    path = Path(given)
    bare = not path.suffix and not (predictor is not None and predictor.files)
    return _is_file(given) and (bare or kind_of(path) in ALLOWED or is_archive(path))


def holds_rows_in_python(given: Given, predictor: Predictor) -> bool:
    """The same of inputs that a program hands over, where a text is a text, whatever it happens to name here: a folder
    is told by its separator or as a Path, and nobody stands at standard input.
    """
    if predictor.files or not isinstance(given, str):
        return holds_rows(given, predictor)
    folder = any(sign and sign in given for sign in (os.sep, os.altsep)) and _is_folder(given)
    return folder or (_is_file(given) and kind_of(Path(given)) in ALLOWED)


def parts_of(
    inputs: Sequence[Given], predictor: Predictor, reading_of: ReadingOf, holds: Callable[[Given], bool] | None = None
) -> Iterator[Part]:
    """The rows of all inputs in their order, some at a time; a table is read as `reading_of` its name says. `holds`
    tells which inputs are no inputs themselves.

    Raises DataError for a file that nobody here reads, or that is not there.
    """
    holds = holds or partial(holds_rows, predictor=predictor)
    alone: list[Given] = []
    for number, given in enumerate(inputs):
        if not holds(given):
            alone.append(_checked(given, predictor))
            continue
        yield from _by_hand(alone, predictor)
        alone = []
        for part in _rows_in(str(given), predictor, reading_of):
            share = None if part.read is None else (number + part.read) / len(inputs)
            yield replace(part, read=share)
    yield from _by_hand(alone, predictor)


def _checked(given: Given, predictor: Predictor) -> Given:
    """An input by itself. Raises DataError for a file's name where texts are asked for, instead of reading the name."""
    if predictor.files or not isinstance(given, str | Path):
        return given
    if isinstance(given, Path) or _names_file(given):
        existing_file(Path(given).expanduser())
    if isinstance(given, Path) or (_is_file(given) and Path(given).suffix):
        raise DataError(
            f"{given}: is a file of a kind that is not read here; allowed: {', '.join(ALLOWED)}, or a folder of "
            f"{' and '.join(DOCUMENTS)}. If it is meant as a {predictor.unit}, send it through a pipe: predict MODEL -"
        )
    return given


def _names_file(given: str) -> bool:
    """Whether a text is the name of a table, there or not, rather than a sentence that ends in one."""
    path = Path(given[:MOST_OF_NAME])
    if len(given) > MOST_OF_NAME or kind_of(path) not in ALLOWED:
        return False
    if not any(map(str.isspace, given)):
        return True
    folder = path.expanduser().parent
    return _is_folder(folder) and (len(path.parts) > 1 or bool(nearest(path.name, names_in(folder))))


def _by_hand(alone: Sequence[Given], predictor: Predictor) -> Iterator[Part]:
    name = FILE if predictor.files else TEXT
    for start in range(0, len(alone), predictor.at_once):
        some = [_written(given) for given in alone[start : start + predictor.at_once]]
        numbers = range(start + 1, start + 1 + len(some))
        table = Table(BY_HAND, {name: True}, numbers, "row", lambda _, some=some: some)  # type: ignore[misc]
        yield Part(table, Path(), (name,), (start + len(some)) / len(alone))


def _written(given: Given) -> str:
    """An input as one writes it on a command line: a pair, or turns, as JSON."""
    return json.dumps(given, ensure_ascii=False) if isinstance(given, list | tuple | dict) else str(given)


def _rows_in(source: str, predictor: Predictor, reading_of: ReadingOf) -> Iterator[Part]:
    path = Path(source).expanduser()
    if source != STDIN and path.is_file() and is_archive(path):
        path = unpacked(path)
        source = str(path)
    if source != STDIN and path.is_dir():
        yield from _of_folder(path, predictor, reading_of)
        return
    folder = Path() if source == STDIN else path.parent
    reading = reading_of(source)
    own = predictor.reads(path, reading) if source != STDIN and kind_of(path) not in TABLES else None
    pieces = of_table(own, predictor.at_once) if own else read_pieces(source, predictor.at_once, reading)
    for piece in pieces:
        table = piece.table if source == STDIN else replace(piece.table, folder=folder)
        yield Part(table, folder, None, piece.read)


# Folders ----------------------------------------------------------------------------------------------


def _of_folder(folder: Path, predictor: Predictor, reading_of: ReadingOf) -> Iterator[Part]:
    """The rows of a folder that is a data set of its own; else each file of the kind that is asked for as a row, at any
    depth; else the tables in it, one after the other.
    """
    if is_saved_set(folder):
        saved = named_tables(str(folder)) or {}
        say([f"{folder}: all splits are answered: {', '.join(saved)}"] if len(saved) > 1 else [])
        yield from _of_tables(list(saved.values()), folder, predictor)
        return
    if (own := predictor.reads(folder, reading_of(str(folder)))) is not None:
        yield from _of_tables([own], folder, predictor)
        return
    files = [path for path, hidden in files_below(folder) if not hidden]
    suffixes = predictor.files or DOCUMENTS
    chosen = [path for path in files if path.suffix.lower() in suffixes]
    tables = [path for path in files if kind_of(path) in TABLES]
    if not chosen and tables:
        left = len(files) - len(tables)
        say([f"{folder}: files left out because they are no tables: {left}"] if left else [])
        for number, path in enumerate(tables):
            for part in _rows_in(str(path), predictor, reading_of):
                yield replace(part, read=(number + (part.read or 0.0)) / len(tables))
        return
    if not chosen:
        raise DataError(
            f"{folder}: nothing to read in this folder; allowed: files {', '.join(suffixes)}, or tables "
            f"({', '.join(TABLES)}); hidden ones are left out"
        )
    if left := len(files) - len(chosen):
        say([f"{folder}: files left out because they are not {', '.join(suffixes)}: {left}"])
    for start in range(0, len(chosen), predictor.at_once):
        some = chosen[start : start + predictor.at_once]
        yield _of_files(folder, some, start, predictor, (start + len(some)) / len(chosen))


def _of_tables(tables: Sequence[Table], folder: Path, predictor: Predictor) -> Iterator[Part]:
    for number, table in enumerate(tables):
        for piece in of_table(table, predictor.at_once):
            yield Part(piece.table, folder, None, (number + (piece.read or 0.0)) / len(tables))


def _of_files(folder: Path, some: Sequence[Path], before: int, predictor: Predictor, read: float) -> Part:
    columns: dict[str, list[object]] = {FILE: [str(path.relative_to(folder)) for path in some]}
    if not predictor.files:
        columns[TEXT] = [_document(path) for path in some]
    names = list(columns)
    numbers = range(before + 1, before + 1 + len(some))
    table = Table(str(folder), dict.fromkeys(names, True), numbers, "row", columns.__getitem__)
    return Part(table, folder, (names[-1],), read)


def _document(path: Path) -> str | None:
    """A file's text; None, which is said, where it has none that can be read."""
    try:
        return read_text(path)
    except DataError as error:
        say([str(error)])
        return None


# In memory --------------------------------------------------------------------------------------------


def is_frame(given: object) -> bool:
    """Whether it is a data frame of pandas or polars."""
    return type(given).__name__ == "DataFrame" and hasattr(given, "columns")


def table_of_frame(frame: Any) -> Table:
    """The rows of a data frame of pandas or polars; what is missing there is None."""
    names = [str(name) for name in frame.columns]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"the DataFrame: two columns are called {quoted(sorted(twice))}; rename one")
    columns = {str(name): [_value(value) for value in _series(frame[name])] for name in frame.columns}
    is_text = {name: any(isinstance(value, str) for value in values) for name, values in columns.items()}
    return Table("the DataFrame", is_text, range(1, len(frame) + 1), "row", columns.__getitem__)


def with_columns(frame: Any, added: Mapping[str, Sequence[object]]) -> Any:
    """A frame of the same kind with more columns behind its own."""
    lists = {name: list(values) for name, values in added.items()}
    return frame.hstack(type(frame)(lists)) if hasattr(frame, "hstack") else frame.assign(**lists)  # polars; pandas


def _series(column: Any) -> list[object]:
    return list(column.to_list() if hasattr(column, "to_list") else column)


def _value(value: object) -> object:
    missing = value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"
    return None if missing else value


# What is there ----------------------------------------------------------------------------------------


def _is_file(name: str | Path) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, an unknown user
        return False


def _is_folder(name: str | Path) -> bool:
    try:
        return Path(name).expanduser().is_dir() and name != ""
    except (OSError, ValueError, RuntimeError):
        return False
