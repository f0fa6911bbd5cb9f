"""Whole conversations packed into rows of the context's length, in an order that follows from (seed, position)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multistep.tasks.chat.encode import Encoded
from multistep.tasks.order import ShuffledOrder
from multistep.tasks.text.nats import IGNORED

Rows = list[list[int]]


def best_fit(lengths: NDArray[np.int64], room: int, order: NDArray[np.int64]) -> Rows:
    """Rows that hold every item whole: each into the fullest row that it still fits into, the longest first.

    Best-fit decreasing: at most 11/9 of the fewest rows there could be, and one (Johnson, 1973). Among equal lengths
    `order` decides, which changes the rows and never their number. Raises ValueError for an item longer than `room`.
    """
    if len(lengths) and int(lengths.max()) > room:
        raise ValueError(f"an item of {int(lengths.max())} does not fit into rows of {room}")
    rows: Rows = []
    by_room: list[list[int]] = [[] for _ in range(room + 1)]
    there = 0  # bit r: a row with exactly r places left
    for item in order[np.argsort(-lengths[order], kind="stable")].tolist():
        length = int(lengths[item])
        fitting = there >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            row = by_room[left].pop()
            if not by_room[left]:
                there &= ~(1 << left)
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(item)
        by_room[left - length].append(row)
        there |= 1 << (left - length)
    return rows


class PackingOrder:
    """The endless order of rows: each epoch packs all conversations anew and shuffles the rows, by (seed, epoch).

    Equal lengths change places from epoch to epoch. Without `packed` a row holds one conversation.
    """

    def __init__(self, lengths: Sequence[int], context: int, *, packed: bool = True) -> None:
        self.context = context
        self._lengths = np.array(lengths, np.int64)
        self._packed = packed
        self._rows: dict[tuple[int, int], Rows] = {}
        self.per_epoch = len(self._pack(np.arange(len(self._lengths))))
        self._order = ShuffledOrder(self.per_epoch)

    def rows(self, position: int, size: int, seed: int) -> Rows:
        """The conversations in rows `position` to `position + size`, by their numbers."""
        places, epochs = self._order.indices(position, size, seed)
        return [self._epoch(seed, int(epoch))[int(place)] for place, epoch in zip(places, epochs, strict=True)]

    def _epoch(self, seed: int, epoch: int) -> Rows:
        if (seed, epoch) not in self._rows:
            # A third number, or the draw would be that of the rows' own order.
            generator = np.random.default_rng(np.random.SeedSequence([seed, epoch, 1]))
            self._rows = {key: value for key, value in self._rows.items() if key[1] >= epoch - 1}
            self._rows[seed, epoch] = self._pack(generator.permutation(len(self._lengths)))
        return self._rows[seed, epoch]

    def _pack(self, order: NDArray[np.int64]) -> Rows:
        if not self._packed:
            return [[item] for item in order.tolist()]
        return best_fit(self._lengths, self.context, order)


def padded_rows(
    examples: Sequence[Encoded], rows: Sequence[Sequence[int]], pad: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Tokens, labels and positions of rows of conversations (shape of each: rows, longest row).

    Positions begin anew at 0 with each conversation, and with the padding behind them, so that what goes by positions
    looks across none.
    """
    longest = max(sum(examples[i].length for i in row) for row in rows)
    tokens = np.full((len(rows), longest), pad, np.int64)
    labels = np.full((len(rows), longest), IGNORED, np.int64)
    positions = np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        at = 0
        for i in row:
            example = examples[i]
            end = at + example.length
            tokens[number, at:end] = example.tokens[:-1]
            labels[number, at:end] = np.where(example.trained[1:], example.tokens[1:], IGNORED)
            positions[number, at:end] = np.arange(example.length)
            at = end
        positions[number, at:] = np.arange(longest - at)
    return tokens, labels, positions
