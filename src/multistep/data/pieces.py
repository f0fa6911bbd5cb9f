"""Tables piece by piece, for files that are longer than memory should hold."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from multistep.data.columnar import of_parquet
from multistep.data.dialect import HEAD, Dialect, Reading, dialect_of
from multistep.data.encodings import LOOKED_AT
from multistep.data.files import SEPARATED, read_table
from multistep.data.objects import json_lines
from multistep.data.separated import names_of, rows_below, unnamed
from multistep.data.table import Table
from multistep.data.text import TABLES, decoded, encoding_of, existing_file, kind_of, opened_bytes
from multistep.errors import DataError

STDIN = "-"
TEXT = "text"  # the column of a file that is no table: a text a line
ALLOWED = (*TABLES, ".txt")


@dataclass(frozen=True)
class Piece:
    """Some rows, and which share of the source is read by now; None where that is not known."""

    table: Table
    read: float | None


def read_pieces(source: str, rows: int, reading: Reading = Reading()) -> Iterator[Piece]:  # noqa: B008  # frozen
    """A table in pieces of at most so many rows, of any kind that `read_table` reads; or .txt with a text a line.

    "-" is standard input: JSON lines if it begins with {, else a text a line. What must be read as a whole (.xlsx,
    .json) is. Raises DataError, with the place in the file.
    """
    if source == STDIN:
        yield from _of_lines(Path("standard input"), _stdin_kind(), sys.stdin.buffer, None, rows, reading, ())
        return
    path = Path(source).expanduser()
    kind = kind_of(existing_file(path))
    if kind not in ALLOWED:
        raise DataError(f"{path}: not a table; allowed: {', '.join(ALLOWED)}, or - for standard input")
    if kind == ".parquet":
        yield from _of_parquet(path, rows)
    elif kind in (".xlsx", ".json", ".arrow", ".feather"):
        yield from of_table(read_table(path, reading), rows)
    else:
        try:
            with path.open("rb") as raw:
                lines: Any = opened_bytes(path, raw)
                found, notes = _in_utf8(path, lines, reading)
                with contextlib.closing(found):
                    yield from _of_lines(path, kind, found, raw, rows, reading, notes)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None


def _stdin_kind() -> str:
    stream: Any = sys.stdin.buffer
    return ".jsonl" if stream.peek(1)[:1] == b"{" else ".txt"


def of_table(table: Table, rows: int) -> Iterator[Piece]:
    """A table that is read already, in pieces; what there is to be said comes with the first."""
    for at in range(0, len(table), rows):
        part = range(at, min(at + rows, len(table)))
        yield Piece(table.take(part), part.stop / len(table))


def _of_lines(
    path: Path, kind: str, lines: _Lines, raw: IO[bytes] | None, rows: int, reading: Reading, notes: tuple[str, ...]
) -> Iterator[Piece]:
    size = path.stat().st_size if raw else 0
    dialect, names, at, before = None, list[str](), 0, 0
    if kind in SEPARATED:
        dialect = _dialect(path, kind, lines, reading)
        data = b"".join(lines.readline() for _ in range(dialect.skip))
        data += _records(lines, 1, dialect) if dialect.header else b""
        at, before = len(data), data.count(b"\n")
        names = _names(path, decoded(path, data), dialect)
        notes = (*notes, *dialect.notes)
    found = False
    while data := _records(lines, rows, dialect):
        text = decoded(path, data, at)
        if dialect is not None and not dialect.header and not found:
            names = unnamed(len(next(iter(dialect.reader(text)), [])))
        table = _parsed(path, kind, text, before, names, dialect)
        at, before = at + len(data), before + data.count(b"\n")
        if table is not None and len(table):
            found = True
            yield Piece(replace(table, notes=notes), raw.tell() / size if raw and size else None)
            notes = ()
    if not found:
        raise DataError(f"{path}: the file is empty, or there is no row below the names of its columns")


def _in_utf8(path: Path, stream: IO[bytes], reading: Reading) -> tuple[_Lines, tuple[str, ...]]:
    """The same text as UTF-8, so that lines and commas are the same bytes whatever it is written in; and notes."""
    begin = stream.read(LOOKED_AT)
    stream.seek(0)
    encoding, notes = encoding_of(path, begin, reading.encoding)
    if encoding in ("utf-8", "utf-8-sig"):
        return stream, notes
    return _Recoded(path, stream, encoding), notes


class _Lines(Protocol):
    """What is asked of a stream of bytes."""

    def readline(self) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...
    def seek(self, place: int, /) -> object: ...
    def close(self) -> None: ...


class _Recoded:
    """A stream of lines in UTF-8 of one in another encoding."""

    def __init__(self, path: Path, stream: IO[bytes], encoding: str) -> None:
        self._path, self._encoding, self._raw = path, encoding, stream
        self._lines = io.TextIOWrapper(stream, encoding=encoding, newline="")

    def readline(self) -> bytes:
        try:
            return self._lines.readline().encode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}: not {self._encoding} ({error.reason}); name its encoding") from None

    def read(self, size: int) -> bytes:
        return self._lines.read(size).encode("utf-8")

    def seek(self, place: int) -> None:
        self._lines.seek(place)

    def close(self) -> None:
        self._lines.close()


def _dialect(path: Path, kind: str, stream: _Lines, reading: Reading) -> Dialect:
    """The dialect by the beginning, to which the stream is set back."""
    head = stream.read(HEAD)
    stream.seek(0)
    text = head.decode("utf-8-sig", "ignore").replace("\r\n", "\n")  # what is cut at its end is no error
    return dialect_of(path, text, kind, reading, whole=len(head) < HEAD)


def _names(path: Path, header: str, dialect: Dialect) -> list[str]:
    if not dialect.header:
        return []
    lines = header.split("\n", dialect.skip)[-1]
    return names_of(path, next(iter(dialect.reader(lines)), []), dialect)


def _records(stream: _Lines, count: int, dialect: Dialect | None) -> bytes:
    """The next lines; a record that goes on within quotation marks keeps its lines together."""
    lines: list[bytes] = []

    def pulled() -> Iterator[str]:
        while line := stream.readline():
            lines.append(line)
            yield line.removeprefix(b"\xef\xbb\xbf").decode("latin-1")  # marks are the same bytes, whatever the rest is

    source: Iterator[object] = pulled()
    if dialect is not None and dialect.quoting != csv.QUOTE_NONE:
        source = dialect.reader_of(pulled())  # asks for no line beyond the record's last
    with suppress(csv.Error):  # which whoever reads the lines says, with the place
        for _ in range(count):
            if next(source, None) is None:
                break
    return b"".join(lines)


def _parsed(path: Path, kind: str, text: str, before: int, names: list[str], dialect: Dialect | None) -> Table | None:
    """The rows of some lines that stand behind so many lines; None where all are blank."""
    if kind == ".txt":
        lines = text.split("\n")
        lines = lines[:-1] if text.endswith("\n") else lines
        return Table(str(path), {TEXT: True}, range(before + 1, before + 1 + len(lines)), "line", lambda _: lines)
    if not text.strip():
        return None
    if dialect is None:
        return json_lines(path, text, before)
    return rows_below(path, names, text, dialect, before)


def _of_parquet(path: Path, rows: int) -> Iterator[Piece]:
    import pyarrow
    from pyarrow import parquet

    done = 0
    try:
        with parquet.ParquetFile(path) as file:
            total = int(file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=rows):
                part = pyarrow.Table.from_batches([batch])
                if part.num_rows:
                    done += part.num_rows
                    yield Piece(of_parquet(path, part, done - part.num_rows), done / total)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a parquet file that can be read ({error})") from None
    if not done:
        raise DataError(f"{path}: there is no row in it")
