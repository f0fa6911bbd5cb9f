"""Sharpness-aware steps: the gradient where a short way uphill ends. Source: arXiv 2010.01412."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def uphill(parameters: Sequence[Tensor], norms: Sequence[_BatchNorm], radius: float) -> Iterator[None]:
    """Within, the weights stand `radius` along their gradient; afterwards they are what they were, bit for bit.

    The statistics of batch `norms` are those of the weights themselves, so they stay as they are within.
    """
    moved = [p for p in parameters if p.grad is not None]
    before = [p.detach().clone() for p in moved]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        gradients = [p.grad for p in moved if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_add_(moved, torch._foreach_mul(gradients, radius / (norm + 1e-12)))
    for each in norms:
        each.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)
        for each, momentum in zip(norms, momenta, strict=True):
            each.momentum = momentum
