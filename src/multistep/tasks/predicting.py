"""What a model says of inputs given by hand, in memory, and in files, written beside what their rows hold already."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import OWN_MODEL, TASKS
from multistep.data.dialect import Reading
from multistep.data.files import SEPARATED
from multistep.data.paths import files_of, root_of
from multistep.data.pieces import STDIN, read_pieces
from multistep.data.table import Table, quoted
from multistep.data.text import kind_of
from multistep.errors import DataError, PlanError
from multistep.tasks.as_trained import as_trained, columns_of, read_alike
from multistep.tasks.folders import task_of
from multistep.tasks.inputs import (
    Given,
    Part,
    ReadingOf,
    holds_rows_in_python,
    is_frame,
    parts_of,
    table_of_frame,
    with_columns,
)
from multistep.tasks.notes import say
from multistep.tasks.prediction import Asked, Cut, Held, Prediction, Predictor, is_unicode
from multistep.tasks.written import NESTED, answer_columns, kind_of_output, writing

OnProgress = Callable[[int, float | None], None]  # rows that are done, and their share of all where that is known
Show = Callable[[Sequence[Prediction]], None]
# Columns of the training data, in multistep.json.
OF_TEXTS, OF_FILES = ("text_column", "second_text_column"), ("path_column",)
REMEMBERED = (*OF_TEXTS, *OF_FILES)


@dataclass(frozen=True)
class PredictedFile:
    """What came of a file: its rows, those that nothing could be said of, and where the answers are (None: shown)."""

    rows: int
    without: int
    output: str | None


def load_predictor(model: str, asked: Asked | None = None) -> Predictor:
    """The model of a folder or hub id, by the task that it is for. Raises PlanError for what predicts nothing."""
    asked, task = asked or Asked(), task_of(model)
    if TASKS[task].family == "language":
        from multistep.tasks.language import use as language

        return language.load_predictor(model, asked)
    if task == "image-classification":
        from multistep.tasks.images import use as images

        return images.load_predictor(model, asked)
    if task == "speech-recognition":
        from multistep.tasks.speech import use as speech

        return speech.load_predictor(model)
    if task == "text-generation":
        from multistep.tasks.chat.reply import predictor
        from multistep.tasks.chat.talk import load_writer

        writer = load_writer(model)
        if writer.answers:
            return predictor(writer, asked)
        raise PlanError(f"{model}: writes text and predicts nothing; use `multistep generate {model} --prompt ...`")
    if task == OWN_MODEL:
        raise PlanError(f"{model}: is a module of your own, which is asked in Python: multistep.predict(RUN, inputs)")
    raise PlanError(f"{model}: a model for {task} is used in Python: see the usage in its README.md")


def predict(model: str, inputs: Given, asked: Asked, data: DataSpec | None = None) -> Any:
    """What a model says of inputs in memory: a list of predictions, or a data frame with more columns.

    Raises DataError for the first input that nothing can be said of; the row of a data frame stays without an answer.
    """
    predictor = load_predictor(model, asked)
    data = data or DataSpec()
    if is_frame(inputs):
        return _of_frame(predictor, inputs, asked, data, columns_of(model))
    found: list[Prediction] = []
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    for number, each in enumerate(given):
        if why := _why_not(each, predictor, model):
            raise DataError(f"inputs: number {number} (from 0) {why}")
    holds = partial(holds_rows_in_python, predictor=predictor)
    alone = not any(map(holds, given))
    for part in parts_of(given, predictor, _reading_for(model, data), holds):
        if alone:
            found += predictor.all([str(each) for each in part.table.values(part.table.names[0])])
            continue
        columns = part.columns or _columns_of(predictor, part.table, data, columns_of(model))
        said, reasons = _said(predictor, part, columns, as_trained(data, columns_of(model), part.table).root)
        if reasons:
            raise DataError(reasons[0])
        found += [each for each in said if each is not None]
    return found


def _why_not(given: Given, predictor: Predictor, model: str) -> str:
    """Why nothing can be said of an input in memory, whatever its text is; "" where something may be."""
    parts = given if isinstance(given, list | tuple) else [given]
    if parts is given and predictor.unit == "text":
        if predictor.paired is False:
            return f"is a {type(given).__name__}, but {model} reads single texts; give a text"
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            return f"is {given!r:.60}; allowed: a text, or a pair of two texts"
    blank = any(isinstance(part, str) and not part.strip() for part in parts)
    return ("holds a blank text" if parts is given else "is blank") + ", of which nothing can be said" if blank else ""


def _of_frame(predictor: Predictor, frame: Any, asked: Asked, data: DataSpec, before: Mapping[str, str]) -> Any:
    table = table_of_frame(frame)
    if not len(table):
        raise DataError("the DataFrame has no rows; give one with a row for each input")
    columns, root = _columns_of(predictor, table, data, before), as_trained(data, before, table).root
    said, reasons = _said(predictor, Part(table, Path()), columns, root)
    _tell_without(reasons, len(table), table.origin)
    return with_columns(frame, answer_columns(said, predictor, asked, table.names, nested=False))


def predict_file(
    model: str,
    inputs: Sequence[Given],
    output: str | None,
    data: DataSpec,
    asked: Asked,
    on_progress: OnProgress,
    show: Show | None = None,
) -> PredictedFile:
    """Write what a model says of each row of the inputs behind the row's columns; as JSON lines where no file is named.

    Rows are read and written some at a time. A row that nothing can be said of stays, without an answer, and is
    counted. The file is published whole or not at all. `show` is given the answers of some rows instead, where no file
    is named. Raises PlanError and DataError.
    """
    kind = kind_of_output(output) if output is not None else ".jsonl"
    for source in inputs if output is not None else ():
        if source != STDIN and os.path.realpath(str(output)) == os.path.realpath(str(source)):
            raise DataError(f"{output}: is the input, too; name another file")
    predictor = load_predictor(model, asked)
    before = columns_of(model)
    done, reasons = 0, []
    columns: dict[tuple[str, ...], tuple[str, ...]] = {}
    with writing(output) as write:
        for part in parts_of(inputs, predictor, _reading_for(model, data)):
            table = part.table
            say(table.notes)
            if part.columns is None and table.names not in columns:
                columns[table.names] = _columns_of(predictor, table, data, before)
            root = as_trained(data, before, table).root if predictor.files else None
            said, why = _said(predictor, part, part.columns or columns[table.names], root)
            reasons += why
            if show is not None and output is None:
                show([each for each in said if each is not None])
            else:
                write(table, answer_columns(said, predictor, asked, table.names, nested=kind in NESTED))
            done += len(table)
            on_progress(done, part.read)
    _tell_without(reasons, done, str(inputs[0]) if len(inputs) == 1 else f"{len(inputs)} inputs")
    return PredictedFile(done, len(reasons), output)


def _tell_without(reasons: Sequence[str], rows: int, origin: str) -> None:
    if reasons:
        say([f"{origin}: rows without an answer: {len(reasons):,} of {rows:,} (first: {reasons[0]})"])


def _reading_for(model: str, data: DataSpec) -> ReadingOf:
    """How a table is read: as the user says, as it says itself, or as that of training was."""

    def names_by(data: DataSpec) -> Sequence[str]:
        path = Path(str(data.source)).expanduser()
        if kind_of(path) not in SEPARATED:
            return ()
        try:
            return next(read_pieces(str(path), 1, Reading.of(data))).table.names
        except DataError:
            return ()

    def reading(source: str) -> Reading:
        return Reading.of(read_alike(replace(data, source=source), model, names_by))

    return reading


def _columns_of(predictor: Predictor, table: Table, data: DataSpec, before: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that make up the input: those named, else those of the training data, else guessed; which is said."""
    wanted = OF_FILES if predictor.files else OF_TEXTS
    before = {key: before[key] for key in wanted if before.get(key)}
    there: dict[str, Any] = before if all(name in table.names for name in before.values()) else {}
    named = [key for key in REMEMBERED if getattr(data, key) is not None]
    found = predictor.find_columns(table, data if named else replace(data, **there))
    how = "" if named else ", as in training" if there else ""
    if before and not there and not named:
        how = f"; in training it was {quoted(before.values())}"
    say([f"{table.origin}: {predictor.unit} from {quoted(found)} (of {quoted(table.names)}){how}"])
    return found


def _said(
    predictor: Predictor, part: Part, columns: Sequence[str], root: str | None
) -> tuple[list[Prediction | None], list[str]]:
    """What is said of each row, and why of some nothing is. Files are named from `root` (None: from their table)."""
    table = part.table
    folder = root_of(table, root) or part.folder
    values = [table.values(name) if name in table.is_text else [None] * len(table) for name in columns]
    inputs: list[str] = []
    for row, cells in enumerate(zip(*values, strict=True)):
        try:
            made = predictor.join(cells, folder)
        except DataError as error:
            raise DataError(f"{table.place(row)}: {error}") from None
        inputs.append(made if isinstance(made, str) else Held.of(table.place(row), made))
    if predictor.files and table.folder is not None:
        inputs = _found(table, values[0], inputs, predictor.files, root)
    there = [row for row, given in enumerate(inputs) if given]
    found: list[Prediction | None] = [None] * len(table)
    reasons = {row: f"{table.place(row)}: no {predictor.unit}" for row, given in enumerate(inputs) if not given}
    for row in [row for row in there if not is_unicode(inputs[row])]:
        there.remove(row)
        reasons[row] = f"{table.place(row)}: half a surrogate pair (\\ud800 to \\udfff) in the {predictor.unit}"
    for row, said in zip(there, predictor.says([inputs[row] for row in there]) if there else (), strict=True):
        if isinstance(said, str):
            reasons[row] = said if isinstance(inputs[row], Held) else f"{table.place(row)}: {said}"
        else:
            found[row] = said
    return found, [reasons[row] for row in sorted(reasons)]


def _found(
    table: Table, names: Sequence[object], inputs: Sequence[str], endings: Sequence[str], root: str | None
) -> list[str]:
    """The inputs, those files that are not where a row says looked for below the root, as in training."""
    lost = [row for row, given in enumerate(inputs) if (file := _file_of(given)) and not Path(file).is_file()]
    paths, said = files_of(table.take(lost), [str(names[row]) for row in lost], endings, root) if lost else ([], [])
    say(said)
    found = list(inputs)
    for row, path in zip(lost, map(str, paths), strict=True):
        given = found[row]
        cut = isinstance(given, Held)
        found[row] = Held.of(table.place(row), replace(given.content, file=path)) if cut else path  # type: ignore[attr-defined]
    return found


def _file_of(given: str) -> str | None:
    """The file that an input is, or is cut from; None where a row holds it itself."""
    if isinstance(given, Held):
        return given.content.file if isinstance(given.content, Cut) else None
    return given
