"""Steps that need whole matrices, of a model of which each process has some rows: each makes the steps of some of them.

The rows of a matrix are sent to one process, and what comes of it is sent back by rows: it is sent twice, and nothing
is computed twice. Dion (arXiv 2504.05295) would send less, by steps of a low rank, which are other steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from multistep.backends.torch.many.group import Group
from multistep.backends.torch.parts import rows_of

AT_ONCE = 2**26  # numbers of whole matrices that all processes together hold beside their parts
Step = Callable[[Sequence[int], list[Tensor]], list[Tensor]]  # of these, whole, what comes of them in the same shapes


class Spreading:
    """One process's part of it."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __call__(self, parts: Sequence[Tensor], shapes: Sequence[torch.Size], step: Step) -> list[Tensor]:
        """Own rows of what `step` makes of whole tensors, of which `parts` are own rows. The same call everywhere."""
        found: list[Tensor] = []
        owners = _owners([shape.numel() for shape in shapes], self._group.size)
        for some in _rounds([shape.numel() for shape in shapes]):
            found += self._round(some, owners, parts, shapes, step)
        return found

    def _round(
        self, some: range, owners: Sequence[int], parts: Sequence[Tensor], shapes: Sequence[torch.Size], step: Step
    ) -> list[Tensor]:
        rank, ranks = self._group.rank, range(self._group.size)
        of = {other: [i for i in some if owners[i] == other] for other in ranks}
        mine = of[rank]

        def own_size(i: int, other: int) -> torch.Size:
            rows = rows_of(shapes[i][0], other, len(ranks))
            return torch.Size([rows.stop - rows.start, *shapes[i][1:]])

        def sizes(there: int, here: int) -> list[int]:
            """Numbers of the rows that process `here` has of what process `there` works at, one by one."""
            return [own_size(i, here).numel() for i in of[there]]

        sent = [parts[i].flatten() for other in ranks for i in of[other]]
        come = self._exchanged(sent, [sum(sizes(o, rank)) for o in ranks], [sum(sizes(rank, o)) for o in ranks])
        pieces = iter(torch.split(come, [n for o in ranks for n in sizes(rank, o)]))
        rows = {(other, i): next(pieces).view(own_size(i, other)) for other in ranks for i in mine}
        wholes = [torch.cat([rows[other, i] for other in ranks]) for i in mine]
        made = dict(zip(mine, step(mine, wholes) if mine else [], strict=True))
        sent = [made[i][rows_of(shapes[i][0], other, len(ranks))].flatten() for other in ranks for i in mine]
        back = self._exchanged(sent, [sum(sizes(rank, o)) for o in ranks], [sum(sizes(o, rank)) for o in ranks])
        pieces = iter(torch.split(back, [n for o in ranks for n in sizes(o, rank)]))
        own = {i: next(pieces).view(own_size(i, rank)) for other in ranks for i in of[other]}
        return [own[i] for i in some]

    def _exchanged(self, sent: list[Tensor], to: list[int], come: list[int]) -> Tensor:
        """What all others send here, in their order."""
        flat = torch.cat(sent)
        found = flat.new_empty(sum(come))
        with self._group.collective():
            dist.all_to_all_single(found, flat, come, to)
        return found


def _owners(sizes: Sequence[int], many: int) -> list[int]:
    """Who works at which: the largest first, each by who has the least so far."""
    owners, loads = [0] * len(sizes), [0] * many
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owners[i] = loads.index(min(loads))
        loads[owners[i]] += sizes[i]
    return owners


def _rounds(sizes: Sequence[int]) -> Iterator[range]:
    first, numbers = 0, 0
    for i, size in enumerate(sizes):
        if i > first and numbers + size > AT_ONCE:
            yield range(first, i)
            first, numbers = i, 0
        numbers += size
    yield range(first, len(sizes))
