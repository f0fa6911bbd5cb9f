"""A cell of a table -> turns: lists of them in whichever form they are written, and their contents."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multistep.errors import DataError, nearest
from multistep.tasks.chat.conversation import ROLES, Turn

# Names of roles in the wild, ShareGPT's foremost -> ours.
ROLE_NAMES: Mapping[str, str] = {
    **{role: role for role in ROLES},
    "developer": "system",
    "human": "user",
    "customer": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "llm": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_ROLES = ("role", "from", "speaker", "author", "sender")
_CONTENTS = ("content", "value", "text", "message", "parts")
# Turns in pairs, a question with its answer an object, as of XTuner and BELLE.
_PAIRS = (("human", "assistant"), ("user", "assistant"), ("input", "output"), ("question", "answer"))
_CALLING = "function_call"  # the role of a call, as of LLaMA-Factory
CALLS = ("tool_calls", "function_call")


@dataclass(frozen=True)
class Cells:
    where: str
    values: Mapping[str, Any]

    def fail(self, name: str, value: object, wanted: str) -> DataError:
        said = "missing or null" if value is None else f"{str(value)[:40]!r}, a {type(value).__name__}"
        return DataError(f"{self.where}: {name} is {said}; allowed: {wanted}")


def listed_turns(cells: Cells, column: str) -> tuple[list[Turn], str]:
    """A list of turns, each {"role": ..., "content": ...} or {"from": ..., "value": ...}, or the like.

    A list of texts is of turns that user and assistant take; one of objects with two texts, of questions and answers.
    """
    value = cells.values[column]
    wanted = 'a list of turns such as {"role": "user", "content": "..."}'
    if isinstance(value, str):  # in a table of texts the list is written out
        try:
            value = written_out(value)
        except ValueError:
            raise cells.fail(f"'{column}'", value, wanted) from None
    if isinstance(value, Mapping) and isinstance(value.get("role", value.get("from")), str):
        value = [value]  # one turn, without its list
    value = turn_by_turn(value)
    if not isinstance(value, list | tuple):
        raise cells.fail(f"'{column}'", value, wanted)
    if len(value) > 1 and all(isinstance(item, str) for item in value):
        return [Turn(("user", "assistant")[i % 2], text_of(cells, f"'{column}'", t)) for i, t in enumerate(value)], ""
    value = _unpaired(value)
    turns = []
    for number, item in enumerate(value, start=1):
        name = f"turn {number} of '{column}'"
        if not isinstance(item, Mapping):
            raise cells.fail(name, item, wanted)
        if any(item.get(key) for key in CALLS):
            return [], "calls of tools, which are not read"
        role = next((item[key] for key in _ROLES if key in item), None)
        if role == _CALLING:
            return [], "calls of tools, which are not read"
        known = ROLE_NAMES.get(str(role).strip().lower()) if isinstance(role, str) else None
        if role is None:
            said = f"has none of the keys {', '.join(_ROLES)}, so nobody says who speaks"
            raise DataError(f"{cells.where}: {name} {said}; its keys: {', '.join(map(str, item))}")
        if known is None:
            near = nearest(str(role).lower(), ROLE_NAMES)
            raise DataError(f"{cells.where}: {name} has the role {role!r}; allowed: {', '.join(ROLE_NAMES)}.{near}")
        turns.append(Turn(known, text_of(cells, name, next((item[key] for key in _CONTENTS if key in item), None))))
    return turns, ""


def _unpaired(value: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
    """A list of objects that hold a question and its answer each, as one of turns; any other as it is."""
    for asked, answered in _PAIRS:
        if value and all(isinstance(item, Mapping) and {asked, answered} <= item.keys() for item in value):
            first = value[0].get("system")
            said = [(role, item[key]) for item in value for role, key in (("user", asked), ("assistant", answered))]
            turns = [{"role": role, "content": text} for role, text in said]
            return [{"role": "system", "content": first}, *turns] if isinstance(first, str) and first.strip() else turns
    return value


def first_answer(value: Any) -> Any:
    """Of several answers to a question the first: a list of texts, or SQuAD's {"text": [...]}; all else as it is."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list | tuple):
        value = list(value["text"])
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return next((each for each in value if each.strip()), [])
    return value


def written_out(text: str) -> object:
    """The list that a text spells out, as JSON or as Python prints it. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(str(error)) from error


def turn_by_turn(value: object) -> object:
    """A list of turns that older data sets keep as lists of roles and of contents; all else as it is."""
    if isinstance(value, Mapping) and value and all(isinstance(part, list | tuple) for part in value.values()):
        return [dict(zip(value, parts, strict=False)) for parts in zip(*value.values(), strict=False)]
    return value


def parts_together(value: object) -> object:
    """The text of a content that is a list of parts, all of them texts; all else as it is."""
    if isinstance(value, list | tuple) and value:
        typed = [part for part in value if isinstance(part, Mapping) and part.get("type", "text") == "text"]
        parts = [part.get("text") for part in typed]
        if len(parts) == len(value) and all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
    return value


def text_of(cells: Cells, name: str, value: object) -> str:
    """A content: a text, or a list of parts that are texts."""
    value = parts_together(value)
    if not isinstance(value, str):
        raise cells.fail(name, value, "a text")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise DataError(f"{cells.where}: {name} holds half a surrogate pair (\\ud800 to \\udfff)")
    return value.replace("\r\n", "\n")
