"""What a phase of text classification asks of each network that it can train."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.core.values.recipe import Recipe
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.language.encode import Encoded
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.order import LengthOrder


class Network(Protocol):
    """One kind of net with what it reads: texts -> ids -> logits."""

    name: str  # that recipes call it by
    scale: Scale
    notes: tuple[str, ...]

    @property
    def description(self) -> str: ...
    @property
    def usage(self) -> str:
        """Python that loads the exported folder, with {model} for it."""

    @property
    def parameters(self) -> int: ...
    @property
    def settings(self) -> tuple[str, ...]:
        """Of the recipe's keys, those that the net itself answers to."""

    @property
    def pretrained(self) -> bool: ...
    @property
    def origin(self) -> Origin | None: ...
    @property
    def context(self) -> int:
        """The most tokens that are read of a text."""

    @property
    def longest(self) -> int | None:
        """The most that it could read; None where there is no such limit."""

    @property
    def pad(self) -> int: ...
    @property
    def mask(self) -> int | None:
        """What stands in a hidden word's place; None where no word can be hidden."""

    @property
    def mark(self) -> str:
        """All that turns texts into ids, which must not change under a resumed run."""

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None) -> Encoded: ...
    def hidden(self, recipe: Recipe) -> float:
        """The share of words that batches are to come without."""

    def build(self, seed: int) -> nn.Module: ...
    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        """Set dropout and the like. Raises PlanError for a setting that the net cannot have."""

    def logits(self, model: nn.Module, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor) -> Tensor: ...
    def write(self, model: nn.Module, folder: Path) -> None: ...
    def about(self) -> dict[str, Any]:
        """What multistep.json has to say of the net beside its labels."""


class Prepared:
    """A network with the splits as it reads them: encoded once, when it is first trained."""

    def __init__(self, network: Network, splits: LabelledSplits, batch_size: int) -> None:
        self.network, self._splits, self._batch_size = network, splits, batch_size

    @functools.cached_property
    def encoded(self) -> dict[str, Encoded]:
        """Each split as tokens; an empty one as none."""
        parts = {"train": self._splits.train, "validation": self._splits.validation, "test": self._splits.test}
        return {name: self.network.encode(part.texts, part.seconds) for name, part in parts.items()}

    @functools.cached_property
    def order(self) -> LengthOrder:
        return LengthOrder(self.encoded["train"].lengths, self._batch_size)
