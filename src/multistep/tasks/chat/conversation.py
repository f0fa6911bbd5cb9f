"""Conversations as values, whatever they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Turn:
    role: str  # one of ROLES
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order. `completion`: a prompt and its completion, so plain text where a model has no template."""

    turns: tuple[Turn, ...]
    completion: bool = False
    where: str = ""  # file and row, for messages

    @property
    def answers(self) -> tuple[str, ...]:
        """What the assistant says, in order."""
        return tuple(turn.content for turn in self.turns if turn.role == "assistant")

    @property
    def characters(self) -> int:
        return sum(len(turn.content) for turn in self.turns)

    def key(self) -> str:
        """By which equal ones are found: the first prompt and the answer to it."""
        prompt = next(turn.content.strip() for turn in self.turns if turn.role == "user")
        return f"{prompt}\0{self.answers[0].strip()}"


def plain_prompt(turns: Sequence[Turn]) -> str:
    """What stands before the answer where no template writes the turns: all but the assistant's, as paragraphs."""
    return "\n\n".join(turn.content for turn in turns if turn.role != "assistant")


def fault(turns: Sequence[Turn]) -> str:
    """Why these turns cannot be trained on, as the second half of "rows left out: ..."; empty where they can.

    A system turn may stand first. Then user and assistant take turns, the user first; what tools answer stands
    between two turns of the assistant. A user's turn at the end has no answer and is no fault.
    """
    if not any(turn.role == "assistant" for turn in turns):
        return "nothing of an assistant in them"
    if any(not turn.content.strip() for turn in turns if turn.role != "system"):
        return "an empty turn"
    before = "system"
    for number, turn in enumerate(turns):
        if turn.role == "system" and number:
            return "a system's turn that is not the first"
        if turn.role in ("assistant", "tool") and before == "system":
            return f"begun by the {turn.role}, not by the user"
        if turn.role == "user" and before == "tool":
            return "a user's turn after a tool's"
        if turn.role == before and turn.role in ("user", "assistant"):
            return f"two turns of the {turn.role} in a row"
        if turn.role == "tool" and before == "user":
            return "a tool's turn that no assistant asked for"
        before = turn.role
    return ""
