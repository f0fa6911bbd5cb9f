"""The loss of each token, without ever holding the logits of all of them where the vocabulary is large."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multistep.backends.torch.devices import places_of
from multistep.tasks.text.summed import in_pieces, summed_nats

IGNORED = -100  # a label that is not trained on, in the terms of torch and transformers
# Logits at once: 128 MiB in float32, and as much again for their gradient. torch's own `linear_cross_entropy` holds
# less, but took 1.7 to 1.9 times the seconds of these pieces on a CPU (bench/passes.py, torch 2.13).
MOST_LOGITS = 2**25


def nats_of_labels(
    head: Callable[[Tensor], Tensor],
    hidden_BTD: Tensor,
    labels_BT: Tensor,
    label_smoothing: float = 0.0,
    count: int | None = None,
) -> Tensor:
    """The loss of each label in nats (float32; shape B, T), 0 where the label is IGNORED.

    `head` makes logits of hidden states (shape N, D -> N, V). It is asked only for labels that count, in pieces whose
    logits fit; with several pieces, their logits are computed again for the gradient instead of being kept. `count` is
    how many labels count, where that is known without asking the device.
    """
    hidden_ND, labels_N = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    everything = count == len(labels_N)
    if not everything:
        wanted_N = places_of(labels_N != IGNORED, count)
        everything = len(wanted_N) == len(labels_N)
    if not everything:
        hidden_ND, labels_N = hidden_ND[wanted_N], labels_N[wanted_N]

    def of(hidden_MD: Tensor, labels_M: Tensor) -> Tensor:
        logits_MV = head(hidden_MD).float()
        return F.cross_entropy(logits_MV, labels_M, reduction="none", label_smoothing=label_smoothing)

    size = max(1, MOST_LOGITS // _vocabulary(head, hidden_ND))
    if len(labels_N) <= size:
        nats_N = of(hidden_ND, labels_N)
    else:
        pieces = zip(torch.split(hidden_ND, size), torch.split(labels_N, size), strict=True)
        nats_N = torch.cat([_piece(of, hidden, labels) for hidden, labels in pieces])
    if everything:
        return nats_N.view(labels_BT.shape)
    nats = nats_N.new_zeros(labels_BT.numel())
    return nats.index_put((wanted_N,), nats_N).view(labels_BT.shape)


def nats_in_all(
    head: Callable[[Tensor], Tensor],
    hidden_BTD: Tensor,
    labels_BT: Tensor,
    label_smoothing: float = 0.0,
    count: int | None = None,
) -> Tensor:
    """The sum of `nats_of_labels`: of a plain linear head its gradients are computed beside it, piece by piece.

    So neither the logits of all labels stand in memory, nor are any computed twice.
    """
    labels = labels_BT.numel() if count is None else count
    if not (type(head) is nn.Linear and head.bias is None and in_pieces(labels, head.out_features)):
        return nats_of_labels(head, hidden_BTD, labels_BT, label_smoothing, count).sum()
    hidden_ND, labels_N = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    if labels < len(labels_N):
        wanted_N = places_of(labels_N != IGNORED, count)
        hidden_ND, labels_N = hidden_ND[wanted_N], labels_N[wanted_N]
    return summed_nats(hidden_ND, head.weight, labels_N, label_smoothing)


def _piece(of: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return of(hidden, labels)
    again: Tensor = checkpoint(of, hidden, labels, use_reentrant=False)
    return again


def _vocabulary(head: Callable[[Tensor], Tensor], hidden_ND: Tensor) -> int:
    return int(getattr(head, "out_features", hidden_ND.shape[-1]))
