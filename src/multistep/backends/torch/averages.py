"""Averaged weights, which are what is scored: they trail the weights in training."""

from __future__ import annotations

import torch
from torch import Tensor

AVERAGE_EVERY = 4  # steps; averaging each of them would cost 1% more time and change nothing that shows


@torch.no_grad()
def follow(
    averages: list[Tensor], weights: list[Tensor], steps: int, horizon: float, since: int = AVERAGE_EVERY
) -> None:
    """Move the averages towards the weights, which they last followed `since` steps ago; their horizon is a fixed share
    of the steps so far.
    """
    weight = since / (since + horizon * steps) if steps > since else 1.0
    torch._foreach_lerp_(averages, weights, weight)


@torch.no_grad()
def equal(averages: list[Tensor], weights: list[Tensor]) -> None:
    """Make the averages what the weights are."""
    torch._foreach_copy_(averages, weights)
