"""The endless order in which examples are trained on: a function of (seed, position), so that nothing is saved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class ShuffledOrder:
    """Each epoch is a permutation of all examples, which follows from (seed, epoch)."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self._epochs: dict[tuple[int, int], NDArray[np.int64]] = {}

    def indices(self, position: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The examples at `position` to `position + size`, and the epoch of each (shape: size, both)."""
        epochs, places = np.divmod(np.arange(position, position + size), self.examples)
        if epochs[0] == epochs[-1]:
            return self._epoch(seed, int(epochs[0]))[places], epochs
        found = [self._epoch(seed, int(e))[p] for e, p in zip(epochs, places, strict=True)]
        return np.array(found, np.int64), epochs

    def _epoch(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if (seed, epoch) not in self._epochs:
            generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
            self._epochs = {key: value for key, value in self._epochs.items() if key[1] >= epoch - 1}
            self._epochs[seed, epoch] = generator.permutation(self.examples)
        return self._epochs[seed, epoch]


def sample_of(examples: int, most: int) -> NDArray[np.int64]:
    """The fixed part of a split that is looked at after each window: drawn by lot once, the same in every run."""
    if examples <= most:
        return np.arange(examples)
    return np.sort(np.random.default_rng(0).choice(examples, most, replace=False))
