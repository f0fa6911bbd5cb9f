"""Batches whose parts have not one row an example: tokens of several texts in a row with offsets, time before batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor

Join = Callable[[list[Any]], tuple[Tensor, ...]]


class Ragged:
    """Items with how they are joined. To the learner it is a tensor of one row an item: it has a shape, and slices."""

    def __init__(self, items: list[Any], join: Join) -> None:
        self._items, self._join = items, join
        self._joined: tuple[Tensor, ...] | None = None

    @property
    def shape(self) -> tuple[int]:
        return (len(self._items),)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, rows: slice) -> Ragged:
        return Ragged(self._items[rows], self._join)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        if self._joined is None:
            self._joined = self._join(self._items)
        return self._joined


def as_batch(ragged: Ragged) -> tuple[Tensor, ...]:
    """A batch as the learner takes it: it looks at shapes, and slices, and no more."""
    return cast(tuple[Tensor, ...], (ragged,))


def opened(batch: Sequence[Any]) -> tuple[tuple[Tensor, ...], int]:
    """A batch's tensors, and how many examples it has."""
    if isinstance(batch[0], Ragged):
        return batch[0].tensors, len(batch[0])
    return tuple(batch), len(batch[0])
