"""Texts that memory should not hold -> train, validation and test, by the same rules as others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.cache import cache_folder, kept
from multistep.data.long import local_files, text_size
from multistep.data.names import NO_TEST
from multistep.data.shares import to_cut
from multistep.data.splits import given_splits
from multistep.data.table import Table
from multistep.engine.names import may_be_hub_id
from multistep.tasks.notes import say
from multistep.tasks.order import sample_of
from multistep.tasks.text.corpus import (
    TEXT,
    Documents,
    LongTexts,
    Places,
    parts_of,
    read_at,
    write_documents,
)
from multistep.tasks.text.cutting import (
    cut_note,
    duplicates,
    hash_texts,
    line_end,
    members_of,
    require_enough,
    tails,
    usual_share,
)
from multistep.tasks.text.files import LONG_FORM, text_column_of

ABOUT, HELD_OUT = "about.json", ("validation", "test")
NONE: Places = np.zeros((0, 2), np.int64)
VERSION = 1  # of what is kept; another one is made anew
MOST_GIVEN = 10_000_000  # characters of a held-out split that the data bring themselves: they are in memory


@dataclass(frozen=True)
class LongSplits:
    """The splits of long texts: train in a file, what is held out in memory."""

    train: LongTexts
    held_out: Mapping[str, tuple[str, ...]]
    contiguous: bool
    notes: tuple[str, ...]
    fingerprint: str


def long_splits(
    data: DataSpec, named: Mapping[str, str] | None, shares: Mapping[str, float], most_in_memory: int
) -> LongSplits | None:
    """The splits of texts of more bytes than memory should hold; None of others.

    They are read once into the cache (`data.cache`), and from there as long as the files are as they were.
    """
    sources = list(named.values()) if named else [s for s in (data.source, data.train, data.validation, data.test) if s]
    files = [file for source in sources for file in local_files(source)]
    tables: dict[str, Table] = {}
    notes: list[str] = []
    if not files:  # perhaps a data set of the hub, whose files are known once it is opened
        if not all(map(may_be_hub_id, sources)) or set(sources) & LONG_FORM.made.keys():
            return None
        tables, notes = given_splits(data, LONG_FORM, named)
        files = [file for table in tables.values() for file in table.kept_in]
    if text_size(files) <= most_in_memory:
        return None

    def write(folder: Path) -> None:
        gigabytes = text_size(files) / 1e9
        say(
            [f"reads {gigabytes:.1f} GB of text and encodes it into {cache_folder()}, once; later starts find it there"]
        )
        found, said = (tables, notes) if tables else given_splits(data, LONG_FORM, named)
        _write(folder, found, said, data.text_column, shares)

    marks = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    how = (VERSION, repr(data), sorted((named or {}).items()), sorted(shares.items()), marks)
    folder = kept("texts", hashlib.blake2b(repr(how).encode(), digest_size=16).hexdigest(), write)
    return _read(folder)


def _read(folder: Path) -> LongSplits:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    train = LongTexts(
        folder / TEXT,
        np.load(folder / "train.npy"),
        characters=about["characters"],
        alphabet=about["alphabet"],
        running=about["running"],
        key=about["fingerprint"],
    )
    held_out = {name: tuple(train.at(np.load(folder / f"{name}.npy"))) for name in HELD_OUT}
    return LongSplits(train, held_out, about["contiguous"], tuple(about["notes"]), about["fingerprint"])


def _write(
    folder: Path,
    tables: Mapping[str, Table],
    notes: Sequence[str],
    column: str | None,
    shares: Mapping[str, float],
) -> None:
    """Put the texts into a file of the folder, and beside it what `load_splits` says of them.

    Raises DataError as that does.
    """
    with (folder / TEXT).open("wb+") as out:
        given = {}
        for name, table in tables.items():
            held, said = text_column_of(table, column)
            given[name] = write_documents(out, table, held, said)
        out.flush()
        handle = out.fileno()
        train, origin = given["train"], given["train"].origin
        notes = [*notes]
        size = sum(train.characters)
        places = {name: documents.places(range(len(documents))) for name, documents in given.items()}
        for name in HELD_OUT:
            if name in given and (some := _bounded(handle, given[name])) is not None:
                places[name] = some
                notes.append(_bounded_note(name, given[name], some))
        if wanted := to_cut(shares, given, usual_share(size), origin):
            places |= (_cut_running_text if train.contiguous else _cut_documents)(handle, train, wanted)
        held_out = {
            name: [read_at(handle, *at).decode() for at in places.get(name, NONE).tolist()] for name in HELD_OUT
        }
        # What is cut off a text may be blank.
        held_out = {name: texts if any(map(str.strip, texts)) else [] for name, texts in held_out.items()}
        if train.contiguous:
            places["train"] = parts_of(handle, *places["train"][0].tolist())
        texts = LongTexts(folder / TEXT, places["train"], running=train.contiguous)
        hashed, alphabet, characters = _looked_at(texts, held_out)
        if wanted:
            sizes = {"train": characters, **{name: sum(map(len, held_out[name])) for name in wanted}}
            notes.append(cut_note(origin, sizes))
        if not held_out["test"]:
            notes.append(NO_TEST)
        notes += duplicates(texts, held_out, running=train.contiguous)
        require_enough(origin, characters, held_out["validation"])
    said = [note for documents in given.values() for note in documents.notes]
    about = {
        "characters": characters,
        "alphabet": alphabet,
        "running": train.contiguous,
        "contiguous": all(documents.contiguous for documents in given.values()),
        "notes": list(dict.fromkeys([*said, *notes])),
        "fingerprint": hashed,
    }
    np.save(folder / "train.npy", places["train"])
    for name in HELD_OUT:
        np.save(folder / f"{name}.npy", places[name] if held_out[name] else NONE)
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _cut_running_text(handle: int, train: Documents, wanted: Mapping[str, float]) -> dict[str, Places]:
    def read(first: int, last: int) -> str:
        return read_at(handle, train.byte_of(handle, first), train.byte_of(handle, last)).decode()

    length = train.characters[0]
    ends = [train.byte_of(handle, line_end(read, length, 1 - share)) for share in tails(wanted)]
    edges = pairwise([train.starts[0], *ends, train.ends[0]])
    return {name: np.array([place], np.int64) for name, place in zip(["train", *wanted], edges, strict=True)}


def _cut_documents(_: int, train: Documents, wanted: Mapping[str, float]) -> dict[str, Places]:
    return {name: train.places(held) for name, held in members_of(train.hashes, train.characters, wanted).items()}


def _bounded(handle: int, documents: Documents) -> Places | None:
    """Where so much of a held-out split stands as is scored; None of one that is not too long."""
    size = sum(documents.characters)
    if size <= MOST_GIVEN:
        return None
    if documents.contiguous:
        return np.array([(documents.starts[0], documents.byte_of(handle, MOST_GIVEN))], np.int64)
    chosen = sample_of(len(documents), max(1, round(len(documents) * MOST_GIVEN / size)))
    return documents.places(chosen.tolist())


def _bounded_note(name: str, documents: Documents, places: Places) -> str:
    if documents.contiguous:
        what = f"the first {MOST_GIVEN:,} of {documents.characters[0]:,} characters are"
    else:
        what = f"{len(places):,} of {len(documents):,}, drawn by lot, are"
    return f"{name}: {what} scored, since they are in memory; `multistep evaluate` scores all"


def _looked_at(train: LongTexts, held_out: Mapping[str, Sequence[str]]) -> tuple[str, str, int]:
    """The fingerprint of all splits, as of those in memory; of train the different characters, and how many
    there are."""
    total = hashlib.blake2b(digest_size=32)
    alphabet: set[str] = set()
    characters = 0

    def read() -> Iterator[bytes]:
        nonlocal characters
        for text in train:
            data = text.encode()
            if len(data) == len(text):  # as quickly as can be, since this is most of it
                seen = np.bincount(np.frombuffer(data, np.uint8), minlength=128)
                alphabet.update(map(chr, np.flatnonzero(seen)))
            else:
                alphabet.update(text)
            characters += len(text)
            yield data

    sizes = np.diff(train.places).ravel()
    hash_texts(total, "train", read(), [int(sizes.sum())] if train.running else sizes.tolist(), whole=not train.running)
    for name, texts in held_out.items():
        data = [text.encode() for text in texts]
        hash_texts(total, name, data, [len(each) for each in data])
    return total.hexdigest(), "".join(sorted(alphabet)), characters
