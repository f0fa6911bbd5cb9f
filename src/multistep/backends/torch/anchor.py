"""What has to be known of the weights that a phase begins with, when they are no longer there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class Anchor(Protocol):
    """Numbers that are computed once, of the phase's start weights, and saved with each of its checkpoints."""

    def compute(self, model: nn.Module, device: torch.device) -> None:
        """Compute them, unless they are there. `model` holds the phase's start weights and is in inference."""

    def tensors(self) -> Mapping[str, Tensor]:
        """What was computed, on the CPU; empty before that."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what a checkpoint of this phase holds."""
