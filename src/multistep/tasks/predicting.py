"""What a model says of inputs given by hand, and of the rows of a file, written beside them into another."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import TASKS
from multistep.data.dialect import Reading
from multistep.data.pieces import ALLOWED, STDIN, read_pieces
from multistep.data.table import Table, quoted
from multistep.data.text import kind_of
from multistep.errors import DataError, PlanError
from multistep.tasks.folders import task_of
from multistep.tasks.notes import say
from multistep.tasks.prediction import Prediction, Predictor

OUTPUTS = (".csv", ".tsv", ".jsonl")
ANSWER_TOKENS = 256  # the most that an answer has, unless said otherwise
OnProgress = Callable[[int, float | None], None]  # rows that are done, and their share of all where that is known


@dataclass(frozen=True)
class PredictedFile:
    """What came of a file: its rows, those that nothing could be said of, and where the answers are (None: shown)."""

    rows: int
    without: int
    output: str | None


def load_predictor(model: str, tokens: int = ANSWER_TOKENS) -> Predictor:
    """The model of a folder or hub id, by the task that it is for. Raises PlanError for what predicts nothing."""
    task = task_of(model)
    if TASKS[task].family == "language":
        from multistep.tasks.language import use as language

        return language.load_predictor(model)
    if task == "image-classification":
        from multistep.tasks.images import use as images

        return images.load_predictor(model)
    if task == "speech-recognition":
        from multistep.tasks.speech import use as speech

        return speech.load_predictor(model)
    if task == "text-generation":
        from multistep.tasks.chat.reply import predictor
        from multistep.tasks.chat.talk import load_writer

        writer = load_writer(model)
        if writer.answers:
            return predictor(writer, tokens)
        raise PlanError(f"{model}: writes text and predicts nothing; use `multistep generate {model} --prompt ...`")
    raise PlanError(f"{model}: a model for {task} is used in Python: see the usage in its README.md")


def predict(model: str, inputs: Sequence[str], tokens: int = ANSWER_TOKENS) -> list[Prediction]:
    """What a model says of each input. Raises DataError for a table that is taken for a text."""
    predictor = load_predictor(model, tokens)
    for given in inputs:
        if predictor.unit in ("text", "prompt") and kind_of(Path(given[:200])) in ALLOWED and _is_file(given):
            raise DataError(
                f"{given}: is a file, and what stands here is taken for a {predictor.unit}; `multistep predict {model} "
                f"--input {given} --output FILE` reads its rows"
            )
    return predictor.all(inputs)


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, an unknown user
        return False


def predict_file(
    model: str, source: str, output: str | None, data: DataSpec, tokens: int, on_progress: OnProgress
) -> PredictedFile:
    """Write what a model says of each row of a table behind the row's columns; as JSON lines where no file is named.

    Rows are read and written some at a time. A row that nothing can be said of stays, without an answer, and is
    counted. The file is published whole or not at all. Raises PlanError and DataError.
    """
    if output is not None and kind_of(Path(output)) not in OUTPUTS:
        raise DataError(f"{output}: what kind of file is that? allowed: {', '.join(OUTPUTS)}")
    if output is not None and source != STDIN and os.path.realpath(output) == os.path.realpath(source):
        raise DataError(f"{output}: is the input, too; name another file")
    predictor = load_predictor(model, tokens)
    folder = Path.cwd() if source == STDIN else Path(source).expanduser().parent
    done, reasons = 0, []
    columns: tuple[str, ...] | None = None
    with _publishing(output) as stream:
        write = _writer(stream, output)
        for piece in read_pieces(source, predictor.at_once, Reading.of(data)):
            table = piece.table
            say(table.notes)
            columns = columns or predictor.find_columns(table, data)
            said, why = _said(predictor, table, columns, folder)
            reasons += why
            write(table, predictor, said)
            done += len(table)
            on_progress(done, piece.read)
    if reasons:
        say([f"{source}: rows without an answer: {len(reasons):,} of {done:,} (first: {reasons[0]})"])
    return PredictedFile(done, len(reasons), output)


def _said(
    predictor: Predictor, table: Table, columns: Sequence[str], folder: Path
) -> tuple[list[Prediction | None], list[str]]:
    """What is said of each row, and why of some nothing is."""
    values = [table.values(name) if name in table.is_text else [None] * len(table) for name in columns]
    inputs = []
    for row, cells in enumerate(zip(*values, strict=True)):
        try:
            inputs.append(predictor.join(cells, folder))
        except DataError as error:
            raise DataError(f"{table.place(row)}: {error}") from None
    there = [row for row, given in enumerate(inputs) if given]
    found: list[Prediction | None] = [None] * len(table)
    reasons = {row: f"{table.place(row)}: no {predictor.unit}" for row, given in enumerate(inputs) if not given}
    for row in [row for row in there if not _is_unicode(inputs[row])]:
        there.remove(row)
        reasons[row] = f"{table.place(row)}: half a surrogate pair (\\ud800 to \\udfff) in the {predictor.unit}"
    for row, said in zip(there, predictor.says([inputs[row] for row in there]) if there else (), strict=True):
        if isinstance(said, str):
            reasons[row] = f"{table.place(row)}: {said}"
        else:
            found[row] = said
    return found, [reasons[row] for row in sorted(reasons)]


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


# Writing ----------------------------------------------------------------------------------------------

Write = Callable[[Table, Predictor, Sequence[Prediction | None]], None]


@contextlib.contextmanager
def _publishing(output: str | None) -> Iterator[IO[str]]:
    """The file, which bears its name once it is complete; or standard output."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output).expanduser()
    if not path.parent.is_dir():
        raise DataError(f"{output}: there is no folder {path.parent}; make it first")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _writer(stream: IO[str], output: str | None) -> Write:
    kind = kind_of(Path(output)) if output else ".jsonl"
    names: list[str] = []

    def write(table: Table, predictor: Predictor, said: Sequence[Prediction | None]) -> None:
        columns = {name: table.values(name) for name in table.names}
        answers = [None if each is None else _answer(each, predictor.numeric) for each in said]
        sure = [None if each is None else each.probability for each in said]
        columns[_free(predictor.name, columns)] = answers
        if predictor.probable:
            columns[_free("probability", columns)] = sure
        if kind == ".jsonl":
            for row in zip(*columns.values(), strict=True):
                _write_line(stream, json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str))
            return
        delimiter = "\t" if kind == ".tsv" else ","
        if not names:
            names.extend(columns)
            _write_line(stream, _separated(names, delimiter))
        if new := [name for name in columns if name not in names]:
            raise DataError(
                f"{table.place(0)}: here rows begin to have {quoted(new)}, which the first line of {output} does not "
                "name; ask for a .jsonl file"
            )
        for row in zip(*(columns.get(name, [None] * len(table)) for name in names), strict=True):
            _write_line(stream, _separated([_cell(value) for value in row], delimiter))

    return write


def _write_line(stream: IO[str], line: str) -> None:
    """A line; half a surrogate pair in it is written as in JSON, \\ud83d, since UTF-8 has none."""
    stream.write(line.encode("utf-8", "backslashreplace").decode() + "\n")


def _separated(row: Sequence[object], delimiter: str) -> str:
    """A row as a line, without its end."""
    line = io.StringIO(newline="")
    # Only what the end of a line is made of is quoted, and \r alone would be one to whoever reads the file.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(row)
    return line.getvalue()[:-2]


def _free(name: str, taken: Container[str]) -> str:
    """A name for a new column, which no column of the input has."""
    while name in taken:
        name += "_"
    return name


def _answer(said: Prediction, numeric: bool) -> object:
    return float(said.output) if numeric else said.output


def _cell(value: object) -> object:
    """A value for a table of texts: what is more than one is written as JSON."""
    if isinstance(value, list | tuple | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value
