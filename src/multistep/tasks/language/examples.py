"""Labelled texts as a phase has them: the splits, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from multistep.tasks.labelled.labels import Array, Labels


@dataclass(frozen=True)
class Examples:
    """Texts of one split, their pairs if they have such, and their labels as `encode` gives them."""

    texts: tuple[str, ...]
    seconds: tuple[str, ...] | None
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


def texts_of(examples: Examples) -> Sequence[str]:
    """All texts, a pair's one after the other's."""
    return (*examples.texts, *(examples.seconds or ()))
