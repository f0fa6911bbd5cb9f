"""The endless order of utterances: batches of about one length, a function of (seed, position) alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POOL = 16  # batches among which lengths are sorted: more waste less on padding and mix less


class LengthOrder:
    """Each epoch is a permutation of all examples, in which neighbours are of about one length.

    The permutation is cut into pools of some batches, each pool sorted by length and cut into batches, and the
    batches are shuffled. Batches of `chunk` begin at multiples of `chunk`, in each epoch; others have more padding.
    """

    def __init__(self, lengths: NDArray[np.int64], chunk: int) -> None:
        self.lengths, self.chunk, self.examples = lengths, max(1, min(chunk, len(lengths))), len(lengths)
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
            self._epochs = {key: value for key, value in self._epochs.items() if key[1] >= epoch - 1}
            self._epochs[seed, epoch] = self._draw(seed, epoch)
        return self._epochs[seed, epoch]

    def _draw(self, seed: int, epoch: int) -> NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        order = generator.permutation(self.examples)
        # An epoch does not begin at a multiple of the chunk: what its last batch lacks, the next one's first has.
        first = -epoch * self.examples % self.chunk
        whole = (self.examples - first) // self.chunk
        middle = order[first : first + whole * self.chunk]
        size = POOL * self.chunk
        pools = [middle[at : at + size] for at in range(0, len(middle), size)]
        middle = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools] or [middle])
        batches = middle.reshape(whole, self.chunk)[generator.permutation(whole)]
        return np.concatenate((order[:first], batches.ravel(), order[first + whole * self.chunk :])).astype(np.int64)
