"""Byte-level BPE by a table of words: each is encoded once, however often it stands in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE_CHARACTERS = 1000
BLOCK_CHARACTERS = 1_000_000  # whose words are in memory at once
MOST_WORDS = 300_000  # that are remembered: some 50 MB
LONGEST_WORD = 64  # characters
MOST_NEW = 0.3  # of the words: Chinese has clauses for words, which hardly recur, so that a table is of no use
_CUT = re.compile(r"(?<=\S)\n(?=\S)")


class WordEncoder:
    """The tokens that `tokenizers` gives a text, several times as fast: merges never reach across its words.

    For a BPE behind the pre-tokenizer ByteLevel of `tokenizers`, which is GPT-2's, without a prefix space. `tokens`
    gives the token ids of many texts by the library.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: Callable[[Sequence[str]], list[NDArray[np.int32]]]) -> None:
        self._tokenizer, self._encoded = tokenizer, tokens
        self._kinds: dict[str, str] = {}  # of characters, by the pre-tokenizer: a letter, a number, a space or another
        self._words = re.compile("")
        self._table: dict[str, bytes] = {}

    def __call__(self, text: str) -> NDArray[np.int32]:
        """Token ids, shape (tokens,)."""
        found = [np.frombuffer(self._block(block), np.int32) for block in blocks_of(text)]
        return np.concatenate(found) if found else np.zeros(0, np.int32)

    def _block(self, text: str) -> bytes:
        self._learn_characters(text)
        words = self._words.findall(text)
        table = self._table
        new = [word for word in set(words) if word not in table]
        if len(new) > MOST_NEW * len(words):
            return b"".join(tokens.tobytes() for tokens in self._encoded(pieces_of(text)))
        if len(table) + len(new) > MOST_WORDS:
            table = {word: table[word] for word in set(words) if word in table}
            self._table = table
        long = [word for word in new if len(word) > LONGEST_WORD]
        table.update(zip(new, (tokens.tobytes() for tokens in self._encoded(new)), strict=True))
        found = b"".join(map(table.__getitem__, words))
        for word in long:
            del table[word]
        return found

    def _learn_characters(self, text: str) -> None:
        """Ask of each new character how it is told apart; Python's own classes are of another edition of Unicode."""
        if not (new := set(text).difference(self._kinds)):
            return
        cut = self._tokenizer.pre_tokenizer.pre_tokenize_str
        for character in new:
            behind = {"L": "a", "N": "1", "P": "."}
            alone = (kind for kind, before in behind.items() if len(cut(before + character)) == 1)
            self._kinds[character] = next(alone, "S")
        sets = {kind: "".join(re.escape(c) for c, k in self._kinds.items() if k == kind) for kind in "LNS"}
        letters, numbers, spaces = sets["L"] + "a", sets["N"] + "1", sets["S"] + " "
        self._words = re.compile(
            rf"'(?:[sdmt]|ll|ve|re)| ?[{letters}]+| ?[{numbers}]+| ?[^{spaces}{letters}{numbers}]+"
            rf"|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
        )


def cuts_of(text: str) -> Iterator[int]:
    """Where a text can be cut without changing a token, about a thousand characters apart: behind a newline between
    two characters that are not white space, where pre-tokenizers split anyway."""
    at = 0
    while found := _CUT.search(text, at + PIECE_CHARACTERS - 1):
        at = found.end()
        yield at


def pieces_of(text: str) -> list[str]:
    """A text in pieces of about a thousand characters where it can be cut without changing a token."""
    return [text[a:b] for a, b in pairwise([0, *cuts_of(text), len(text)])]


def blocks_of(text: str) -> Iterator[str]:
    """A text in blocks of about a million characters, of whole pieces."""
    before = 0
    for cut in cuts_of(text):
        if cut - before >= BLOCK_CHARACTERS:
            yield text[before:cut]
            before = cut
    if before < len(text):
        yield text[before:]
