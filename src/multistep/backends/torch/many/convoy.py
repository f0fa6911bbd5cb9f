"""Processes that do different work with one sharded model: each of its blocks is gathered by all of them at once.

Each scores other examples, writes texts of other lengths, or has nothing left to do. So before a block is computed
somewhere, all say which one they want next, and gather the first of these together; who wanted another one, or none,
lets go of it again. Nobody waits for a block that the others will not come to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from multistep.backends.torch.many.group import Group


class Convoy:
    """What the processes do with the blocks of a model without gradients. `blocks` are sharded, in their order."""

    def __init__(self, group: Group, blocks: Sequence[nn.Module], by_cpu: dist.ProcessGroup | None) -> None:
        self._group, self._by_cpu = group, by_cpu
        self._blocks: list[Any] = list(blocks)
        self._under_way = False
        for number, block in enumerate(self._blocks):
            block.register_forward_pre_hook(self._asking(number), prepend=True)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Within, all processes must come to `accompany` before any leaves."""
        self._under_way = True
        try:
            yield
        finally:
            self._under_way = False

    def accompany(self) -> None:
        """By who has nothing to do: help until nobody has."""
        self._served(len(self._blocks))

    def _asking(self, number: int) -> Any:
        def before(block: Any, _: object) -> None:
            if self._under_way:
                block.reshard()  # what an error, such as of memory, may have left half done
                self._served(number)

        return before

    def _served(self, wanted: int) -> None:
        """Until all have gathered what is wanted here; nothing, where it is none of the blocks."""
        while True:
            first = torch.tensor(wanted, dtype=torch.int32)
            with self._group.collective():
                dist.all_reduce(first, dist.ReduceOp.MIN, group=self._by_cpu)
            number = int(first)
            if number == len(self._blocks):
                return
            # As ordinary tensors, whoever asks: what is made in inference mode could be written to there alone.
            with self._group.collective(), torch.inference_mode(False), torch.no_grad():
                self._blocks[number].unshard()
                if number == wanted:
                    return
                self._blocks[number].reshard()
