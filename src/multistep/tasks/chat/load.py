"""Whatever holds conversations -> their splits: files, folders, Hugging Face data sets."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Generic, Protocol, TextIO, TypeVar

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.chat.conversation import Conversation
from multistep.tasks.chat.formats import format_of, read_conversations
from multistep.tasks.splits import NO_TEST, given_splits, held_out_source, split_files, split_rows, together
from multistep.tasks.tables import TABLES, Table, existing_file, is_saved_set, kind_of, named_tables, read_table

KINDS = (*TABLES, ".json")  # a folder is read by the first kind that it holds
LEAST_TRAIN, LEAST_HELD_OUT = 4, 2
ENOUGH = 20_000  # conversations; a smaller set gives more of itself, or its intervals would prove nothing
SHARE, SMALL_SHARE = 0.05, 0.1  # of validation, and of test


@dataclass(frozen=True)
class Part:
    """What a source holds of one split."""

    conversations: tuple[Conversation, ...]
    notes: tuple[str, ...]
    origin: str


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


# Recognised by their columns ------------------------------------------------------------------------


def holds_conversations(data: DataSpec) -> bool:
    """Whether data are conversations: by the columns of their table, of which only the beginning is read.

    A text column that is named means running text. What cannot be read is said by whoever reads it.
    """
    return data.text_column is None and format_of(first_columns(data)) is not None


def first_columns(data: DataSpec) -> tuple[str, ...]:
    """The columns of the table that data are; none where they are no table, or cannot be read."""
    source = data.source or data.train or held_out_source(data)
    try:
        files, _ = split_files(source)
        return _columns_of(files.get("train") or next(iter(files.values()), source))
    except (OSError, ValueError, EOFError, csv.Error, zlib.error):  # DataError is a ValueError
        return ()


def _columns_of(source: str) -> tuple[str, ...]:
    path = Path(source).expanduser()
    if path.is_dir() and not is_saved_set(path):
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        kind = next((kind for kind in (".txt", *KINDS) if any(kind_of(p) == kind for p in files)), None)
        chosen = [p for p in files if kind_of(p) == kind and kind in KINDS]
        return _columns_of(str(chosen[0])) if chosen else ()
    if not path.is_file():
        named = named_tables(source)
        return next(iter(named.values())).names if named else ()
    kind = kind_of(path)
    if kind == ".parquet":
        from pyarrow import parquet

        return tuple(parquet.read_schema(path).names)
    if kind == ".json":
        return read_table(path).names if _first_line(path).startswith("[") else ()
    if kind not in TABLES:
        return ()
    first = _first_line(path)
    if kind in (".csv", ".tsv"):
        return tuple(next(csv.reader([first], delimiter="\t" if kind == ".tsv" else ",")))
    import json

    row = json.loads(first)
    return tuple(row) if isinstance(row, dict) else ()


def _first_line(path: Path) -> str:
    """The first line that is not empty, without a byte-order mark; "" if there is none."""
    opening: Callable[..., TextIO] = gzip.open if path.suffix.lower() == ".gz" else open
    with opening(path, "rt", encoding="utf-8-sig") as file:
        return next((line.strip() for line in file if line.strip()), "")


# Read -----------------------------------------------------------------------------------------------


def read_parts(source: str) -> dict[str, Part]:
    """The conversations of one source by the splits that it names."""
    found = read_sources(source, read_conversations)
    return {split: Part(items.items, items.notes, items.origin) for split, items in found.items()}


def read_sources(source: str, read: ReadTable[K]) -> dict[str, Items[K]]:
    """One source by the splits that it names: a Hugging Face data set's, or those of a column; else all under ""."""
    named = named_tables(source)
    if named is not None:
        if len(named) > 1:
            return {name: _items(table, read) for name, table in named.items()}
        ((name, table),) = named.items()
        return {split or name: part for split, part in _by_split(table, read).items()}
    path = Path(source).expanduser()
    if not path.is_dir():
        return _by_split(read_table(existing_file(path)), read)
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    kind = next((kind for kind in KINDS if any(kind_of(p) == kind for p in files)), None)
    if kind is None:
        raise DataError(f"{path}: no table in this folder; allowed: {', '.join(KINDS)}")
    chosen = [p for p in files if kind_of(p) == kind]
    left_out = len(files) - len(chosen)
    said = (f"{path}: files left out because they are not {kind}: {left_out}",) if left_out else ()
    found = {}
    for split, parts in together({str(p): _by_split(read_table(p), read) for p in chosen}).items():
        items = tuple(item for part in parts for item in part.items)
        found[split] = Items(items, (*said, *(note for part in parts for note in part.notes)), str(path))
    return found


def _by_split(table: Table, read: ReadTable[K]) -> dict[str, Items[K]]:
    table, parts = split_rows(table)
    if len(parts) == 1:
        return {split: _items(table, read) for split in parts}
    return {split: _items(table.take(rows), read) for split, rows in parts.items()}


def _items(table: Table, read: ReadTable[K]) -> Items[K]:
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
    source: str | dict[str, str] = data.source or {
        name: path for name in ("train", "validation", "test") if (path := getattr(data, name))
    }
    given, notes = given_splits(source, functools.partial(read_parts))
    said = [*(note for part in given.values() for note in part.notes), *notes]
    splits = {name: given[name].conversations if name in given else () for name in ("train", "validation", "test")}
    origin = given["train"].origin
    if missing := {1: ("validation", "test")}.get(len(given), () if "validation" in given else ("validation",)):
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


def cut_items(train: Sequence[K], wanted: Sequence[str]) -> dict[str, tuple[K, ...]]:
    """Whole items in the order of their hash, equal ones together; in each split in the order of the source."""
    ordered = sorted((_hash(conversation.key()), i) for i, conversation in enumerate(train))
    groups = [[i for _, i in group] for _, group in groupby(ordered, key=lambda pair: pair[0])]
    share = SHARE if len(train) >= ENOUGH else SMALL_SHARE
    starts = [len(train) * (1 - share * (len(wanted) - k)) for k in range(len(wanted))]
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
