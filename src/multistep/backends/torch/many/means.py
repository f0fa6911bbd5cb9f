"""Tensors that become the mean of what all processes have, begun now and finished when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from multistep.backends.torch.many.group import Group

BUCKET = 2**24  # numbers that are summed over the processes at once
FEW_BITS = 4
STEPS_DOWN = 6  # halvings below a tensor's largest number that four bits tell: zero and seven sizes, of either sign


@torch.no_grad()
def begun(tensors: Sequence[Tensor], group: Group, by: dist.ProcessGroup | None) -> Callable[[], None]:
    """To be called later: waits for all others, and then has these tensors be the mean. In the meantime they rest."""
    flats = [(bucket, torch.cat([tensor.flatten() for tensor in bucket])) for bucket in buckets(tensors)]
    with group.collective():
        works = [dist.all_reduce(flat, group=by, async_op=True) for _, flat in flats]

    @torch.no_grad()
    def finish() -> None:
        waited(works, group)
        for bucket, flat in flats:
            put(bucket, flat.div_(group.size))

    return finish


@torch.no_grad()
def begun_in_four_bits(tensors: Sequence[Tensor], group: Group, by: dist.ProcessGroup | None) -> Callable[[], None]:
    """The same of what four bits tell of each number; the mean itself is of 32 bits, and the same everywhere.

    Each process sends what it has to each other one: a sum on its way would have to be rounded again at each of them.
    """
    flats = []
    for bucket in buckets(tensors):
        largest = torch.stack([tensor.abs().amax() if tensor.numel() else tensor.new_zeros(()) for tensor in bucket])
        codes = torch.cat([_codes(tensor.flatten(), top) for tensor, top in zip(bucket, largest, strict=True)])
        flats.append((bucket, codes.numel(), [_packed(codes), largest.float()]))
    come = [[[torch.empty_like(part) for _ in range(group.size)] for part in parts] for _, _, parts in flats]
    with group.collective():
        works = [
            dist.all_gather(there, part, group=by, async_op=True)
            for (_, _, parts), places in zip(flats, come, strict=True)
            for part, there in zip(parts, places, strict=True)
        ]

    @torch.no_grad()
    def finish() -> None:
        waited(works, group)
        for (bucket, numbers, _), (packed, largest) in zip(flats, come, strict=True):
            total = torch.zeros(numbers, device=bucket[0].device)
            for codes, tops in zip(packed, largest, strict=True):
                sizes = torch.tensor([tensor.numel() for tensor in bucket], device=tops.device)
                total += _numbers(_unpacked(codes, numbers)) * tops.repeat_interleave(sizes, output_size=numbers)
            put(bucket, total.div_(group.size))

    return finish


def waited(works: Sequence[dist.Work | None], group: Group) -> None:
    with group.collective():
        for work in works:
            assert work is not None, "asked for"
            work.wait()


def put(bucket: Sequence[Tensor], flat: Tensor) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in bucket])
    torch._foreach_copy_(list(bucket), [part.view_as(tensor) for tensor, part in zip(bucket, parts, strict=True)])


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if bucket and numbers + tensor.numel() > BUCKET:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(tensor)
        numbers += tensor.numel()
    if bucket:
        yield bucket


# Four bits: a sign and three of the exponent, E3M0 of arXiv 2501.18512 ---------------------------------


def _codes(flat: Tensor, top: Tensor) -> Tensor:
    """0 for what is next to nothing, else 1 to 7 for its power of two below the largest, and 8 more below zero.

    What is not finite makes the whole tensor so: its largest number is sent as it is.
    """
    share = (flat.float() / top.float().clamp_min(torch.finfo(torch.float32).tiny)).abs()
    power = share.clamp_min(2.0 ** -(STEPS_DOWN + 2)).log2().round().nan_to_num().long()
    size = (power + STEPS_DOWN + 1).clamp(0, STEPS_DOWN + 1)
    return torch.where(flat < 0, size + 8, size).to(torch.uint8)


def _numbers(codes: Tensor) -> Tensor:
    """As shares of the largest one."""
    powers = 2.0 ** torch.arange(-STEPS_DOWN, 1, device=codes.device, dtype=torch.float32)
    positive = torch.cat([powers.new_zeros(1), powers])
    return torch.cat([positive, -positive])[codes.long()]


def _packed(codes: Tensor) -> Tensor:
    """Two in a byte."""
    even = torch.cat([codes, codes.new_zeros(codes.numel() % 2)]).view(-1, 2)
    return even[:, 0] * 16 + even[:, 1]


def _unpacked(packed: Tensor, numbers: int) -> Tensor:
    return torch.stack([packed // 16, packed % 16], dim=1).flatten()[:numbers]
