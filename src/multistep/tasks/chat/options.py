"""Questions with options to choose from -> a prompt that shows these, and the answer: MMLU, ARC, CommonsenseQA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from multistep.data.table import Table, of_columns
from multistep.tasks.chat.turns import written_out

_OPTIONS = ("choices", "options")
_ANSWERS = ("answer", "answerkey", "answer_key", "answer_idx", "label", "correct_answer", "target")
_QUESTIONS = ("question", "question_stem", "query")
_CONTEXTS = ("context", "passage", "article", "story")


def has_options(names: Sequence[str]) -> bool:
    """Whether a table with these columns holds questions with options and answers."""
    return asks_options(names) and bool({name.strip().lower() for name in names} & set(_ANSWERS))


def asks_options(names: Sequence[str]) -> bool:
    """The same, with answers or without."""
    known = {name.strip().lower() for name in names}
    return all(known & set(group) for group in (_OPTIONS, _QUESTIONS))


def with_options(table: Table) -> Table:
    """The table with the columns `prompt`, that shows the options, and `completion`; any other as it is.

    An answer is the number of an option (from 0), its letter, or what it says; digits are what it says where those of
    every row are. A row whose answer is none of its options, as where it is kept secret, has none.
    """
    if not has_options(table.names):
        return table
    names = {name.strip().lower(): name for name in table.names}
    question, options, answer = (
        table.column(next(names[name] for name in group if name in names)) for group in (_QUESTIONS, _OPTIONS, _ANSWERS)
    )
    above = next((table.column(names[name]) for name in _CONTEXTS if name in names), [None] * len(table))
    told = [_told(value) for value in options]
    if not all(told):
        return table
    said = all(_said_by(given, held) for given, held in zip(answer, told, strict=True) if given not in (None, ""))
    prompts, answers = list[str](), list[object]()
    for asked, context, held, given in zip(question, above, told, answer, strict=True):
        parts = [str(part) for part in (context, asked) if isinstance(part, str) and part.strip()]
        prompts.append("\n\n".join([*parts, _shown(held)]))
        answers.append(_answer(given, held, said=said) or [])
    places = [table.place(row) for row in range(len(table))]
    note = f"{table.origin}: questions with options, which the prompt shows, and of which the answer is one"
    columns: dict[str, Sequence[object]] = {"prompt": prompts, "completion": answers}
    return of_columns(table.origin, columns, places, notes=(*table.notes, note))


def prompt_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns that a prompt is made of, in their order, the options last."""
    known = {name.strip().lower(): name for name in names}
    groups = (_CONTEXTS, _QUESTIONS, _OPTIONS)
    return tuple(found for group in groups if (found := next((known[n] for n in group if n in known), None)))


def shown_options(value: Any) -> str:
    """Options as a prompt shows them, one a line; empty for what holds none."""
    return _shown(_told(value))


def _shown(held: Mapping[str, str]) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in held.items())


def _told(value: Any) -> dict[str, str]:
    """The options by their letters: a list of texts, {"A": ...}, or {"text": [...], "label": [...]}; none of others."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):  # written out in a table of texts
        try:
            value = written_out(value)
        except ValueError:
            return {}
    if isinstance(value, Mapping) and isinstance(value.get("text"), list | tuple):
        letters = value.get("label") or ascii_uppercase
        return {str(letter): str(text) for letter, text in zip(letters, value["text"], strict=False)}
    if isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values()):
        return {str(letter): text for letter, text in value.items() if text}
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return dict(zip(ascii_uppercase, value, strict=False))
    return {}


def _answer(given: Any, held: Mapping[str, str], *, said: bool) -> str:
    """The option with its letter; "" where it is none. `said`: answers are what options say, also where that is a
    number.
    """
    letters = list(held)
    if said:
        return _said_by(given, held)
    if isinstance(given, str) and given.strip().isdigit() and given.strip() not in held:
        given = int(given)
    if isinstance(given, int) and not isinstance(given, bool):
        given = letters[given] if 0 <= given < len(letters) else ""
    given = str(given or "").strip()
    return f"{given}. {held[given]}" if given in held else _said_by(given, held)


def _said_by(given: Any, held: Mapping[str, str]) -> str:
    """The option that says this, with its letter; "" where none does."""
    wanted = given.strip() if isinstance(given, str) else None
    return next((f"{letter}. {text}" for letter, text in held.items() if text.strip() == wanted), "")
