"""Outputs and targets in a range that a loss of torch's does not mean: it computes a number all the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multistep.errors import DataError
from multistep.tasks.own.losses import YES_NO_LOSSES, OwnLoss


def require_shares(loss: OwnLoss, split: str, target: Any) -> None:
    """Raises DataError for targets of a binary cross-entropy that are no shares: masks of 0 and 255, labels -1 and 1.

    `BCEWithLogitsLoss` takes them, and falls without end.
    """
    if not isinstance(loss.given, YES_NO_LOSSES) or not isinstance(target, Tensor):
        return
    wrong = target[(target < 0) | (target > 1)]
    if not wrong.numel():
        return
    worst = float(wrong.flatten()[0])
    advice = "divide masks by 255" if worst == 255 else "make 0 and 1 of them"
    raise DataError(
        f"{split}: there is a target {worst:g}, but {loss.name} takes shares from 0 to 1: {advice}, or give another "
        "loss"
    )


def squashed_twice(loss: OwnLoss, output: Any, target: Any) -> list[str]:
    """A note where the model squashes its output and the loss does so again, which trains badly and fails at nothing.

    Rows without anything negative that sum to 1 are a softmax's.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
        return []
    if isinstance(loss.given, nn.CrossEntropyLoss) and output.ndim > 1 and output.shape[1] > 1:
        sums = output.sum(1)
        if bool((output >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            return [
                f"loss: the model's outputs are probabilities already, and {loss.name} takes the softmax of them "
                "again, which trains slowly; leave the softmax out of the model"
            ]
    return []
