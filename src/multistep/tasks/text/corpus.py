"""Texts that memory should not hold: written to one file in UTF-8, and read from it when they are asked for."""

from __future__ import annotations

import hashlib
import os
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from multistep.data.long import LongText
from multistep.data.table import Table
from multistep.errors import DataError
from multistep.tasks.text.words import blocks_of

TEXT = "text"  # the file, in a folder of the cache
WRITTEN_AT_ONCE = 2**20  # characters
HEAD = 4096  # bytes of how a text begins
OF_THE_TEXT = 0.9  # that stands in documents no longer than the one by which a context is chosen
MOST_BEHIND = 8_000_000  # characters in which a place to cut is looked for
Places = NDArray[np.int64]  # where texts begin and end in the file, in bytes; shape: texts, 2


class LongTexts(Sequence[str]):
    """Texts in a file, read when they are asked for: documents, or the consecutive parts of a running text."""

    def __init__(
        self,
        file: Path,
        places: Places,
        *,
        characters: int = 0,
        alphabet: str = "",
        running: bool = False,
        key: str = "",
        of: LongTexts | None = None,
    ) -> None:
        # Holds what others may delete; texts of the same file share it.
        self._handle: int = os.open(file, os.O_RDONLY) if of is None else os.dup(of._handle)
        weakref.finalize(self, os.close, self._handle)
        self.file, self.places, self.running = file, places, running
        self.characters, self.alphabet = characters, alphabet  # all, and different ones
        self.key = key  # of the content of all splits

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Sequence[int]) -> LongTexts:
        """Some of the texts, in their order."""
        return LongTexts(self.file, self.places[np.asarray(rows, np.int64)], of=self)

    def at(self, places: Places) -> Iterator[str]:
        """Other texts of the same file."""
        return (read_at(self._handle, start, end).decode() for start, end in places.tolist())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = self.places[index].tolist()
        return read_at(self._handle, start, end).decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def heads(self, most: int) -> list[str]:
        """The first characters of the first texts, of at most so many."""
        some = [(start, min(end, start + HEAD)) for start, end in self.places[:most].tolist()]
        return [read_at(self._handle, start, end).decode(errors="ignore") for start, end in some]


class Together(Sequence[str]):
    """Several sequences of texts as one, without a list of them all."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return (
            next(islice(self, index, None)) if isinstance(index, int) else list(islice(self, index.start, index.stop))
        )

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.parts)


def together(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """Several sequences of texts as one."""
    return parts[0] if len(parts) == 1 else Together(parts)


def is_long(texts: Sequence[str]) -> bool:
    """Whether texts, or some of several, lie in a file."""
    return isinstance(texts, LongTexts) or (isinstance(texts, Together) and any(map(is_long, texts.parts)))


def characters_of(texts: Sequence[str]) -> int:
    """How many characters texts have together."""
    match texts:
        case LongTexts():
            return texts.characters
        case Together():
            return sum(map(characters_of, texts.parts))
        case _:
            return sum(map(len, texts))


def alphabet_of(texts: Sequence[str]) -> set[str]:
    """The different characters of texts."""
    match texts:
        case LongTexts():
            return set(texts.alphabet)
        case Together():
            return set().union(*map(alphabet_of, texts.parts))
        case _:
            return set().union(*texts)


def share_of_a_document(texts: Sequence[str]) -> float:
    """How much of all text one of its longer documents is: the one in which nine tenths of the text end, the longest
    last. 1 of a running text, which is one document.
    """
    lengths = np.sort(_lengths(texts))
    upto = lengths.cumsum()
    return float(lengths[np.searchsorted(upto, OF_THE_TEXT * upto[-1])] / upto[-1]) if lengths.sum() else 1.0


def _lengths(texts: Sequence[str]) -> NDArray[np.int64]:
    """Of each document, in bytes of UTF-8."""
    match texts:
        case LongTexts():
            lengths = np.diff(texts.places, axis=1)[:, 0]
            return lengths.sum(keepdims=True) if texts.running else lengths
        case Together():
            return np.concatenate([_lengths(part) for part in texts.parts])
        case _:
            return np.array([len(text.encode()) for text in texts], np.int64)


def heads_of(texts: Sequence[str], most: int = 1000) -> Sequence[str]:
    """The first of the texts; of long ones how they begin."""
    return texts.heads(most) if isinstance(texts, LongTexts) else texts[:most]


def some_of(texts: Sequence[str], most_characters: int) -> Iterator[str]:
    """Texts from the beginning, until they have so many characters."""
    for text in texts:
        if most_characters <= 0:
            return
        yield text
        most_characters -= len(text)


def read_at(handle: int, start: int, end: int) -> bytes:
    """Bytes of an open file."""
    found = []
    while start < end:
        data = os.pread(handle, end - start, start)
        if not data:
            raise DataError("a file of the cache has become shorter while it was read; start the run again")
        found.append(data)
        start += len(data)
    return b"".join(found)


class TextFile:
    """A new file of texts: what is put into it is read from it from then on."""

    def __init__(self, path: Path) -> None:
        self._path, self._out = path, path.open("wb")

    def __call__(self, texts: Iterable[str]) -> LongTexts:
        """Write texts, as they come. They hold no half characters."""
        ends = array("q", [self._out.tell()])
        for text in texts:
            ends.append(ends[-1] + self._out.write(text.encode()))
        self._out.flush()
        edges = np.frombuffer(ends, np.int64)
        return LongTexts(self._path, np.stack([edges[:-1], edges[1:]], 1))

    def __enter__(self) -> TextFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()


@dataclass
class Documents:
    """The documents of one source, as they are written into the file."""

    origin: str
    notes: list[str] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))  # bytes
    ends: array[int] = field(default_factory=lambda: array("q"))
    characters: array[int] = field(default_factory=lambda: array("q"))
    hashes: list[bytes] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])  # characters and bytes of the first so far

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def contiguous(self) -> bool:
        return len(self) == 1

    def places(self, members: Iterable[int]) -> Places:
        return np.array([(self.starts[i], self.ends[i]) for i in members], np.int64).reshape(-1, 2)

    def byte_of(self, handle: int, character: int) -> int:
        """Where a character of the first document stands in the file."""
        number = max(i for i, (characters, _) in enumerate(self.marks) if characters <= character)
        characters, at = self.marks[number]
        if characters == character:
            return self.starts[0] + at
        end = self.marks[number + 1][1]
        text = read_at(handle, self.starts[0] + at, self.starts[0] + end).decode()
        return self.starts[0] + at + len(text[: character - characters].encode())


def write_documents(out: BinaryIO, table: Table, column: str, said: Sequence[str]) -> Documents:
    """Append the texts of a table to a file, without empty ones. Raises DataError for what is no text, with its row."""
    documents = Documents(table.origin, [*table.notes, *said])
    dropped = 0
    for index, value in enumerate(table.each(column)):
        if not isinstance(value, str | LongText):
            what = "missing or null" if value is None else type(value).__name__
            raise DataError(f"{table.place(index)}: '{column}' is {what}, not a text; mend or remove the {table.unit}")
        if not _write(out, value, documents):
            dropped += 1
    if not documents:
        raise DataError(f"{table.origin}: there is no text in it; name a source with text")
    if dropped:
        documents.notes.append(f"{table.origin}: empty documents dropped: {dropped}")
    return documents


def _write(out: BinaryIO, value: str | LongText, documents: Documents) -> bool:
    """Whether the text is more than white space; else nothing is written."""
    start, size, characters = out.tell(), 0, 0
    total = hashlib.blake2b(digest_size=16)
    empty = True
    for piece in _pieces(value):
        try:
            data = piece.encode()
        except UnicodeEncodeError:  # JSON can spell out half a character
            number = len(documents) + 1
            raise DataError(
                f"{documents.origin}: document {number} holds half a surrogate pair (\\ud800 to \\udfff)"
            ) from None
        empty = empty and not piece.strip()
        total.update(data)
        out.write(data)
        size, characters = size + len(data), characters + len(piece)
        if not documents:
            documents.marks.append((characters, size))
    if empty:
        out.seek(start)
        out.truncate()
        documents.marks = documents.marks if len(documents) else [(0, 0)]
        return False
    documents.starts.append(start)
    documents.ends.append(start + size)
    documents.characters.append(characters)
    documents.hashes.append(total.digest())
    return True


def _pieces(value: str | LongText) -> Iterator[str]:
    if isinstance(value, LongText):
        yield from value.pieces()
        return
    text = value.replace("\r\n", "\n")
    for at in range(0, len(text), WRITTEN_AT_ONCE):
        yield text[at : at + WRITTEN_AT_ONCE]


def parts_of(handle: int, start: int, end: int) -> Places:
    """The places of the consecutive parts of a running text, about a million characters each, cut where no token
    changes."""
    cuts, behind, at = [start], "", start
    while at < end:
        data = read_at(handle, at, min(at + WRITTEN_AT_ONCE, end))
        at += len(data)
        while at < end and (more := read_at(handle, at, at + 1))[0] & 0xC0 == 0x80:  # a character goes on
            data, at = data + more, at + 1
        *whole, behind = blocks_of(behind + data.decode())
        if len(behind) > MOST_BEHIND:  # a text without lines
            block = behind[: max(behind.rfind(" "), 0) or len(behind)]
            whole, behind = [*whole, block], behind[len(block) :]
        for block in whole:
            cuts.append(cuts[-1] + len(block.encode()))
    if cuts[-1] < end:
        cuts.append(end)
    return np.stack([np.array(cuts[:-1], np.int64), np.array(cuts[1:], np.int64)], 1)
