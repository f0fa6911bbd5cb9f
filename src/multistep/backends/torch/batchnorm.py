"""Batch normalisation's running statistics, which no mean of weights and no step uphill should touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def recompute_statistics(model: nn.Module, norms: Sequence[_BatchNorm], passes: Sequence[Callable[[], object]]) -> None:
    """Replace the running statistics by their mean over some forward passes, without dropout."""
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean
        norm.train()
    for run in passes:
        run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
