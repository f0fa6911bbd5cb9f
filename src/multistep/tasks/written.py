"""Rows with what was said of them -> a file that bears its name once it is complete, or standard output."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from multistep.core.evidence.brief import in_single_precision
from multistep.data.table import Table, quoted
from multistep.data.text import PACKED, kind_of, opened_bytes
from multistep.errors import DataError
from multistep.tasks.prediction import Asked, Prediction, Predictor

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")
NESTED = (".jsonl", ".parquet")  # where a cell may hold a list
Columns: TypeAlias = Mapping[str, Sequence[object]]
Write: TypeAlias = Callable[[Table, Columns], None]
# In a .tsv, whose readers take quotation marks for characters: what ends a cell, and marks that seem to begin one.
_needs_quotes = re.compile(r'[\t\n\r]|\A "').search


def kind_of_output(output: str) -> str:
    """The suffix that says how a file is written, without .gz or .zst. Raises DataError for what is not written."""
    path = Path(output)
    kind, packed = kind_of(path), path.suffix.lower()
    if kind not in OUTPUTS:
        raise DataError(
            f"{output}: what kind of file is that? allowed: {', '.join(OUTPUTS)}, all but .parquet also with "
            f"{' or '.join(PACKED)} behind it"
        )
    if kind == ".parquet" and packed in PACKED:
        raise DataError(f"{output}: a .parquet file is packed within; leave out the {packed}")
    return kind


def answer_columns(
    said: Sequence[Prediction | None], predictor: Predictor, asked: Asked, taken: Container[str], *, nested: bool
) -> dict[str, list[object]]:
    """What was said as columns, under names that are not taken yet.

    The answer and, where there is one, its probability; of `top_k` classes also the others: as one column of lists
    where cells can be `nested`, else as `prediction_2`, `probability_2` and so on. Where the answer is a set of labels
    the likeliest of them has columns of its own, too: `prediction_1` and `probability_1`.
    """
    found: dict[str, list[object]] = {}

    def add(name: str, values: list[object]) -> None:
        while name in taken or name in found:
            name += "_"
        found[name] = values

    add(predictor.name, [None if each is None else _answer(each, predictor.numeric) for each in said])
    if predictor.probable:
        add("probability", [None if each is None else each.probability for each in said])
    if not asked.top_k or not predictor.probable:
        return found
    ranked = [[] if each is None else likeliest(each, asked.top_k) for each in said]
    if nested:
        lists: list[object] = [
            [{"label": label, "probability": share} for label, share in row] if row else None for row in ranked
        ]
        add("top", lists)
        return found
    for k in range(0 if predictor.several else 1, asked.top_k):
        kth = [row[k] if len(row) > k else (None, None) for row in ranked]
        add(f"{predictor.name}_{k + 1}", [label for label, _ in kth])
        add(f"probability_{k + 1}", [share for _, share in kth])
    return found


def likeliest(said: Prediction, count: int) -> list[tuple[str, float]]:
    """The likeliest classes with their probabilities, the likeliest first; what was said itself comes first."""
    ranked = sorted(said.others.items(), key=lambda pair: (pair[0] != said.output, -pair[1]))
    return ranked[:count]


def _answer(said: Prediction, numeric: bool) -> object:
    return float(said.output) if numeric else said.output


@contextlib.contextmanager
def writing(output: str | None) -> Iterator[Write]:
    """Writes rows with their new columns, as the suffix says; as JSON lines on standard output where none is named."""
    if output is None:
        yield lambda table, added: _write_objects(sys.stdout, table, added)
        return
    path = Path(output).expanduser()
    if not path.parent.is_dir():
        raise DataError(f"{output}: there is no folder {path.parent}; make it first")
    beside = path.with_name(f".{os.getpid()}.{path.name}")  # ends as the path does, by which it is packed
    kind = kind_of_output(output)
    try:
        if kind == ".parquet":
            pieces: list[Any] = []
            yield lambda table, added: pieces.append(_arrow_of(table, added))
            _write_parquet(pieces, beside)
        else:
            tabs = _Tabs()
            with _stream_to(beside) as stream:
                if kind == ".jsonl":
                    yield partial(_write_objects, stream)
                else:
                    yield _lines(stream, output, tabs.line if kind == ".tsv" else partial(_separated, delimiter=","))
            if tabs.quoted:
                _quote_first(beside, tabs.plain)
        with beside.open("r+b") as whole:
            os.fsync(whole.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _stream_to(path: Path) -> Iterator[Any]:
    """A stream of text into a file, packed as its suffix says."""
    with path.open("wb") as raw:
        packed: Any = raw
        if path.suffix.lower() == ".gz":
            packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0)  # the same bytes whenever they are written
        elif path.suffix.lower() == ".zst":
            import pyarrow

            packed = pyarrow.CompressedOutputStream(pyarrow.PythonFile(raw, "w"), "zstd")
        with packed, io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream:
            yield stream


def _lines(stream: Any, output: str, line_of: Callable[[Sequence[object]], str]) -> Write:
    names: list[str] = []

    def write(table: Table, added: Columns) -> None:
        columns = _all_columns(table, added)
        if not names:
            names.extend(columns)
            _write_line(stream, line_of(names))
        if new := [name for name in columns if name not in names]:
            raise DataError(
                f"{table.place(0)}: here rows begin to have {quoted(new)}, which the first line of {output} does not "
                "name; ask for a .jsonl file"
            )
        short = {name: [_short(value) for value in values] for name, values in added.items()}
        for row in zip(*({**columns, **short}.get(name, [None] * len(table)) for name in names), strict=True):
            _write_line(stream, line_of([_cell(value) for value in row]))

    return write


def _all_columns(table: Table, added: Columns) -> dict[str, Sequence[object]]:
    return {**{name: table.values(name) for name in table.names}, **added}


def _write_objects(stream: Any, table: Table, added: Columns) -> None:
    columns = _all_columns(table, added)
    for row in zip(*columns.values(), strict=True):
        _write_line(stream, json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str))


def _write_line(stream: Any, line: str) -> None:
    """A line; half a surrogate pair in it is written as in JSON, \\ud83d, since UTF-8 has none."""
    stream.write(_as_unicode(line) + "\n")


def _as_unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _separated(row: Sequence[object], delimiter: str, *, every: bool = False) -> str:
    """A row as a line, without its end; in quotation marks the cells that need them, or `every` one."""
    line = io.StringIO(newline="")
    # Only what the end of a line is made of is quoted, and \r alone would be one to whoever reads the file.
    writer = csv.writer(
        line, delimiter=delimiter, lineterminator="\r\n", quoting=csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    )
    writer.writerow(row)
    return line.getvalue()[:-2]


class _Tabs:
    """Rows as lines of a .tsv: as they are, until a cell cannot do without quotation marks, and from then on with them.

    `plain` counts the lines until then, which have to get theirs when the file is complete.
    """

    def __init__(self) -> None:
        self.plain = 0
        self.quoted = False

    def line(self, row: Sequence[object]) -> str:
        cells, first = [str(value) for value in row], not self.plain and not self.quoted
        self.quoted = self.quoted or any(map(_needs_quotes, cells))
        if self.quoted:
            return _separated(cells, "\t", every=first)
        self.plain += 1
        return "\t".join(cells)


def _quote_first(path: Path, count: int) -> None:
    """Put quotation marks into the first lines of a .tsv; around each name, by which readers tell that there are some.

    A reader looks at the beginning alone, and the cell that asked for them may stand far below.
    """
    beside = path.with_name(f".{path.name}")
    try:
        with io.TextIOWrapper(opened_bytes(path), encoding="utf-8", newline="\n") as old, _stream_to(beside) as new:
            for number, line in zip(range(count), old, strict=False):
                _write_line(new, _separated(line[:-1].split("\t"), "\t", every=number == 0))
            shutil.copyfileobj(old, new)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _short(value: object) -> object:
    """A number in as many digits as one of single precision has, which models reckon in."""
    return in_single_precision(value) if isinstance(value, float) else value


def _cell(value: object) -> object:
    """A value for a table of texts: what is more than one is written as JSON."""
    if isinstance(value, list | tuple | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value


# Parquet --------------------------------------------------------------------------------------------


def _arrow_of(table: Table, added: Columns) -> Any:
    import pyarrow

    arrays = {}
    for name, values in _all_columns(table, added).items():
        plain = [_as_unicode(value) if isinstance(value, str) else value for value in values]
        try:
            arrays[name] = pyarrow.array(plain)
        except (pyarrow.ArrowException, UnicodeError):  # numbers beside texts, say: as texts, then
            arrays[name] = pyarrow.array([None if value is None else _as_unicode(str(_cell(value))) for value in plain])
    return pyarrow.table(arrays)


def _write_parquet(pieces: Sequence[Any], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        whole = pyarrow.concat_tables(pieces, promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise DataError(f"{path.name}: the rows' columns change their kind ({error}); ask for a .jsonl file") from None
    parquet.write_table(whole, path)
