"""Labelled texts as a phase has them: the splits, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from multistep.tasks.labelled.labels import Array, Labels
from multistep.tasks.order import sample_of
from multistep.tasks.text.corpus import LongTexts, characters_of


@dataclass(frozen=True)
class Examples:
    """Texts of one split, their pairs if they have such, and their labels as `encode` gives them."""

    texts: Sequence[str]  # LongTexts, where memory should not hold them
    seconds: Sequence[str] | None
    labels: Array

    def __len__(self) -> int:
        return len(self.texts)


NOTHING = Examples((), None, np.zeros(0, np.int64))


@dataclass(frozen=True)
class LabelledSplits:
    """`test` may be empty. `notes`: guesses, cuts and duplicates, to be said aloud; `fingerprint` of all of it."""

    train: Examples
    validation: Examples
    test: Examples
    labels: Labels
    notes: tuple[str, ...] = ()
    fingerprint: str = field(default="", repr=False)
    weights: tuple[float, ...] | None = None  # of each class in the loss
    columns: Mapping[str, str] = field(default_factory=dict)  # of train, by the keys of a plan's data


def characters_in(examples: Examples) -> int:
    """How many characters the texts have together, those of pairs both."""
    return characters_of(examples.texts) + characters_of(examples.seconds or ())


def some_of(examples: Examples, most_characters: int) -> Examples:
    """Examples drawn by lot, always the same, of so many characters; of those that are in memory all."""
    if not isinstance(examples.texts, LongTexts) or characters_in(examples) <= most_characters:
        return examples
    share = most_characters / characters_in(examples)
    return taken(examples, sample_of(len(examples), max(1, round(share * len(examples)))))


def taken(examples: Examples, rows: NDArray[np.int64]) -> Examples:
    """Some of the examples, in memory."""
    texts, seconds = examples.texts, examples.seconds
    return Examples(
        tuple(texts[i] for i in rows.tolist()),
        None if seconds is None else tuple(seconds[i] for i in rows.tolist()),
        examples.labels[rows],
    )


def texts_of(examples: Examples) -> tuple[str, ...]:
    """All texts, a pair's one after the other's."""
    return (*examples.texts, *(examples.seconds or ()))
