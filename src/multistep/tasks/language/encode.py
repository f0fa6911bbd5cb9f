"""Texts as the tokens that an encoder reads: encoded once, kept side by side, padded batch by batch."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = NDArray[np.int64]
ENCODED_AT_ONCE = 4096  # texts
SPECIAL_WORD = -1


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts, one text's behind the other's; text i has those from `starts[i]` to `starts[i + 1]`.

    `words` numbers the words of each text, so that the pieces of one word can be told; -1 for special tokens. `types`
    is 1 in the second text of a pair. `cut` counts the texts that were longer than could be read.
    """

    tokens: NDArray[np.int32]
    words: NDArray[np.int32]
    types: NDArray[np.int8]
    starts: Ints
    cut: int = 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    @functools.cached_property
    def lengths(self) -> Ints:
        return np.diff(self.starts)

    def padded(self, rows: Ints, pad: int) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """Tokens, words and types of some texts (shape: rows, longest), and where there are any."""
        lengths = self.lengths[rows]
        columns = np.arange(int(lengths.max()))
        inside = columns < lengths[:, None]
        place = np.where(inside, self.starts[rows][:, None] + columns, 0)
        tokens = np.where(inside, self.tokens[place], pad).astype(np.int64)
        words = np.where(inside, self.words[place], SPECIAL_WORD).astype(np.int64)
        return tokens, words, np.where(inside, self.types[place], 0).astype(np.int64), inside


class TextEncoder:
    """Texts -> tokens with the special ones; what is longer than `longest` tokens loses its end, of a pair the longer
    text first.
    """

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        from tokenizers import Tokenizer

        self._longest = longest
        self._whole, self._shortened = (Tokenizer.from_str(tokenizer.to_str()) for _ in range(2))
        self._whole.no_truncation()
        self._whole.no_padding()
        self._shortened.no_padding()
        self._shortened.enable_truncation(longest)

    def __call__(self, texts: Sequence[str], seconds: Sequence[str] | None) -> tuple[Encoded, NDArray[np.bool_]]:
        """The texts, or pairs of them, and which of them were read to their ends (shape: texts)."""
        tokens, words, types = array("i"), array("i"), array("b")  # a list has an object for each
        lengths: list[int] = []
        whole: list[bool] = []
        for first in range(0, len(texts), ENCODED_AT_ONCE):
            some = texts[first : first + ENCODED_AT_ONCE]
            pairs = None if seconds is None else list(zip(some, seconds[first : first + ENCODED_AT_ONCE], strict=True))
            for i, encoding in enumerate(self._whole.encode_batch(pairs or list(some))):
                whole.append(len(encoding.ids) <= self._longest)
                if not whole[-1]:
                    encoding = self._shortened.encode(*pairs[i]) if pairs else self._shortened.encode(some[i])
                tokens.extend(encoding.ids)
                types.extend(encoding.type_ids)
                words.extend(_words(encoding.word_ids, encoding.sequence_ids))
                lengths.append(len(encoding.ids))
        encoded = Encoded(
            np.frombuffer(tokens, np.int32) if tokens else np.zeros(0, np.int32),
            np.frombuffer(words, np.int32) if words else np.zeros(0, np.int32),
            np.frombuffer(types, np.int8) if types else np.zeros(0, np.int8),
            np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
            len(whole) - sum(whole),
        )
        return encoded, np.array(whole, bool)


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], seconds: Sequence[str] | None = None, *, longest: int
) -> Encoded:
    """Encode texts, or pairs of them, as `TextEncoder` does."""
    return TextEncoder(tokenizer, longest)(texts, seconds)[0]


def _words(word_ids: Sequence[int | None], sequence_ids: Sequence[int | None]) -> list[int]:
    """Word numbers that go on from the first text of a pair into the second."""
    of_first = 1 + max((w for w, s in zip(word_ids, sequence_ids, strict=True) if w is not None and s == 0), default=-1)
    return [
        SPECIAL_WORD if word is None else word + (of_first if sequence else 0)
        for word, sequence in zip(word_ids, sequence_ids, strict=True)
    ]


def usual_length(lengths: Ints, share: float = 0.98) -> int:
    """The length in tokens that this share of the texts does not exceed, rounded up to a multiple of 16."""
    return int(-(-np.quantile(lengths, share) // 16) * 16)


# Chance, as a function of what it is for ------------------------------------------------------------


def lots(seed: int, epochs: Ints, rows: Ints, places: Ints, purpose: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), each a function of (seed, epoch, row, place, purpose) alone (shape: that of places).

    `epochs` and `rows` have one number for each row of `places`. The mixing function is SplitMix64's (Steele, Lea and
    Flood, Fast splittable pseudorandom number generators, 2014).
    """
    start = np.uint64((seed + 0x632BE59BD9B4E019 * (purpose + 1)) % 2**64)
    key = _mix(_mix(start) + epochs.astype(np.uint64))
    mixed = _mix(_mix(key + rows.astype(np.uint64))[:, None] + places.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):  # it is meant to
        z = np.atleast_1d(np.asarray(state, np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
