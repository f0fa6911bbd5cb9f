"""What the training transcripts say of the next character, for the beam search to lean on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

START, END = "\x02", "\x03"  # control characters, which `spoken` transcripts do not have
ORDER = 6
MOST_CHARACTERS = 2_000_000  # that are counted; a search needs no more, and a model folder should stay small


class CharacterModel:
    """Character n-grams with Witten-Bell smoothing (IEEE Trans. Inf. Theory 37, 1991), ends of transcripts included.

    Below the single characters stands a uniform distribution over all that were seen, the end and one more, so that
    nothing is impossible. `grams` are counts of the longest n-grams alone; the shorter follow from them.
    """

    def __init__(self, grams: Mapping[str, int], order: int = ORDER) -> None:
        self.order, self.grams = order, dict(grams)
        self._counts: dict[str, Counter[str]] = {}
        for gram, count in self.grams.items():
            for start in range(order):
                self._counts.setdefault(gram[start:-1], Counter())[gram[-1]] += count
        self._totals = {context: sum(counts.values()) for context, counts in self._counts.items()}
        self._uniform = 1.0 / (len(self._counts.get("", ())) + 1)
        self._known: dict[tuple[str, str], float] = {}
        seen = sum(count * self.log_probability(gram[:-1], gram[-1]) for gram, count in self.grams.items())
        self.mean = seen / max(1, sum(self.grams.values()))  # nats a character, of what it was made from

    @classmethod
    def of(cls, texts: Iterable[str], order: int = ORDER) -> CharacterModel:
        grams: Counter[str] = Counter()
        left = MOST_CHARACTERS
        for text in texts:
            padded = START * (order - 1) + text + END
            grams.update(padded[i : i + order] for i in range(len(text) + 1))
            left -= len(text) + 1
            if left <= 0:
                break
        return cls(grams, order)

    def context(self, text: str) -> str:
        """What of a text the next character depends on."""
        return (START * (self.order - 1) + text)[1 - self.order :] if self.order > 1 else ""

    def log_probability(self, context: str, character: str) -> float:
        """Nats, negative, of a character (or END) after a context from `context`."""
        key = (context, character)
        if key not in self._known:
            self._known[key] = math.log(self._probability(context, character))
        return self._known[key]

    def _probability(self, context: str, character: str) -> float:
        lower = self._probability(context[1:], character) if context else self._uniform
        counts = self._counts.get(context)
        if counts is None:
            return lower
        return (counts[character] + len(counts) * lower) / (self._totals[context] + len(counts))

    def as_json(self) -> dict[str, Any]:
        return {"order": self.order, "grams": self.grams}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CharacterModel:
        return cls(content["grams"], int(content["order"]))
