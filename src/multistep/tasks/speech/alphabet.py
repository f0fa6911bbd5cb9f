"""Transcripts as labels and back: how they are written, and which characters there are."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Case = Literal["lower", "upper", "kept"]
BLANK = 0  # of alphabets of our own
# Nobody says these. Inside a word or a number (don't, 3.5, well-known) they stay.
_MARKS = ',.?!;:"…–—()[]{}«»“”„‘‹›¿¡、。，！？；：「」『』（）《》〈〉【】・।॥؟،؛۔՝՞՜։።፣፤၊။'
_MARK = re.compile(rf"(?<!\w)[{re.escape(_MARKS)}]+|[{re.escape(_MARKS)}]+(?!\w)")
_FULL_WIDTH = re.compile("[、。，！？；：「」『』（）《》〈〉【】|]")  # and the bar, which tokenizers write for a space
# Scripts that put no spaces between words: Han, kana, Thai, Lao, Khmer, Burmese, Tibetan.
_SPACELESS = re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def spoken(text: str, case: Case = "lower") -> str:
    """A transcript as it is learnt and scored: composed (NFC), one space between words, in one case, without marks."""
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    text = _MARK.sub(" ", _FULL_WIDTH.sub(" ", text))
    text = {"lower": text.lower, "upper": text.upper, "kept": text.__str__}[case]()
    return " ".join(unicodedata.normalize("NFC", text).split())


def has_spaces(texts: Iterable[str]) -> bool:
    """Whether the language puts spaces between words, so that there are words to count."""
    letters = "".join(texts).replace(" ", "")
    return 2 * len(_SPACELESS.findall(letters)) <= len(letters)


@dataclass(frozen=True)
class Alphabet:
    """The characters that a model's outputs stand for, one each; "" for the blank and for whatever writes nothing.

    `case` says how transcripts must be written to be spelt with it.
    """

    symbols: tuple[str, ...]
    blank: int = BLANK
    case: Case = "lower"

    @classmethod
    def of(cls, texts: Iterable[str]) -> Alphabet:
        """All characters of the training transcripts, in the order of their code points, after the blank."""
        return cls(("", *sorted(set().union(*texts))))

    @classmethod
    def of_vocabulary(
        cls, vocabulary: Mapping[str, int], blank: int, delimiter: str, special: Iterable[str]
    ) -> Alphabet:
        """That of a tokenizer, whose word delimiter stands for a space."""
        silent = set(special) - {delimiter}
        symbols = [""] * (max(vocabulary.values()) + 1)
        for token, i in vocabulary.items():
            if i != blank and token not in silent:
                symbols[i] = " " if token == delimiter else token
        letters = "".join(symbols)
        lower, upper = letters.lower() == letters, letters.upper() == letters
        return cls(tuple(symbols), blank, "lower" if lower else "upper" if upper else "kept")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: i for i, symbol in reversed(list(enumerate(self.symbols))) if symbol}

    @cached_property
    def _longest(self) -> int:
        return max((len(symbol) for symbol in self.symbols), default=1)

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> tuple[list[int], int]:
        """The labels of a transcript that `spoken` wrote, and how many of its characters there are none for."""
        labels: list[int] = []
        unknown = at = 0
        while at < len(text):
            # Symbols of several characters exist in other people's tokenizers: the longest that fits is meant.
            for length in range(min(self._longest, len(text) - at), 0, -1):
                if (number := self._numbers.get(text[at : at + length])) is not None:
                    labels.append(number)
                    at += length
                    break
            else:
                unknown += 1
                at += 1
        return labels, unknown

    def decode(self, labels: Iterable[int]) -> str:
        """The text of labels that are not blank nor repeated any more."""
        return " ".join("".join(self.symbols[label] for label in labels).split())

    def collapse(self, path: Sequence[int]) -> list[int]:
        """The labels of a path over frames: repetitions once, blanks not at all."""
        return [a for i, a in enumerate(path) if a != self.blank and (i == 0 or a != path[i - 1])]

    def with_characters_of(self, texts: Iterable[str]) -> Alphabet:
        """The same with further symbols at the end for characters that it lacks."""
        new = sorted(set().union(*texts) - set(self.symbols))
        return Alphabet((*self.symbols, *new), self.blank, self.case)

    def as_json(self) -> dict[str, Any]:
        return {"symbols": list(self.symbols), "blank": self.blank, "case": self.case}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Alphabet:
        return cls(tuple(content["symbols"]), int(content["blank"]), content["case"])


def frames_needed(labels: Sequence[int]) -> int:
    """The fewest frames that CTC can spell these labels in: a blank stands between two equal ones."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


@dataclass
class Spelling:
    """What `spoken` changed in transcripts, to be said aloud."""

    lowered: int = 0
    marks: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, written: str) -> None:
        self.lowered += text.lower() != text
        self.marks.update(mark for mark in set(text) - set(written) if mark in _MARKS)

    def notes(self, case: Case, origin: str) -> list[str]:
        said = []
        if self.lowered and case == "lower":
            said.append(f"{origin}: transcripts are learnt and scored in lower case")
        if self.marks:
            marks = " ".join(mark for mark, _ in self.marks.most_common(8))
            said.append(f"{origin}: marks that nobody says are left out of transcripts: {marks}")
        return said
