"""Answers to the rows of a table, or to prompts given by hand, by a model that was trained on conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec
from multistep.data.table import Table, quoted
from multistep.errors import DataError
from multistep.tasks.chat.formats import form_of_prompt, format_of
from multistep.tasks.chat.options import has_options, prompt_columns, shown_options
from multistep.tasks.chat.talk import Writer
from multistep.tasks.chat.turns import ROLE_NAMES, parts_together, turn_by_turn
from multistep.tasks.prediction import Asked, Prediction, Predictor

LIST = re.compile(r"\s*\[\s*\{")  # how a list of turns begins
LISTS = ("messages", "conversations", "conversation")  # of turns
PROMPTS = ("prompt", "instruction", "question", "query", "text")
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

    at_once = asked.batch_size or AT_ONCE
    return Predictor(says, _columns, _joined, unit="prompt", name="answer", probable=False, at_once=at_once)


def _turns(text: str) -> list[dict[str, str]]:
    if LIST.match(text):
        try:
            turns = json.loads(text)
        except ValueError:
            turns = None
        if isinstance(turns, list) and all(isinstance(turn, dict) and "content" in turn for turn in turns):
            return [{"role": str(turn.get("role")), "content": str(turn["content"])} for turn in turns]
    return [{"role": "user", "content": text}]


def _columns(table: Table, data: DataSpec) -> tuple[str, ...]:
    """A column of turns; else the prompt and, of an instruction, what it is about; guessed as in training."""
    names = {name.strip().lower(): name for name in table.names}
    if data.text_column is not None:
        table.column(data.text_column)  # says what is allowed
        return (data.text_column,)
    if has_options(table.names):
        return prompt_columns(table.names)
    form = format_of(table.names)  # with answers beside the prompts it is read as in training
    columns = form.columns(table.names) if form else None
    likely = next((names[name] for name in (*LISTS, *PROMPTS) if name in names), None)
    found = columns[0] if columns else likely
    if found is None:
        raise DataError(
            f"{table.origin}: which column is the prompt? columns: {quoted(table.names)}; name it with --text-column"
        )
    more, above = asked.beside(table.names) if (asked := form_of_prompt(found)) else (None, False)
    return (found,) if more is None else (more, found) if above else (found, more)


def _joined(values: Sequence[object], _folder: Path) -> str:
    """A row's prompt, or its turns as a JSON list; without an answer at the end, which is what is asked for."""
    value = values[0]
    if isinstance(value, str) and LIST.match(value):  # a list written out in a table of texts
        try:
            value = json.loads(value)
        except ValueError:
            value = values[0]
    value = turn_by_turn(value)
    if isinstance(value, list | tuple):
        turns = [_turn(item) for item in value]
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        if turns and turns[0]["role"] == "system" and not turns[0]["content"].strip():
            del turns[0]
        return json.dumps(turns, ensure_ascii=False) if turns else ""
    if len(values) > 1 and (shown := shown_options(values[-1])):
        values = [*values[:-1], shown]
    parts = [str(part) for part in values if part is not None and str(part).strip()]
    return "\n\n".join(parts).replace("\r\n", "\n")


def _turn(item: Any) -> dict[str, str]:
    """A turn such as {"role": ..., "content": ...} or {"from": ..., "value": ...}. Raises DataError."""
    role = item.get("role", item.get("from")) if isinstance(item, Mapping) else None
    content = parts_together(item.get("content", item.get("value"))) if isinstance(item, Mapping) else None
    known = ROLE_NAMES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None or not isinstance(content, str):
        raise DataError(
            f'{str(item)[:60]!r} is no turn; allowed: such as {{"role": "user", "content": "..."}}, of the roles '
            f"{', '.join(ROLE_NAMES)}"
        )
    return {"role": known, "content": content.replace("\r\n", "\n")}
