"""A split's batches as the learner wants them: flat tuples of tensors on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistep.errors import DataError
from multistep.tasks.own.data import Indices, Split
from multistep.tasks.own.finite import not_finite
from multistep.tasks.own.layout import Layout, Types
from multistep.tasks.own.ragged import Ragged, as_batch

RESIDENT_SHARE = 8  # a split lies on a GPU if it takes less than this part of its free memory
Check = Callable[[str, Any], None]


class Reader:
    """A split's batches. `ragged` tells that parts of a batch have not one row an example."""

    def __init__(
        self,
        split: Split,
        layout: Layout,
        device: torch.device,
        types: Types,
        check: Check,
        *,
        ragged: bool = False,
        finite: bool = True,
    ) -> None:
        """`check` raises for a wrong target; `finite` tells to raise for numbers that are none."""
        self.split, self._layout, self._types, self._check = split, layout, types, check
        self._ragged, self._finite = ragged, finite
        self._whole: tuple[Tensor, ...] | None = None
        if split.items is None:
            flat = self._flat(split.whole if split.indices is None else split.read(np.arange(len(split))))
            self._whole = tuple(part.to(device) for part in flat) if _fits(flat, device) else flat

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, places: Indices, device: torch.device) -> tuple[Tensor, ...]:
        """The examples at these places, on the device. Raises DataError."""
        if self._whole is not None:
            taken = torch.from_numpy(places).to(self._whole[0].device)
            return tuple(part[taken].to(device) for part in self._whole)
        items = self.split.take(places)
        if not self._ragged:
            return self._on(device, self._flat(self.split.join(items, places), places))
        ragged = Ragged(items, lambda part: self._on(device, self._flat(self.split.join(part))))
        assert ragged.tensors, "joined here, where random numbers follow from the place"
        return as_batch(ragged)

    def _on(self, device: torch.device, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if device.type == "cuda":
            pinned = (part if part.is_cuda else part.pin_memory() for part in tensors)
            return tuple(part.to(device, non_blocking=True) for part in pinned)
        return tuple(part.to(device) for part in tensors)

    def _flat(self, batch: Any, places: Indices | None = None) -> tuple[Tensor, ...]:
        tensors = self._layout.tidy(batch, self.split.name, self._types)
        if not self._ragged:
            self._layout.require_rows(tensors, self.split.name)
        if self._finite and self.split.items is not None and (found := not_finite(tensors, self._layout.inputs)):
            places = None if self._ragged else places
            raise DataError(found.told(self.split, places))
        self._check(self.split.name, self._layout.target(tensors))
        return tensors


def _fits(tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Whether a split may lie on the device beside model and activations."""
    if device.type != "cuda":
        return True
    return sum(t.numel() * t.element_size() for t in tensors) < torch.cuda.mem_get_info(device)[0] / RESIDENT_SHARE
