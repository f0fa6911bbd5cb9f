"""Rows of tables -> conversations: which columns hold them, in which form, and what is wrong with a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from multistep.data.table import Table, quoted
from multistep.errors import DataError
from multistep.tasks.chat.conversation import Conversation, Turn, fault
from multistep.tasks.chat.options import with_options
from multistep.tasks.chat.threads import threaded
from multistep.tasks.chat.turns import Cells, first_answer, listed_turns, text_of

LISTED = (
    "dialog",
    "dialogue",
    "turns",
    "contents",
    "data",
)  # columns of turns where these are lists, else of text
HISTORY = "history"  # the column of earlier questions with their answers
SYSTEM = ("system", "system_prompt", "system_message")  # columns of what stands before the first turn


@dataclass(frozen=True)
class Format:
    """A form of rows: the columns that it needs, the first of each group that there is, and those it may have.

    The text of `more` stands below the prompt, that of `above` before it, as what a question is about.
    """

    name: str
    prompt: tuple[str, ...]  # of a list of turns: the column of the list
    answer: tuple[str, ...] = ()  # empty: a list of turns
    more: tuple[str, ...] = ()
    above: tuple[str, ...] = ()

    def columns(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """The columns of a table that this form needs; None where one is missing."""
        known = {name.strip().lower(): name for name in names}
        chosen = [next((known[n] for n in group if n in known), None) for group in (self.prompt, self.answer) if group]
        return None if None in chosen else tuple(name for name in chosen if name is not None)

    def beside(self, names: Sequence[str]) -> tuple[str | None, bool]:
        """The column of a table, if it has one, whose text stands with the prompt, and whether that is above it."""
        known = {name.strip().lower(): name for name in names}
        found = next((known[name] for name in (*self.more, *self.above) if name in known), None)
        return found, found is not None and found.strip().lower() in self.above


# The most telling first: sets of conversations often repeat their first turn in a column 'prompt'.
FORMATS = (
    Format("messages", ("messages",)),
    Format("ShareGPT conversations", ("conversations", "conversation", "chat_messages")),
    Format("prompt and completion", ("prompt",), ("completion", "response", "answer", "output")),
    Format("instruction and output", ("instruction",), ("output", "response", "answer"), ("input", "context")),
    Format(
        "question and answer",
        ("question", "questions", "query"),
        ("answer", "answers", "response"),
        above=("context", "passage", "story"),
    ),
    Format("input and output", ("input",), ("output",)),
    Format("inputs and targets", ("inputs",), ("targets",)),
    Format("user and assistant", ("user", "human"), ("assistant", "bot", "gpt")),
    Format("context and response", ("context",), ("response",)),
    Format("turns", LISTED),
)


def format_of(names: Sequence[str]) -> Format | None:
    """The form that a table with these columns has; None if it holds no conversations."""
    return next((form for form in FORMATS if form.columns(names)), None)


def form_of_prompt(column: str) -> Format | None:
    """The form in which a prompt from this column is written, with or without an answer beside it."""
    wanted = column.strip().lower()
    return next((form for form in FORMATS if form.answer and wanted in form.prompt), None)


def is_in_doubt(names: Sequence[str]) -> bool:
    """Whether columns are of conversations by a name alone that running text has, too."""
    form = format_of(names)
    return form is not None and form.prompt == LISTED


def read_conversations(table: Table) -> tuple[list[Conversation], list[str]]:
    """The conversations of a table, in order, and what is to be said of them.

    Rows whose turns are in no order, empty, or without an assistant are left out and counted. Raises DataError, with
    the row, for what is no text, an unknown role, and two forms in one table; and where no row is left.
    """
    table = with_options(threaded(table))
    form = format_of(table.names)
    if form is None:
        raise DataError(f"{table.origin}: no conversations in columns {quoted(table.names)}; {ALLOWED}")
    if not len(table):
        raise DataError(f"{table.origin}: there is no row in it; name a source with conversations")
    _require_one_form(table, form)
    columns = form.columns(table.names)
    assert columns is not None, "the form was found by its columns"
    more = form.beside(table.names)[0]
    system = system_column(table.names)
    history = history_column(table.names) if len(columns) == 2 else None
    taken = [*columns, *(name for name in (more, system, history) if name)]
    values = [table.column(name) for name in taken]
    found: list[Conversation] = []
    faults: dict[str, list[str]] = defaultdict(list)
    unanswered: list[str] = []
    for row in range(len(table)):
        cells = Cells(table.place(row), {name: column[row] for name, column in zip(taken, values, strict=True)})
        turns, why = _turns(cells, columns, form)
        turns = with_history(cells, history, turns)
        turns = with_system(cells, system, turns)
        why = why or fault(turns)
        if why:
            faults[why].append(cells.where)
            continue
        if turns[-1].role != "assistant":
            unanswered.append(cells.where)
            turns = turns[: 1 + max(i for i, turn in enumerate(turns) if turn.role == "assistant")]
        if turns[0].role == "system" and not turns[0].content.strip():
            turns = turns[1:]
        alone = sum(turn.role != "system" for turn in turns) == 2
        plain = alone and len(columns) == 2 and isinstance(cells.values[columns[0]], str)
        found.append(Conversation(tuple(turns), completion=plain, where=cells.where))
    notes = [*table.notes, f"{table.origin}: conversations from {quoted(taken)}, as {form.name} ({_override(table)})"]
    notes += [
        f"{table.origin}: rows left out, {why}: {len(rows):,} of {len(table):,} (first: {rows[0]})"
        for why, rows in faults.items()
    ]
    if unanswered:
        notes.append(
            f"{table.origin}: conversations that do not end with the assistant, read up to its last turn: "
            f"{len(unanswered):,} (first: {unanswered[0]})"
        )
    if not found:
        reasons = "; ".join(f"{why}: {len(rows)} (first: {rows[0]})" for why, rows in faults.items())
        raise DataError(f"{table.origin}: no row holds a conversation that can be trained on: {reasons}")
    return found, notes


ALLOWED = "allowed: " + "; ".join(
    " and ".join(f"'{group[0]}'" for group in (form.prompt, form.answer) if group) for form in FORMATS
)


def _override(table: Table) -> str:
    texts = [name for name, is_text in table.is_text.items() if is_text and name.strip().lower() == "text"]
    return "--set data.text_column=text for running text" if texts else f"of {quoted(table.names)}"


def _require_one_form(table: Table, form: Format) -> None:
    """Raises DataError, with both rows, where the rows of a table are of two forms, or one is of none."""
    kinds = [(other, columns) for other in FORMATS if (columns := other.columns(table.names))]
    cells = {name: table.column(name) for _, columns in kinds for name in columns}
    first: tuple[Format, int] | None = None
    for row in range(len(table)):
        own = next((f for f, columns in kinds if all(cells[name][row] is not None for name in columns)), None)
        if own is None:
            lacking = next(name for name in form.columns(table.names) or () if cells[name][row] is None)
            raise DataError(
                f"{table.place(row)}: '{lacking}' is missing or null, though rows here are {form.name}; mend or remove "
                f"the {table.unit}"
            )
        if first is None:
            first = own, row
        elif own is not first[0]:
            raise DataError(
                f"{table.place(row)}: {own.name}, but {table.place(first[1])} is {first[0].name}; one form a file: "
                "bring them into one, or into two files"
            )


def system_column(names: Sequence[str]) -> str | None:
    """The column, if there is one, of what the system says before the first turn."""
    known = {name.strip().lower(): name for name in names}
    return next((known[name] for name in SYSTEM if name in known), None)


def history_column(names: Sequence[str]) -> str | None:
    """The column, if there is one, of earlier questions with their answers."""
    return next((name for name in names if name.strip().lower() == HISTORY), None)


def with_system(cells: Cells, column: str | None, turns: list[Turn]) -> list[Turn]:
    """The turns behind what the row's column of the system says, unless they have a system's turn of their own."""
    said = cells.values[column] if column else None
    if (
        said is None
        or not turns
        or turns[0].role == "system"
        or not (text := text_of(cells, f"'{column}'", said)).strip()
    ):
        return turns
    return [Turn("system", text), *turns]


def with_history(cells: Cells, column: str | None, turns: list[Turn]) -> list[Turn]:
    """The turns behind the earlier ones, which LLaMA-Factory keeps as lists of a question and its answer."""
    pairs = cells.values[column] if column else None
    if not turns or not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return turns
    said = [(role, each) for pair in pairs for role, each in zip(("user", "assistant"), pair, strict=True)]
    return [*(Turn(role, text_of(cells, f"'{column}'", each)) for role, each in said), *turns]


def _turns(cells: Cells, columns: Sequence[str], form: Format) -> tuple[list[Turn], str]:
    """The turns of a row; or none, and why it is left out."""
    if len(columns) == 1:
        return listed_turns(cells, columns[0])
    prompt, answer = cells.values[columns[0]], first_answer(cells.values[columns[1]])
    if answer == []:
        return [], "no answer to it"
    if any(isinstance(value, list | tuple) for value in (prompt, answer)):
        before, why = listed_turns(cells, columns[0]) if not isinstance(prompt, str) else ([Turn("user", prompt)], "")
        said = [Turn("assistant", answer)] if isinstance(answer, str) else []
        after, other = (said, "") if said else listed_turns(cells, columns[1])
        return [*before, *after], why or other
    asked, answered = (text_of(cells, f"'{n}'", value) for n, value in zip(columns, (prompt, answer), strict=True))
    more, above = form.beside(tuple(cells.values))
    beside = cells.values[more] if more else None
    if beside is not None and (added := text_of(cells, f"'{more}'", beside)).strip():
        asked = f"{added}\n\n{asked}" if above else f"{asked}\n\n{added}"
    return [Turn("user", asked), Turn("assistant", answered)], ""
