"""The summed loss of many tokens whose logits never stand in memory at once, in one pass over the head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits at once. 8 MiB stay in a CPU's cache; a GPU wants large products (1,300 rows at 50,000 words). Rows are half as
# many as states are wide at the least, or the weights are read more often than that saves: 2,048 labels of 49,152 words
# and 576 numbers took 7.7 s of one core in pieces of 42, 4.5 s of 341, and 4.9 s as a whole.
ON_CPU, ELSEWHERE = 2**21, 2**26
FROM = 2**22  # logits in all, below which nothing is won by pieces


class _Summed(torch.autograd.Function):
    """Gradients are computed beside the loss, while a piece's logits are there; what comes back only scales them.

    Letters in names: N labels, D width, V vocabulary, M labels of a piece. The way of Liger's fused linear
    cross-entropy, arXiv 2410.10989.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, smoothing: float) -> Tensor:
        device = hidden_ND.device
        reduced = torch.is_autocast_enabled(device.type)
        kind = torch.get_autocast_dtype(device.type) if reduced else weight_VD.dtype
        words = len(weight_VD)
        size = max(1, len(weight_VD[0]) // 2, (ON_CPU if device.type == "cpu" else ELSEWHERE) // words)
        with torch.autocast(device.type, enabled=False):
            hidden, weight = hidden_ND.to(kind), weight_VD.to(kind)
            of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
            of_weight = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
            total = torch.zeros((), device=device)
            room = torch.empty(min(size, len(labels_N)), words, device=device)
            for at in range(0, len(labels_N), size):
                h_MD, labels_M = hidden[at : at + size], labels_N[at : at + size]
                p_MV, labels_M1 = room[: len(h_MD)], labels_M.clamp_min(0)[:, None]
                counts_M1 = (labels_M >= 0)[:, None].to(room.dtype)
                if kind == room.dtype:
                    torch.mm(h_MD, weight.t(), out=p_MV)
                else:
                    p_MV.copy_(h_MD @ weight.t())
                highest_M1 = p_MV.amax(-1, keepdim=True)
                wanted_M1 = (1.0 - smoothing) * p_MV.gather(1, labels_M1)
                if smoothing:
                    wanted_M1 += smoothing * p_MV.mean(-1, keepdim=True)
                sums_M1 = p_MV.sub_(highest_M1).exp_().sum(-1, keepdim=True)
                total += (counts_M1 * (highest_M1 + sums_M1.log() - wanted_M1)).sum()
                if of_hidden is None and of_weight is None:
                    continue
                p_MV.mul_(counts_M1 / sums_M1).scatter_add_(1, labels_M1, (smoothing - 1.0) * counts_M1)
                if smoothing:
                    p_MV.sub_(counts_M1 * (smoothing / words))
                errors = p_MV.to(kind)
                if of_hidden is not None:
                    torch.mm(errors, weight, out=of_hidden[at : at + len(h_MD)])
                if of_weight is not None:
                    of_weight += errors.t() @ h_MD
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.kind = hidden_ND.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return (
            None if of_hidden is None else (of_hidden * gradients[0]).to(ctx.kind),
            None if of_weight is None else of_weight * gradients[0],
            None,
            None,
        )


def in_pieces(labels: int, words: int) -> bool:
    """Whether so many logits are worth being computed piece by piece."""
    return labels * words > FROM


def summed_nats(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy in nats of labels, of hidden states that a head without bias makes logits of.

    Labels below 0 do not count.
    """
    total: Tensor = _Summed.apply(hidden_ND, weight_VD, labels_N, label_smoothing)  # type: ignore[no-untyped-call]
    return total
