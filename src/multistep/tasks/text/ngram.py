"""The baseline of running text: characters predicted by counting, in about a tenth of a second per million.

Interpolated modified Kneser-Ney. Measured beside it (nats per character, order 6):
tiny Shakespeare 1.523 against 1.558 with one discount and 1.698 for Witten-Bell (1.669 at its best order);
songci, order 4: 4.388 against 4.406 and 4.711.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multistep.errors import DataError
from multistep.tasks.sampling import MOST_BYTES, characters_counted

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]

A_SECOND, BYTES_A_CHARACTER = 1e7, 100.0  # characters that are counted, and the memory that one takes
COUNTED = round(MOST_BYTES / BYTES_A_CHARACTER)  # characters, at most
LEAST = 2_000_000  # characters of long texts, however short the time
CODE_POINTS = 0x110000
SCALAR_VALUES = CODE_POINTS - 2048  # surrogates are no characters
_START = 0  # symbol before the first character; real symbols count from 1


def counted_of_long(seconds: float | None) -> int:
    """The characters that are counted of long texts, within 2% of a plan's time (None: not told) and a gigabyte."""
    return characters_counted(seconds, A_SECOND, BYTES_A_CHARACTER, LEAST)


@dataclass(frozen=True)
class _Level:
    """All n-grams of one order, packed in sorted 64-bit keys, the latest character in the lowest bits."""

    grams: _Ints
    share: _Floats  # (count - discount) / count of the context, one a gram
    contexts: _Ints
    rest: _Floats  # what the discounts leave to the next lower order, one a context


@dataclass(frozen=True)
class NGram:
    """An interpolated n-gram model on characters, made by `NGram.fit`.

    Chen and Goodman (1998), An Empirical Study of Smoothing Techniques for Language Modeling, section 3:
    modified Kneser-Ney, its three discounts an order from the counts of counts of the training texts alone.
    Below order one stands a uniform distribution over the characters seen, and for those never seen one over
    the rest of Unicode, weighted by the Good-Turing estimate of meeting one. Probabilities sum to one.
    """

    order: int
    alphabet: _Ints  # code points seen in training, ascending
    ends: bool  # whether documents close with an end-of-text symbol
    bits: int  # a symbol
    novel: float  # share of the lowest distribution that belongs to characters never seen
    levels: tuple[_Level, ...]  # order 1 first
    counted: int | None = None  # characters, where the texts have more

    @property
    def name(self) -> str:
        some = f" of the first {self.counted:,} characters" if self.counted else ""
        return f"{self.order}-gram{some}"

    @classmethod
    def fit(cls, texts: Sequence[str], order: int = 6, *, most_characters: int = COUNTED) -> NGram:
        """Count `texts`, each a document; about 0.1 s per million characters on one core.

        With more than one document every document ends with an end-of-text symbol, which is predicted too
        (`score(..., end=True)`); a single running text has no end. `order` is lowered where that many symbols
        do not fit into 63 bits (Chinese: 4). Only the first `most_characters` are counted, since a baseline
        need not fill the memory (about 100 bytes a character); `name` says so. Raises DataError if there is
        nothing to count.
        """
        if order < 1:
            raise ValueError(f"order is {order}; allowed: 1 and more")
        counted = most_characters if sum(map(len, texts)) > most_characters else None
        texts = _first(texts, most_characters)
        points = [_code_points(text) for text in texts if text]
        if not points:
            raise DataError("the n-gram baseline has no characters to count; give it a training text")
        counts = np.bincount(np.concatenate(points), minlength=CODE_POINTS)
        alphabet = np.flatnonzero(counts)
        ends = len(points) > 1
        bits = (len(alphabet) + 2).bit_length()
        order = min(order, 63 // bits)
        symbol_of = _symbols(alphabet)
        closing = [len(alphabet) + 1] if ends else []
        parts = [part for p in points for part in ([_START], symbol_of[p], closing)]
        stream = np.concatenate(parts).astype(np.int64, copy=False)
        del parts, points
        levels = _count(stream, order, bits)
        once, total = int((counts == 1).sum()), int(counts.sum())
        # Good-Turing at order one; divided, as only `rest` of its mass reaches the lowest distribution.
        novel = min(0.5, (once + 1) / (total + 2) / float(levels[0].rest[0]))
        return cls(order, alphabet, ends, bits, novel, levels, counted)

    def score(self, text: str, *, end: bool = False) -> _Floats:
        """Nats per character, shape (len(text),): each predicted from those before it in the same document.

        With `end`, one value more for the end-of-text symbol; ValueError if the model has none.
        """
        return self.score_documents([text], end=end)[0]

    def score_documents(self, texts: Sequence[str], *, end: bool = False) -> list[_Floats]:
        """`score` of each text, much faster than one by one where there are many short ones."""
        if end and not self.ends:
            raise ValueError("this model was fitted on a single running text and knows no end of text")
        if not texts:
            return []
        seen = len(self.alphabet)
        symbol_of = _symbols(self.alphabet)
        gap = np.full(self.order, _START)  # wide enough that no n-gram sees the document before
        closing = [seen + 1] if end else []
        parts = [part for text in texts for part in (gap, symbol_of[_code_points(text)], closing)]
        stream = np.concatenate(parts).astype(np.int64)
        places = np.flatnonzero(stream != _START)
        p = np.full(len(places), (1.0 - self.novel) / (seen + int(self.ends)))
        p[stream[places] == seen + 2] = self.novel / (SCALAR_VALUES - seen)
        for k, level in enumerate(self.levels, start=1):
            keys = _pack(stream, places, k, self.bits)
            by_key = np.argsort(keys)  # sorted queries keep the binary search in the cache
            keys = keys[by_key]
            at, found = _find(level.contexts, keys >> self.bits)
            lower = np.where(found, level.rest[at], 1.0)
            at, found = _find(level.grams, keys)
            p[by_key] = lower * p[by_key] + np.where(found, level.share[at], 0.0)
        return np.split(-np.log(p), np.cumsum([len(text) + len(closing) for text in texts[:-1]]))


def _count(stream: _Ints, order: int, bits: int) -> tuple[_Level, ...]:
    """Levels 1 to `order` from documents laid end to end, each behind a _START."""
    starts = np.flatnonzero(stream == _START)
    lengths = np.diff(np.append(starts, len(stream)))
    since_start = np.arange(len(stream), dtype=np.int32)
    since_start -= np.repeat(starts.astype(np.int32), lengths)
    # A gram may begin with _START but not reach across it: that would join two documents.
    inside = np.flatnonzero(since_start >= max(order - 1, 1))
    keys = _pack(stream, inside, order, bits)
    del inside  # arrays of millions: each is let go as soon as it can be
    keys.sort()
    grams, counts = _groups(keys)
    del keys
    levels = [_level(grams, counts, bits)] if len(grams) else []
    for k in range(order - 1, 0, -1):
        # Kneser-Ney: below the highest order an n-gram counts once for each different symbol before it.
        grams, counts = _groups(np.sort(grams & ((1 << bits * k) - 1)))
        if k > 1:
            # Nothing can stand before a _START, so these are counted as they occur. Their keys come first.
            openings = np.flatnonzero(since_start == k - 1)
            opening, how_often = _groups(np.sort(_pack(stream, openings, k, bits)))
            grams, counts = np.concatenate([opening, grams]), np.concatenate([how_often, counts])
        if len(grams):  # texts shorter than the order have no grams that long
            levels.append(_level(grams, counts, bits))
    return tuple(reversed(levels))


def _level(grams: _Ints, counts: _Ints, bits: int) -> _Level:
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    contexts, sizes = _groups(grams >> bits)
    first = np.cumsum(sizes) - sizes
    total = np.add.reduceat(counts, first).astype(np.float64)
    share = (counts - discounts) / np.repeat(total, sizes)
    return _Level(grams, share, contexts, np.add.reduceat(discounts, first) / total)


def _discounts(counts: _Ints) -> _Floats:
    """What is taken off counts of 0, 1, 2, and 3 and more; Chen and Goodman (1998), equation 17."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5
    estimates = [c - (c + 1) * y * n[c + 1] / n[c] if n[c] else y for c in (1, 2, 3)]
    # Small samples can ask for a negative discount, or for more than there is; both sides must get some.
    return np.array([0.0, *(min(max(d, 0.05), c - 0.05) for c, d in enumerate(estimates, start=1))])


def _pack(stream: _Ints, places: _Ints, k: int, bits: int) -> _Ints:
    """The `k` symbols that end at each place, in one key."""
    keys = stream[places - (k - 1)]
    for back in range(k - 2, -1, -1):
        keys <<= bits
        keys |= stream[places - back]
    return keys


def _groups(ordered: _Ints) -> tuple[_Ints, _Ints]:
    """Distinct values of a sorted array, and how often each occurs; np.unique would sort again."""
    if not len(ordered):
        return ordered, ordered
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[first], np.diff(np.append(first, len(ordered)))


def _find(table: _Ints, keys: _Ints) -> tuple[_Ints, NDArray[np.bool_]]:
    at = np.searchsorted(table, keys)
    at[at == len(table)] = 0
    return at, table[at] == keys


def _symbols(alphabet: _Ints) -> _Ints:
    """Code point -> symbol: 1 up for the alphabet, then the end of text, then anything never seen."""
    table = np.full(CODE_POINTS, len(alphabet) + 2, np.int64)
    table[alphabet] = np.arange(1, len(alphabet) + 1)
    return table


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _first(texts: Sequence[str], most_characters: int) -> list[str]:
    kept, left = [], most_characters
    for text in texts:
        if left <= 0:
            break
        kept.append(text[:left])
        left -= len(text)
    return kept
