"""What a task gives to the learner for one phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from multistep.backends.torch.placing import Builder
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Exhibit, Split

Batch = tuple[Tensor, ...]


class Domain(Builder, Protocol):
    """Data, model and scores of one phase."""

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        """Examples `position` to `position + size` of the endless order that `seed` fixes, on the device."""

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """The summed loss in nats and the number of labels, both left on the device."""

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        """Set dropout, context and the like; called whenever weights are placed, before the device is.

        Returns the size of an example in the task's own unit (tokens of a context; 1 where it never changes), by
        which positions are converted. Raises PlanError for a setting that this model cannot have.
        """

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        """Score a split example by example, or its fixed sample."""

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        """A trivial model's name and evaluation."""

    def write_baseline(self, folder: Path) -> str:
        """Write that trivial model as a folder, as `engine.learner.Learner` says."""

    def resize(self, resolution: int | None) -> None:
        """Train with images of that size from the next batch on; None where a recipe names no sizes."""

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        """A few outputs for people to look at, the most telling first."""

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        """Write a model folder; return the SHA-256 of the weights."""


@runtime_checkable
class Folds(Protocol):
    """A domain of classes, whose model can be made surer or less sure of what it says."""

    def fold(self, model: nn.Module, temperature: float, device: torch.device) -> bool:
        """Divide the model's logits by `temperature`, as `engine.learner.Learner` says."""


@runtime_checkable
class Draws(Protocol):
    """A domain whose batches draw from random states that all share, so that only who trains may read them."""

    draws_from_shared_states: bool
