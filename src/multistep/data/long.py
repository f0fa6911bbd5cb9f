"""Files that memory should not hold -> texts in pieces, and tables whose rows are read when they are asked for."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import overload

from multistep.data.dialect import Reading
from multistep.data.encodings import LOOKED_AT
from multistep.data.files import SEPARATED, read_table
from multistep.data.pieces import read_pieces
from multistep.data.table import Table
from multistep.data.text import PACKED, encoding_of, kind_of, opened_bytes, text_pieces
from multistep.data.walk import files_below
from multistep.errors import DataError

LINES = (".jsonl", ".ndjson", *SEPARATED)  # kinds of tables that can be read line by line
ROWS = 2000  # that are held at once
LONGEST_SHORT, MOST_DIFFERENT = 200, 20_000  # characters, and different values, of a column that is held
SWELLING = 4  # times the size of a packed file or a table of columns: what its texts may come to
_COLUMNS = (".parquet", ".arrow", ".feather", ".zip", ".tar", ".tgz", ".bz2", ".xz")


@dataclass(frozen=True)
class LongText:
    """A text in a file, which is read in pieces."""

    path: Path
    encoding: str | None = None

    def notes(self) -> tuple[str, ...]:
        """What was guessed of it, to be said. Raises DataError for what is no text."""
        try:
            with opened_bytes(self.path) as stream:
                return encoding_of(self.path, stream.read(LOOKED_AT), self.encoding)[1]
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from None

    def pieces(self) -> Iterator[str]:
        """The text, some megabytes at a time. Raises DataError for what is no text."""
        return text_pieces(self.path, self.encoding)


class TextFiles(Sequence[object]):
    """The texts of files, each read when it is asked for; those of more than `most` bytes as a LongText."""

    def __init__(self, files: Sequence[str], read: Callable[[Path], str], encoding: str | None, most: int) -> None:
        self._files, self._read, self._encoding, self._most = files, read, encoding, most

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> object: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[object]: ...
    def __getitem__(self, index: int | slice) -> object:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path = Path(self._files[index])
        return LongText(path, self._encoding) if path.stat().st_size > self._most else self._read(path)


class _Short:
    """The columns of a long table that are short enough to be held: values of labels and splits come back again and
    again."""

    def __init__(self) -> None:
        self._held: dict[str, list[object] | None] = {}  # None: too long, or too many different ones
        self._same: dict[str, dict[str, str]] = {}

    def add(self, table: Table, before: int) -> None:
        """The next rows, behind so many."""
        for name in table.is_text:
            self._held.setdefault(name, [])
        for name, held in self._held.items():
            if held is None:
                continue
            same = self._same.setdefault(name, {})
            held.extend(repeat(None, before - len(held)))  # where a column begins later
            found = table.values(name) if name in table.is_text else [None] * len(table)
            if any(isinstance(value, str) and len(value) > LONGEST_SHORT for value in found):
                self._held[name] = None
                continue
            held.extend(same.setdefault(value, value) if isinstance(value, str) else value for value in found)
            if len(same) > MOST_DIFFERENT:
                self._held[name] = None

    def column(self, name: str) -> Sequence[object] | None:
        return self._held.get(name)


def long_table(path: Path, reading: Reading) -> Table:
    """The table of a file, read once for the places of its rows and its short columns, and again for each long one."""
    if kind_of(path) not in LINES or _is_a_list(path):
        return read_table(path, reading)
    is_text: dict[str, bool] = {}
    numbers = array("q")
    short = _Short()
    notes: tuple[str, ...] = ()
    for piece in read_pieces(str(path), ROWS, reading):
        for name, text in piece.table.is_text.items():
            is_text[name] = is_text.get(name, False) or text
        short.add(piece.table, len(numbers))
        numbers.extend(piece.table.numbers)
        notes = notes or piece.table.notes

    def each(name: str) -> Iterator[object]:
        for piece in read_pieces(str(path), ROWS, reading):
            part = piece.table
            yield from part.values(name) if name in part.is_text else repeat(None, len(part))

    def values(name: str) -> Sequence[object]:
        held = short.column(name)
        return list(each(name)) if held is None else held

    return Table(
        str(path),
        is_text,
        numbers,
        "line",
        values,
        notes=notes,
        folder=path.parent,
        each_of=lambda name: each(name) if short.column(name) is None else values(name),
    )


def text_size(files: Iterable[Path]) -> int:
    """About how many bytes of text files hold; of what is packed, by how texts usually pack."""
    return sum(path.stat().st_size * (SWELLING if _is_packed(path) else 1) for path in files)


def local_files(source: str) -> list[Path]:
    """The files of a source that lies here; none of one that does not."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return [file for file, _ in files_below(path)]
        return [path] if path.is_file() else []
    except (OSError, ValueError):  # no name of a file at all
        return []


def _is_a_list(path: Path) -> bool:
    """Whether a file of JSON lines is one JSON list instead."""
    return kind_of(path) not in SEPARATED and next(text_pieces(path), "").lstrip().startswith("[")


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() in (*PACKED, *_COLUMNS)
