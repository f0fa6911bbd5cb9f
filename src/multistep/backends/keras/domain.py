"""What a task gives to the Keras learner for one phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Exhibit, Split

Batch = tuple[Any, Any, Any]  # inputs, targets, sample weights (None: 1 each), as arrays nested as the model has them
Array = NDArray[Any]
# Inputs, targets, weights -> outputs nested as the model has them and the loss of each example, as arrays.
Score = Callable[[Any, Any, Any], tuple[Any, Array]]


class Domain(Protocol):
    """Data, model and scores of one phase. There is one model, the user's, whose weights come and go."""

    @property
    def model(self) -> Any:
        """The keras.Model, built."""

    def first_weights(self) -> list[Array]:
        """Of each variable that `variables.kept` names, as the phase begins from nothing."""

    def configure(self, recipe: Recipe) -> None:
        """Set dropout and the like in the model. Raises PlanError for a setting that it cannot have."""

    def batch(self, position: int, size: int, seed: int) -> Batch:
        """Examples `position` to `position + size` of the endless order that `seed` fixes."""

    def loss(self, targets: Any, outputs: Any, weights: Any, label_smoothing: float) -> Any:
        """The mean loss of a batch, by operations of Keras."""

    def rows(self, targets: Any, outputs: Any, weights: Any) -> Any:
        """The loss of each example (shape: B), by operations of Keras, without label smoothing."""

    def evaluate(self, score: Score, split: Split, *, sample: bool) -> Evaluation:
        """Score a split example by example, or its fixed sample."""

    def baseline(self, score: Score, split: Split) -> tuple[str, Evaluation]:
        """A trivial model's name and evaluation. `score` is that of the first weights."""

    def exhibits(self, score: Score) -> Sequence[Exhibit]:
        """A few outputs for people to look at, the most telling first."""

    def export(self, folder: Path, card: str) -> str:
        """Write the model with the weights that it has now; return the SHA-256 of the weights."""


def seeds_of(seed: int, step: int, generators: int) -> NDArray[np.int64]:
    """The state of each seed generator before a step: a function of (seed, step), so that nothing is carried along."""
    drawn = np.random.SeedSequence([seed % 2**63, step]).generate_state(generators).astype(np.int64)
    return np.stack([drawn & 0x7FFFFFFF, np.zeros_like(drawn)], axis=1)  # as a signed type has it, too
