"""The endless order in which examples are trained on: a function of (seed, position), so that nothing is saved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POOL = 16  # batches among which lengths are sorted: more waste less on padding and mix less


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
            self._epochs = {key: value for key, value in self._epochs.items() if key[1] >= epoch - 1}
            self._epochs[seed, epoch] = self._draw(np.random.Generator(np.random.Philox(key=[seed, epoch])), epoch)
        return self._epochs[seed, epoch]

    def _draw(self, generator: np.random.Generator, epoch: int) -> NDArray[np.int64]:
        return generator.permutation(self.examples)


class LengthOrder(ShuffledOrder):
    """Each epoch is a permutation of all examples, in which neighbours are of about one length.

    The permutation is cut into pools of some batches, each pool sorted by length and cut into batches, and the
    batches are shuffled. Batches of `chunk` begin at multiples of `chunk`, in each epoch; others have more padding.
    """

    def __init__(self, lengths: NDArray[np.int64], chunk: int) -> None:
        super().__init__(len(lengths))
        self._lengths, self._chunk = lengths, max(1, min(chunk, len(lengths)))

    def _draw(self, generator: np.random.Generator, epoch: int) -> NDArray[np.int64]:
        order, chunk = generator.permutation(self.examples), self._chunk
        # An epoch does not begin at a multiple of the chunk: what its last batch lacks, the next one's first has.
        first = -epoch * self.examples % chunk
        whole = (self.examples - first) // chunk
        middle = order[first : first + whole * chunk]
        size = POOL * chunk
        pools = [middle[at : at + size] for at in range(0, len(middle), size)]
        middle = np.concatenate([pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools] or [middle])
        batches = middle.reshape(whole, chunk)[generator.permutation(whole)]
        return np.concatenate((order[:first], batches.ravel(), order[first + whole * chunk :])).astype(np.int64)


class ChunkedOrder(ShuffledOrder):
    """Each epoch is a permutation of chunks of neighbouring examples, each shuffled within: for data read in chunks."""

    def __init__(self, examples: int, chunk: int) -> None:
        super().__init__(examples)
        self._chunk = max(1, chunk)

    def _draw(self, generator: np.random.Generator, epoch: int) -> NDArray[np.int64]:
        chunks = generator.permutation(-(-self.examples // self._chunk))
        parts = [
            generator.permutation(np.arange(c * self._chunk, min((c + 1) * self._chunk, self.examples))) for c in chunks
        ]
        return np.concatenate(parts).astype(np.int64)


def sample_of(examples: int, most: int) -> NDArray[np.int64]:
    """The fixed part of a split that is looked at after each window: drawn by lot once, the same in every run."""
    if examples <= most:
        return np.arange(examples)
    return np.sort(np.random.default_rng(0).choice(examples, most, replace=False))
