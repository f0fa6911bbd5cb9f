"""Tensors of which each process holds some rows: torch's DTensor as `fully_shard` makes it, without importing it.

All of these take ordinary tensors too, which are their own part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """The rows that this process has, in their own memory."""
    found: Tensor = getattr(tensor, "_local_tensor", tensor)
    return found


def locals_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors]


def is_parted(tensor: Tensor) -> bool:
    return hasattr(tensor, "_local_tensor")


def rows_of(rows: int, rank: int, size: int) -> slice:
    """Which of so many rows a process has: as `torch.chunk` cuts them, so that the last ones may have none."""
    each = -(-rows // size)
    return slice(min(rows, each * rank), min(rows, each * (rank + 1)))


def own_rows(tensor: Tensor) -> slice:
    """The rows of the whole tensor that this process has; all of an ordinary one."""
    if not is_parted(tensor):
        return slice(0, tensor.shape[0] if tensor.ndim else 1)
    mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
    return rows_of(tensor.shape[0], mesh.get_local_rank(), mesh.size())


@torch.no_grad()
def put(target: Tensor, whole: Tensor) -> None:
    """Set a tensor, or this process's rows of it, to what the whole of it should be."""
    if is_parted(target):
        local(target).copy_(whole[own_rows(target)])
    else:
        target.copy_(whole)


def gathered(tensor: Tensor, wanted: bool = True) -> Tensor | None:
    """The whole of it on the CPU, in memory of its own, where it is `wanted`; all processes must come here."""
    whole: Tensor = tensor.full_tensor() if is_parted(tensor) else tensor  # type: ignore[attr-defined]
    return whole.detach().to("cpu", copy=True).contiguous() if wanted else None
