"""Turns that tables hold one by one, or as trees -> conversations: OpenAssistant, ChatGPT's export, a turn a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from multistep.data.table import Table, of_columns, quoted

MESSAGES = "messages"  # the column that is made
_TALKS = ("conversation", "dialogue", "dialog", "thread", "session", "chat")
IDS = tuple(f"{what}{end}" for what in _TALKS for end in ("_id", "id", ""))
_TEXTS = ("content", "text", "message", "value")
_ORDERS = ("turn", "turn_id", "turn_index", "turn_number", "message_index", "position", "order", "seq", "index")
_ANSWERING = ("assistant", "gpt", "bot", "model")  # roles of those whose answers are ranked
Node: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class _Found:
    """Conversations, the row that each begins in, and what is to be said."""

    turns: list[list[dict[str, str]]]
    rows: list[int]
    said: str


def is_threaded(names: Sequence[str]) -> bool:
    """Whether a table with these columns holds turns one by one, and says which belong together."""
    return _reader(names) is not None


def threaded(table: Table) -> Table:
    """The table with a conversation a row, in the column `messages`; any other as it is. Raises DataError."""
    reader = _reader(table.names)
    if reader is None:
        return table
    found = reader(table)
    places = [table.place(row) for row in found.rows]
    notes = (*table.notes, f"{table.origin}: {found.said}")
    return of_columns(table.origin, {MESSAGES: found.turns}, places, notes=notes)


def _reader(names: Sequence[str]) -> Callable[[Table], _Found] | None:
    known = {name.strip().lower() for name in names}
    if "mapping" in known and known & {"current_node", "conversation_id", "create_time"}:
        return _of_chatgpt
    if "message_tree_id" in known and "prompt" in known:
        return lambda table: _of_trees(table, [_object(node) for node in _column(table, "prompt")])
    text = known & set(_TEXTS)
    if {"role", "replies"} <= known and text:
        return lambda table: _of_trees(table, list(_rows(table)))
    if not text or "role" not in known:
        return None
    if "message_id" in known and known & {"parent_id", "message_tree_id"}:
        return _of_messages
    return _of_turns if known & set(IDS) else None


def _column(table: Table, wanted: str) -> Sequence[object]:
    return table.column(next(name for name in table.names if name.strip().lower() == wanted))


def _rows(table: Table) -> Iterator[Node]:
    columns = {name.strip().lower(): table.column(name) for name in table.names}
    return ({name: held[row] for name, held in columns.items()} for row in range(len(table)))


def _object(value: object) -> Node:
    return value if isinstance(value, Mapping) else {}


# OpenAssistant --------------------------------------------------------------------------------------


def _of_messages(table: Table) -> _Found:
    """arXiv 2304.07327, a message a row: which answers which is told by `parent_id`."""
    nodes = [dict(row) for row in _rows(table)]
    known = {node["message_id"] for node in nodes}
    replies: dict[object, list[Node]] = defaultdict(list)
    for node in nodes:
        replies[node.get("parent_id")].append(node)
    for node in nodes:
        node["replies"] = replies.get(node["message_id"], [])
    roots = [i for i, node in enumerate(nodes) if node.get("parent_id") not in known]
    return _of_trees(table, [nodes[i] for i in roots], roots)


def _of_trees(table: Table, roots: Sequence[Node], rows: Sequence[int] | None = None) -> _Found:
    """Of several answers the best ranked, or the first where none is ranked; of several questions to it all."""
    turns: list[list[dict[str, str]]] = []
    begun: list[int] = []
    aside, ranked = 0, False
    for row, root in zip(range(len(roots)) if rows is None else rows, roots, strict=True):
        for path, others, by_rank in _paths(root):
            turns.append([{"role": str(node.get("role")), "content": _said_by(node)} for node in path])
            begun.append(row)
            aside += others
            ranked |= by_rank
    which = "the best ranked" if ranked else "the first"
    said = f"read as trees of messages: {len(turns):,} conversations from {len(roots):,} prompts"
    said += f"; of several answers {which} counts, {aside:,} others are left out" if aside else ""
    return _Found(turns, begun, said)


def _paths(root: Node) -> list[tuple[list[Node], int, bool]]:
    """The ways from a question to the ends of a tree, how many answers beside each, and whether these are ranked."""
    done: list[tuple[list[Node], int, bool]] = []
    waiting: list[tuple[list[Node], int, bool]] = [([root], 0, False)] if _is_kept(root) else []
    while waiting:
        path, aside, ranked = waiting.pop()
        replies = [node for node in path[-1].get("replies") or () if _is_kept(_object(node))]
        if _answers(path[-1]):
            asked = [node for node in replies if any(map(_is_kept, node.get("replies") or ()))]
            # Of what is left aside beside the way each answer counts once.
            waiting += [([*path, node], aside if not i else 0, ranked) for i, node in enumerate(asked)][::-1]
            if asked:
                continue
        elif replies:
            best = min(range(len(replies)), key=lambda i: (_rank(replies[i]), i))
            told = any(_rank(node) != _UNRANKED for node in replies)
            waiting.append(([*path, replies[best]], aside + len(replies) - 1, ranked or told))
            continue
        done.append((path, aside, ranked))
    return done


_UNRANKED = float("inf")


def _rank(node: Node) -> float:
    try:
        rank = float(str(node.get("rank")))
    except ValueError:
        return _UNRANKED
    return rank if rank == rank else _UNRANKED


def _is_kept(node: Node) -> bool:
    """Whether it is a message that was neither deleted nor refused by reviewers; tables of texts spell that out."""
    deleted, reviewed = (str(node.get(name)).lower() for name in ("deleted", "review_result"))
    return bool(node) and deleted not in ("true", "1", "1.0") and reviewed not in ("false", "0", "0.0")


def _answers(node: Node) -> bool:
    return str(node.get("role")).strip().lower() in _ANSWERING


def _said_by(node: Node) -> str:
    return str(next((node[name] for name in _TEXTS if node.get(name) is not None), ""))


# ChatGPT's export -----------------------------------------------------------------------------------


def _of_chatgpt(table: Table) -> _Found:
    """conversations.json: of each conversation the branch that was seen last, without tools, files and hidden turns."""
    turns = []
    current = next((name for name in table.names if name.strip().lower() == "current_node"), None)
    ends = table.column(current) if current else [None] * len(table)
    for mapping, end in zip(_column(table, "mapping"), ends, strict=True):
        nodes = _object(mapping)
        node = nodes.get(str(end)) or next(iter(list(nodes.values())[::-1]), None)
        branch: list[Node] = []
        while isinstance(node, Mapping) and len(branch) <= len(nodes):
            branch.append(_object(node.get("message")))
            node = nodes.get(str(node.get("parent")))
        turns.append(_merged(turn for message in reversed(branch) if (turn := _turn_of(message)) is not None))
    return _Found(turns, list(range(len(turns))), "read as an export of ChatGPT, each conversation as it was seen last")


def _turn_of(message: Node) -> tuple[str, str] | None:
    role, content = str(_object(message.get("author")).get("role")), _object(message.get("content"))
    about = _object(message.get("metadata"))
    if role not in ("user", "assistant") or message.get("recipient", "all") != "all":
        return None
    if about.get("is_visually_hidden_from_conversation") or "text" not in str(content.get("content_type")):
        return None
    parts = content.get("parts")
    text = "\n".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else ""
    return (role, text) if text.strip() else None


def _merged(turns: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The turns, those of one role in a row as one."""
    found: list[dict[str, str]] = []
    for role, text in turns:
        if found and found[-1]["role"] == role:
            found[-1]["content"] += f"\n\n{text}"
        else:
            found.append({"role": role, "content": text})
    return found


# A turn a row ---------------------------------------------------------------------------------------


def _of_turns(table: Table) -> _Found:
    """Rows of one conversation by its id, in the order of the column that numbers them, else of the rows."""
    names = {name.strip().lower(): name for name in table.names}
    which = next(names[name] for name in IDS if name in names)
    text = next(names[name] for name in _TEXTS if name in names)
    order = next((names[name] for name in _ORDERS if name in names and _are_numbers(table.column(names[name]))), None)
    rows: dict[object, list[int]] = defaultdict(list)
    for row, key in enumerate(table.column(which)):
        rows[key].append(row)
    if order is not None:
        numbers = [float(str(number)) for number in table.column(order)]
        for held in rows.values():
            held.sort(key=lambda row: numbers[row])
    roles, texts = table.column(names["role"]), table.column(text)
    turns = [_merged((str(roles[row]), str(texts[row] or "")) for row in held) for held in rows.values()]
    one = sum(map(len, rows.values())) - sum(map(len, turns))
    ordered = quoted([names["role"], text, which, *([order] if order else [])])
    said = f"a turn a row (columns {ordered}): {len(rows):,} conversations of {len(table):,} rows"
    said += f"; turns of one role in a row are one: {one:,}" if one else ""
    return _Found(turns, [held[0] for held in rows.values()], said)


def _are_numbers(values: Sequence[object]) -> bool:
    try:
        return all(float(str(value)) == float(str(value)) for value in values)
    except ValueError:
        return False
