"""Scoring of many examples in batches that fit into memory, and with one transfer from the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.backends.torch.many.sharing import divided

Result = TypeVar("Result")
Numbers = NDArray[Any]  # of examples: whole numbers


def cut(numbers: Numbers, size: int) -> list[Numbers]:
    """The same numbers in batches of that size, the last one perhaps smaller."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def that_fit(batches: Iterable[Numbers], run: Callable[[Numbers], Result]) -> Iterator[tuple[Numbers, Result]]:
    """Each batch with what `run` makes of it, in order; where memory runs out, in halves from then on.

    Where several processes score together, each does its part of the batches. Raises torch.OutOfMemoryError where even
    one example is too many.
    """
    most: int | None = None

    def in_parts(batch: Numbers) -> list[tuple[Numbers, Result]]:
        nonlocal most
        done: list[tuple[Numbers, Result]] = []
        parts = deque(cut(batch, most or max(1, len(batch))))
        while parts:
            part = parts[0]
            try:
                found = run(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                most = len(part) // 2
                parts = deque(half for each in parts for half in cut(each, most))
                if torch.accelerator.is_available():
                    torch.accelerator.empty_cache()
                continue
            parts.popleft()
            done.append((part, found))
        return done

    for done in divided(batches, in_parts):
        yield from done


def brought(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Tensors of one type as arrays, all from the device in one transfer: each of them would wait for it."""
    if not tensors:
        return []
    together = torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(together, ends), tensors, strict=True)]
