"""Tables piece by piece, for files that are longer than memory should hold."""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from multistep.data.columnar import of_parquet
from multistep.data.objects import json_lines
from multistep.data.separated import separated
from multistep.data.table import Table
from multistep.data.text import TABLES, decoded, existing_file, kind_of
from multistep.errors import DataError

STDIN = "-"
BOM = b"\xef\xbb\xbf"
TEXT = "text"  # the column of a file that is no table: a text a line
ALLOWED = (*TABLES, ".txt")


@dataclass(frozen=True)
class Piece:
    """Some rows, and which share of the source is read by now; None where that is not known."""

    table: Table
    read: float | None


def read_pieces(source: str, rows: int) -> Iterator[Piece]:
    """A table in pieces of at most so many rows: .csv, .tsv, .jsonl, .ndjson, .parquet, or .txt with a text a line.

    All but parquet may end in .gz. "-" is standard input: JSON lines if it begins with {, else a text a line. Raises
    DataError, with the place in the file.
    """
    if source == STDIN:
        yield from _of_lines(Path("standard input"), _stdin_kind(), sys.stdin.buffer, None, rows)
        return
    path = Path(source).expanduser()
    kind = kind_of(existing_file(path))
    if kind not in ALLOWED:
        raise DataError(f"{path}: not a table; allowed: {', '.join(ALLOWED)}, or - for standard input")
    if kind == ".parquet":
        yield from _of_parquet(path, rows)
        return
    try:
        with path.open("rb") as raw:
            lines: Any = gzip.open(raw) if path.suffix.lower() == ".gz" else raw  # noqa: SIM115  # closed with `raw`
            yield from _of_lines(path, kind, lines, raw, rows)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _stdin_kind() -> str:
    stream: Any = sys.stdin.buffer
    return ".jsonl" if stream.peek(1)[:1] == b"{" else ".txt"


def _of_lines(path: Path, kind: str, stream: IO[bytes], raw: IO[bytes] | None, rows: int) -> Iterator[Piece]:
    size = path.stat().st_size if raw else 0
    quoting = kind == ".csv"
    header, at, before = b"", 0, 0
    if kind in (".csv", ".tsv"):
        header = _records(stream, 1, quoting)
        at, before = len(header), header.count(b"\n")
    found = False
    while data := _records(stream, rows, quoting):
        table = _parsed(path, kind, header, data, at, before)
        at, before = at + len(data), before + data.count(b"\n")
        if table is not None and len(table):
            found = True
            yield Piece(table, raw.tell() / size if raw and size else None)
    if not found:
        raise DataError(f"{path}: the file is empty, or there is no row below the names of its columns")


def _records(stream: IO[bytes], count: int, quoting: bool) -> bytes:
    """The next lines; in a .csv a record that goes on within quotation marks keeps its lines together."""
    lines: list[bytes] = []

    def pulled() -> Iterator[str]:
        while line := stream.readline():
            lines.append(line)
            yield line.removeprefix(BOM).decode("latin-1")  # commas and marks are the same bytes, whatever the rest is

    source: Iterator[object] = pulled()
    if quoting:
        source = csv.reader(pulled(), strict=True)  # asks for no line beyond the record's last
    with suppress(csv.Error):  # which whoever reads the lines says, with the place
        for _ in range(count):
            if next(source, None) is None:
                break
    return b"".join(lines)


def _parsed(path: Path, kind: str, header: bytes, data: bytes, at: int, before: int) -> Table | None:
    """The rows of some lines, that stand at byte `at` behind so many lines; None where all are blank."""
    text = decoded(path, data, at)
    if kind == ".txt":
        lines = text.split("\n")
        lines = lines[:-1] if text.endswith("\n") else lines
        return Table(str(path), {TEXT: True}, range(before + 1, before + 1 + len(lines)), "line", lambda _: lines)
    if not text.strip():
        return None
    if kind in (".jsonl", ".ndjson"):
        return json_lines(path, text, before)
    names = decoded(path, header, 0)
    return separated(path, names if names.endswith("\n") else names + "\n", text, before, tabs=kind == ".tsv")


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
