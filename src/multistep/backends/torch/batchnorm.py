"""Batch normalisation's running statistics, which no mean of weights and no step uphill should touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module, names: Set[str] | None = None) -> list[_BatchNorm]:
    """The layers that keep running statistics; of these names, or all."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and (names is None or name in names)
    ]


def training_norms(model: nn.Module) -> frozenset[str]:
    """The names of those that follow the data in training. A module may keep some of its own as they are, as is usual
    for pretrained ones, by putting them back into evaluation in its `train`.
    """
    before = model.training
    model.train()
    following = {id(norm) for norm in batch_norms(model) if norm.training}
    model.train(before)
    return frozenset(name for name, module in model.named_modules() if id(module) in following)


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
