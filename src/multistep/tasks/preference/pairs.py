"""Rows of tables -> pairs of answers to one prompt, and what is wrong with a row."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from multistep.data.table import Table, quoted
from multistep.errors import DataError
from multistep.tasks.chat.conversation import Conversation, Turn, fault
from multistep.tasks.chat.formats import system_column, with_system
from multistep.tasks.chat.turns import Cells, listed_turns, text_of

PROMPT = ("prompt", "instruction", "question", "conversations", "messages", "input")
CHOSEN, REJECTED = "chosen", "rejected"
BESIDE = ("input", "context")  # of an instruction: the text below it
_SPEAKER = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):[ \n]?")  # as HH-RLHF writes turns into one text
ALLOWED = (
    "allowed: 'prompt', 'chosen' and 'rejected' as texts or lists of turns; or 'chosen' and 'rejected' as lists of "
    "turns that begin alike"
)


@dataclass(frozen=True)
class Pair:
    """Two conversations that share their first `shared` turns; what follows is the answer, preferred in `chosen`."""

    chosen: Conversation
    rejected: Conversation
    shared: int

    @property
    def where(self) -> str:
        return self.chosen.where

    @property
    def prompt(self) -> tuple[Turn, ...]:
        return self.chosen.turns[: self.shared]

    @property
    def answers(self) -> tuple[str, str]:
        """What was chosen and what was rejected, as texts."""
        both = (self.chosen, self.rejected)
        chosen, rejected = ("\n".join(turn.content for turn in c.turns[self.shared :]) for c in both)
        return chosen, rejected

    def key(self) -> str:
        """The prompt: pairs of one prompt are not independent, and stay in one split."""
        return "\0".join(f"{turn.role}\0{turn.content.strip()}" for turn in self.prompt)


def read_pairs(table: Table) -> tuple[list[Pair], list[str]]:
    """The pairs of a table, in order, and what is to be said of them.

    Rows whose answers are equal, empty or to no prompt are left out and counted. Raises DataError, with the row, for
    what is no text and no list of turns, for columns that hold no pairs, and where no row is left.
    """
    known = {name.strip().lower(): name for name in table.names}
    if CHOSEN not in known or REJECTED not in known:
        raise DataError(f"{table.origin}: no pairs of answers in columns {quoted(table.names)}; {ALLOWED}")
    if not len(table):
        raise DataError(f"{table.origin}: there is no row in it; name a source with pairs of answers")
    prompt = next((known[name] for name in PROMPT if name in known), None)
    beside = (
        next((known[name] for name in BESIDE if name in known), None) if prompt == known.get("instruction") else None
    )
    system = system_column(table.names)
    taken = [name for name in (prompt, known[CHOSEN], known[REJECTED], beside, system) if name]
    columns = [table.column(name) for name in taken]
    found: list[Pair] = []
    faults: dict[str, list[str]] = defaultdict(list)
    for row in range(len(table)):
        cells = Cells(table.place(row), {name: column[row] for name, column in zip(taken, columns, strict=True)})
        pair = _pair(cells, prompt, (known[CHOSEN], known[REJECTED]), beside, system)
        if isinstance(pair, str):
            faults[pair].append(cells.where)
        else:
            found.append(pair)
    notes = [*table.notes, f"{table.origin}: pairs from {quoted(taken)}"]
    notes += [
        f"{table.origin}: rows left out, {why}: {len(rows):,} of {len(table):,} (first: {rows[0]})"
        for why, rows in faults.items()
    ]
    if not found:
        reasons = "; ".join(f"{why}: {len(rows):,} (first: {rows[0]})" for why, rows in faults.items())
        raise DataError(f"{table.origin}: no row holds a pair that can be learnt from: {reasons}")
    return found, notes


def _pair(
    cells: Cells, prompt: str | None, answers: tuple[str, str], beside: str | None, system: str | None
) -> Pair | str:
    """The pair of a row, or why it is left out."""
    before, plain = list[Turn](), False
    asked = cells.values[prompt] if prompt else None
    if prompt and asked is not None:
        plain = isinstance(asked, str) and not _is_list(asked)
        if plain:
            said = text_of(cells, f"'{prompt}'", asked)
            more = cells.values[beside] if beside else None
            added = "" if more is None else text_of(cells, f"'{beside}'", more)
            before = [Turn("user", f"{said}\n\n{added}" if added.strip() else said)]
        else:
            before, why = listed_turns(cells, prompt)
            if why:
                return why
        if not any(turn.content.strip() for turn in before):
            return "an empty prompt"
        before = with_system(cells, system, before)
    whole = []
    for name in answers:
        value = cells.values[name]
        spoken = _spoken(value) if isinstance(value, str) and not before else []
        if spoken:
            answer = spoken
        elif isinstance(value, str) and not _is_list(value):
            answer = [Turn("assistant", text_of(cells, f"'{name}'", value))]
        else:
            plain = False
            answer, why = listed_turns(cells, name)
            if why:
                return why
        if not answer or not answer[-1].content.strip():
            return "an empty answer"
        whole.append([*before, *answer] if answer[0].role == "assistant" else answer)
    if [_stripped(turn) for turn in whole[0]] == [_stripped(turn) for turn in whole[1]]:
        return "the two answers are equal"
    shared = next((i for i, (one, other) in enumerate(zip(*whole, strict=False)) if one != other), min(map(len, whole)))
    if not shared:
        return "no prompt, and the two conversations begin differently" if whole[0][0].role == "user" else "no prompt"
    if any(len(turns) == shared or turns[shared].role != "assistant" for turns in whole):
        return "what differs is not the assistant's answer"
    if why := next((why for turns in whole if (why := fault(turns))), ""):
        return why
    one, other = (Conversation(tuple(turns), completion=plain, where=cells.where) for turns in whole)
    return Pair(one, other, shared)


def _is_list(text: str) -> bool:
    """Whether a text is a list of turns written out, as tables of texts hold it."""
    return text.lstrip().startswith(('[{"', "[{'"))


def _spoken(text: str) -> list[Turn]:
    """The turns of a text such as "Human: ... Assistant: ...", a paragraph each; none of any other."""
    first, *parts = _SPEAKER.split(text)
    if first.strip() or len(parts) < 4:
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Turn(roles[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _stripped(turn: Turn) -> tuple[str, str]:
    return turn.role, turn.content.strip()


def fingerprint_parts(pair: Pair) -> Sequence[str]:
    """All that a pair is, as texts."""
    turns = [part for c in (pair.chosen, pair.rejected) for turn in c.turns for part in (turn.role, turn.content)]
    return [str(pair.shared), str(pair.chosen.completion), str(len(pair.chosen.turns)), *turns]
