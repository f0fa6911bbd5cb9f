"""Sharpness-aware steps: the gradient where a short way uphill ends. Source: arXiv 2010.01412."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from multistep.backends.torch.parts import local, locals_of


@contextmanager
def uphill(
    parameters: Sequence[Tensor],
    norms: Sequence[_BatchNorm],
    radius: float,
    norm_of: Callable[[Sequence[Tensor]], Tensor],
) -> Iterator[None]:
    """Within, the weights stand `radius` along their gradient; afterwards they are what they were, bit for bit.

    `norm_of` tells the norm of the gradient of parameters, of which this process may have a part.

    The statistics of batch `norms` are those of the weights themselves, so they stay as they are within.
    """
    there = [p for p in parameters if p.grad is not None]
    moved = locals_of(there)
    before = [p.detach().clone() for p in moved]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        gradients = [local(p.grad) for p in there if p.grad is not None]
        norm = norm_of(there)
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
