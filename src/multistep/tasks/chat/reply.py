"""Answers to the rows of a table, or to prompts given by hand, by a model that was trained on conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.table import Table, quoted
from multistep.errors import DataError
from multistep.tasks.chat.conversation import Turn
from multistep.tasks.chat.formats import (
    FORMATS,
    Format,
    form_of_prompt,
    format_of,
    history_column,
    system_column,
    with_history,
    with_system,
)
from multistep.tasks.chat.options import asks_options, prompt_columns, shown_options
from multistep.tasks.chat.talk import Writer
from multistep.tasks.chat.threads import is_threaded
from multistep.tasks.chat.turns import Cells, listed_turns, turn_by_turn
from multistep.tasks.prediction import Asked, Prediction, Predictor, is_unicode

LIST = re.compile(r"\s*\[\s*\{")  # how a list of turns begins
# Columns that hold what is asked, with answers beside it or without, the most telling first; those that may hold
# anything come last.
PROMPTS = tuple(dict.fromkeys([name for form in FORMATS[:-1] for name in form.prompt] + ["text", *FORMATS[-1].prompt]))
AT_ONCE = 64  # rows between two looks at how far it is


def predictor(writer: Writer, asked: Asked) -> Predictor:
    """Greedy answers. An input is a prompt, or a JSON list of turns, which is answered."""

    def refused(text: str) -> str:
        """Why the template does not write these turns; "" where it does."""
        try:
            writer.prompt(_turns(text))
        except DataError as error:
            return str(error)
        return ""

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        reasons = [refused(text) for text in inputs]
        prompts = [_turns(text) for text, why in zip(inputs, reasons, strict=True) if not why]
        answers = iter(writer.answer(prompts, tokens=asked.tokens, temperature=0.0, seed=0))
        return [why or Prediction(text, next(answers)) for text, why in zip(inputs, reasons, strict=True)]

    at_once, rows = asked.batch_size or AT_ONCE, Rows()
    return Predictor(says, rows.columns, rows.joined, unit="prompt", name="answer", probable=False, at_once=at_once)


def _turns(text: str) -> list[dict[str, str]]:
    if LIST.match(text):
        try:
            turns = json.loads(text)
        except ValueError:
            turns = None
        if isinstance(turns, list) and all(isinstance(turn, dict) and "content" in turn for turn in turns):
            return [{"role": str(turn.get("role")), "content": str(turn["content"])} for turn in turns]
    return [{"role": "user", "content": text}]


class Rows:
    """How the rows of a table are asked: as in training, without the answers. Its columns are found first."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()  # of what is read
        self._form: Format | None = None
        self._options = False

    def columns(self, table: Table, data: DataSpec) -> tuple[str, ...]:
        """A column of turns; else the prompt and, of an instruction, what it is about; guessed as in training."""
        names = {name.strip().lower(): name for name in table.names}
        self._form, self._options = None, False
        if data.text_column is not None:
            table.column(data.text_column)  # says what is allowed
            return self._found(data.text_column, table)
        if is_threaded(table.names):
            raise DataError(
                f"{table.origin}: holds conversations a turn a row, and an answer is given to each row; put each "
                "conversation into one row, as a list of turns in a column 'messages'"
            )
        if asks_options(table.names):
            self._names, self._options = prompt_columns(table.names), True
            return self._names
        form = format_of(table.names)  # with answers beside the prompts it is read as in training
        columns = form.columns(table.names) if form else None
        likely = next((names[name] for name in PROMPTS if name in names), None)
        found = columns[0] if columns else likely
        if found is None:
            raise DataError(
                f"{table.origin}: which column is the prompt? columns: {quoted(table.names)}; name it with "
                "--text-column"
            )
        return self._found(found, table)

    def _found(self, prompt: str, table: Table) -> tuple[str, ...]:
        """The column of the prompt, or of turns, and those that training reads with it."""
        self._form = form_of_prompt(prompt)
        more = self._form.beside(table.names)[0] if self._form else None
        history = history_column(table.names) if self._form else None
        self._names = tuple(name for name in (prompt, more, history, system_column(table.names)) if name is not None)
        return self._names

    def joined(self, values: Sequence[object], _folder: Path) -> str:
        """A row's prompt, or its turns as a JSON list; without an answer at the end, which is what is asked for."""
        if self._options:
            return _paragraphs([*values[:-1], shown_options(values[-1])])
        if not is_unicode(everything := json.dumps(values, ensure_ascii=False, default=str)):
            return everything  # of which is said what is wrong with it
        cells = Cells("in it", dict(zip(self._names, values, strict=True)))
        turns = self._asked(cells)
        while turns and turns[-1].role == "assistant":
            turns.pop()
        if self._form:
            turns = with_history(cells, history_column(self._names), turns)
        turns = with_system(cells, system_column(self._names[1:]), turns)
        if turns and turns[0].role == "system" and not turns[0].content.strip():
            del turns[0]
        if [turn.role for turn in turns] in ([], ["user"]):
            return turns[0].content if turns else ""
        return json.dumps([{"role": turn.role, "content": turn.content} for turn in turns], ensure_ascii=False)

    def _asked(self, cells: Cells) -> list[Turn]:
        """The turns of the first column, or the prompt that it holds."""
        first, value = self._names[0], turn_by_turn(cells.values[self._names[0]])
        if isinstance(value, list | tuple | Mapping) or (isinstance(value, str) and LIST.match(value)):
            return listed_turns(cells, first)[0] if value else []
        more, above = self._form.beside(self._names) if self._form else (None, False)
        beside = [cells.values[more]] if more else []
        text = _paragraphs([*beside, value] if above else [value, *beside])
        return [Turn("user", text)] if text else []


def _paragraphs(parts: Sequence[object]) -> str:
    """Those that hold anything, with a blank line between them."""
    return "\n\n".join(str(part) for part in parts if part is not None and str(part).strip()).replace("\r\n", "\n")
