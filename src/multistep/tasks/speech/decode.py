"""From probabilities over frames to a transcript: the best path, or a search over prefixes with a character model.

Why not a package: docs/appendix/decisions.md, 2026-11-24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.language import END, CharacterModel

BEAM = 16
LEAST = 1e-3  # of a label in a frame, below which the search does not follow it
WEIGHT = 0.5  # of the character model
LogProbabilities = NDArray[np.float32]


def best_path(log_probs_TV: LogProbabilities, alphabet: Alphabet) -> list[int]:
    """The labels of the likeliest path, frame by frame: quick, for looks."""
    return alphabet.collapse(log_probs_TV.argmax(-1).tolist())


@dataclass(frozen=True)
class Decoder:
    """Prefix beam search: arXiv 1408.2873.

    Prefixes are ranked by the probability of all their paths, times the character model's to the power of `weight`.
    What it says of a prefix is told relative to its mean over the training transcripts, or it would favour short ones.
    """

    alphabet: Alphabet
    language: CharacterModel | None = None
    beam: int = BEAM
    weight: float = WEIGHT
    least: float = LEAST

    def __call__(self, log_probs_TV: LogProbabilities) -> list[int]:
        """The labels of the best transcript."""
        return self.search(log_probs_TV)[0][0]

    def search(self, log_probs_TV: LogProbabilities) -> list[tuple[list[int], float]]:
        """The transcripts in the beam, as labels with their rank in nats, best first."""
        tree = _Tree(self.alphabet, self.language, self.weight)
        blank = self.alphabet.blank
        probabilities = np.exp(log_probs_TV.astype(np.float64))
        scale = 0.0
        # Of each prefix, by its node: the probability of its paths that end in a blank, and of those that do not.
        active: dict[int, tuple[float, float]] = {0: (1.0, 0.0)}
        for row in probabilities:
            followed = [int(c) for c in np.flatnonzero(row >= self.least) if c != blank]
            frame = row.tolist()
            found: dict[int, list[float]] = {}
            for node, (ends_blank, ends_label) in active.items():
                total, last = ends_blank + ends_label, tree.label[node]
                own = found.setdefault(node, [0.0, 0.0])
                own[0] += total * frame[blank]
                if last >= 0:
                    own[1] += ends_label * frame[last]
                for c in followed:
                    gain = (ends_blank if c == last else total) * frame[c]
                    if gain > 0.0:
                        found.setdefault(tree.child(node, c), [0.0, 0.0])[1] += gain
            ranked = sorted((-_log(b + n) - tree.bonus[node], node) for node, (b, n) in found.items())[: self.beam]
            # Only ratios matter; without this, a minute of frames underflows.
            most = max(sum(found[node]) for _, node in ranked)
            scale += math.log(most)
            active = {node: (found[node][0] / most, found[node][1] / most) for _, node in ranked}
        ends = [(_log(b + n) + scale + tree.bonus[node] + tree.end(node), node) for node, (b, n) in active.items()]
        return [(tree.labels(node), rank) for rank, node in sorted(ends, key=lambda pair: (-pair[0], pair[1]))]

    def as_json(self) -> dict[str, Any]:
        language = self.language.as_json() if self.language else None
        return {"beam": self.beam, "weight": self.weight, "least": self.least, "language": language}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], alphabet: Alphabet) -> Decoder:
        language = CharacterModel.from_json(content["language"]) if content.get("language") else None
        return cls(alphabet, language, int(content["beam"]), float(content["weight"]), float(content["least"]))


class _Tree:
    """The prefixes of a search, each a node with its last label and what the character model says of it."""

    def __init__(self, alphabet: Alphabet, language: CharacterModel | None, weight: float) -> None:
        self._symbols, self._language, self._weight = alphabet.symbols, language, weight
        self.label, self.bonus = [-1], [0.0]
        self._parent, self._children = [-1], [dict[int, int]()]
        self._contexts = [language.context("") if language else ""]

    def child(self, node: int, label: int) -> int:
        found = self._children[node].get(label)
        if found is not None:
            return found
        new = len(self.label)
        self._children[node][label] = new
        self._parent.append(node)
        self.label.append(label)
        self._children.append({})
        bonus, context = self.bonus[node], self._contexts[node]
        if self._language is not None:
            for character in self._symbols[label]:
                said = self._language.log_probability(context, character)
                bonus += self._weight * (said - self._language.mean)
                context = context[1:] + character
        self.bonus.append(bonus)
        self._contexts.append(context)
        return new

    def end(self, node: int) -> float:
        """What it adds that the transcript is over."""
        if self._language is None:
            return 0.0
        return self._weight * self._language.log_probability(self._contexts[node], END)

    def labels(self, node: int) -> list[int]:
        labels = []
        while node > 0:
            labels.append(self.label[node])
            node = self._parent[node]
        return labels[::-1]


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf
