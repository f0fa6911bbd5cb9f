"""Whatever holds conversations -> their splits: files, folders, Hugging Face data sets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from multistep.core.values.plan import DataSpec
from multistep.data.form import Form
from multistep.data.names import NO_TEST
from multistep.data.peek import first_columns
from multistep.data.shares import to_cut
from multistep.data.splits import given_splits, held_out_table
from multistep.data.table import Table
from multistep.data.text import TABLES
from multistep.errors import DataError
from multistep.tasks.chat.conversation import Conversation
from multistep.tasks.chat.formats import LISTED, format_of, is_in_doubt, read_conversations
from multistep.tasks.chat.options import has_options
from multistep.tasks.chat.threads import is_threaded

KINDS = TABLES  # a folder is read by the first kind that it holds
FORM = Form("conversations", f"{', '.join(KINDS)}, or a folder of them", tables=KINDS, kinds=KINDS)
LOOKED_AT = 100  # rows, where a column's name does not tell
LEAST_TRAIN, LEAST_HELD_OUT = 4, 2
ENOUGH = 20_000  # conversations; a smaller set gives more of itself, or its intervals would prove nothing
SHARE, SMALL_SHARE = 0.05, 0.1  # of validation, and of test


class Keyed(Protocol):
    """What is read of a row: equal keys stay in one split; `where` is file and row."""

    @property
    def where(self) -> str: ...
    def key(self) -> str: ...


K = TypeVar("K", bound=Keyed)
ReadTable = Callable[[Table], tuple[list[K], list[str]]]


@dataclass(frozen=True)
class Items(Generic[K]):
    """What a source holds of one split, whatever its rows are."""

    items: tuple[K, ...]
    notes: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class ChatSplits:
    """Conversations of the three splits; `test` may be empty."""

    train: tuple[Conversation, ...]
    validation: tuple[Conversation, ...]
    test: tuple[Conversation, ...]
    notes: tuple[str, ...]  # guesses, rows left out, cuts and duplicates, to be said aloud
    fingerprint: str  # blake2b of all splits, hexadecimal


def holds_conversations(data: DataSpec) -> bool:
    """Whether data are conversations: by the columns of their table, of which only the beginning is read.

    A text column that is named means running text. What cannot be read is said by whoever reads it.
    """
    if data.text_column is not None:
        return False
    names = first_columns(data, FORM)
    if is_threaded(names) or has_options(names):
        return True
    return _holds_lists(data, names) if is_in_doubt(names) else format_of(names) is not None


def _holds_lists(data: DataSpec, names: Sequence[str]) -> bool:
    """Whether the column that may be of turns holds lists."""
    table = held_out_table(data, FORM)
    column = next(name for name in names if name.strip().lower() in LISTED)
    return any(isinstance(value, list | tuple) for value in table.column(column)[:LOOKED_AT])


# Read -----------------------------------------------------------------------------------------------


def read_held_out(data: DataSpec) -> Items[Conversation]:
    """The conversations that are scored of the data: the test split's, else the validation split's, else all."""
    return items_of(held_out_table(data, FORM), read_conversations)


def read_given(data: DataSpec, read: ReadTable[K]) -> tuple[dict[str, Items[K]], list[str]]:
    """The items of the splits that the data name, train among them, and what is to be said of them."""
    tables, notes = given_splits(data, FORM)
    given = {name: items_of(table, read) for name, table in tables.items()}
    return given, [*(note for part in given.values() for note in part.notes), *notes]


def items_of(table: Table, read: ReadTable[K]) -> Items[K]:
    items, notes = read(table)
    return Items(tuple(items), tuple(notes), table.origin)


# Splits ---------------------------------------------------------------------------------------------


def load_conversations(data: DataSpec) -> ChatSplits:
    """Read what the plan names and cut whatever split is missing, the same way each time.

    Splits are taken as given from three sources, from a folder that holds files named after them, from a table's
    column `split`, and from a Hugging Face data set. With nothing but train, 80 : 10 : 10 of the conversations are cut
    (90 : 5 : 5 from 20,000 on), whole, those with the same first prompt and answer together; a missing validation
    split is cut from train. Those that stand in two splits are counted, not removed.
    Raises DataError if train has under 4 conversations or validation under 2.
    """
    given, said = read_given(data, read_conversations)
    splits = {name: given[name].items if name in given else () for name in ("train", "validation", "test")}
    origin = given["train"].origin
    if missing := to_cut(data.shares, given, usual_share(splits["train"]), origin):
        splits |= cut_items(splits["train"], missing)
        sizes = ", ".join(f"{name} {len(splits[name]):,}" for name in ("train", *missing))
        said.append(f"{origin}: cut into {sizes} conversations")
    if not splits["test"]:
        said.append(NO_TEST)
    for name in ("validation", "test"):
        said += duplicates(splits["train"], splits[name], name, "conversations have the first prompt and answer")
    for name, least in {"train": LEAST_TRAIN, "validation": LEAST_HELD_OUT}.items():
        if len(splits[name]) < least:
            raise DataError(
                f"{origin}: the {name} split has {len(splits[name])} conversations, at least {least} are needed "
                "(those with the same first prompt and answer stay in one split); give more"
            )
    return ChatSplits(**splits, notes=tuple(dict.fromkeys(said)), fingerprint=_fingerprint(splits))


def usual_share(train: Sequence[object]) -> float:
    """The part of train that is cut for each split where the plan names none."""
    return SHARE if len(train) >= ENOUGH else SMALL_SHARE


def cut_items(train: Sequence[K], wanted: Mapping[str, float]) -> dict[str, tuple[K, ...]]:
    """Whole items in the order of their hash, equal ones together; in each split in the order of the source."""
    ordered = sorted((_hash(conversation.key()), i) for i, conversation in enumerate(train))
    groups = [[i for _, i in group] for _, group in groupby(ordered, key=lambda pair: pair[0])]
    shares = list(wanted.values())
    starts = [len(train) * (1 - sum(shares[k:])) for k in range(len(shares))]
    names = ["train", *wanted]
    members: dict[str, list[int]] = {name: [] for name in names}
    before = 0
    for group in groups:
        members[names[sum(before >= start for start in starts)]] += group
        before += len(group)
    return {name: tuple(train[i] for i in sorted(members[name])) for name in names}


def duplicates(train: Sequence[K], other: Sequence[K], name: str, what: str) -> list[str]:
    """What is to be said of items of another split whose key is one of the training split's."""
    seen = Counter(conversation.key() for conversation in train)
    repeated = [conversation for conversation in other if conversation.key() in seen]
    if not repeated:
        return []
    return [
        f"{name}: {len(repeated):,} of {len(other):,} {what} of one in train "
        f"(first: {repeated[0].where}); on these it measures memory"
    ]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _fingerprint(splits: Mapping[str, Sequence[Conversation]]) -> str:
    total = hashlib.blake2b(digest_size=32)
    for name, conversations in splits.items():
        total.update(f"{name} {len(conversations)}\n".encode())
        for conversation in conversations:
            for part in (str(conversation.completion), *(p for t in conversation.turns for p in (t.role, t.content))):
                content = part.encode()
                total.update(f"{len(content)}\n".encode() + content)  # lengths, or two cuts would look alike
            total.update(b"\0")
    return total.hexdigest()
