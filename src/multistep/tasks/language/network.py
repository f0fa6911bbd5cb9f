"""What a phase of text classification asks of each network that it can train."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.core.values.recipe import Recipe
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.language.encode import Encoded, Ints
from multistep.tasks.language.examples import Examples, LabelledSplits
from multistep.tasks.language.mapped import ReadLate, encoded_once, lengths_in_bytes
from multistep.tasks.order import LengthOrder
from multistep.tasks.text.corpus import LongTexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ENOUGH_EPOCHS = 0.5  # of a long split, from which on all of it is encoded beforehand


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

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What the texts are encoded by, if that alone tells their ids."""

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


class Encodings(Protocol):
    """A split as ids, wherever they lie."""

    @property
    def cut(self) -> int: ...
    @property
    def lengths(self) -> Ints: ...
    def __len__(self) -> int: ...
    def padded(self, rows: Ints, pad: int) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]: ...


class Prepared:
    """A network with the splits as it reads them: encoded once, when it is first trained.

    `epochs` are those that the plan is expected to hold: texts that lie in a file are encoded when they are read where
    training would not come to half of them, and where a network has no tokenizer that others can run.
    """

    def __init__(self, network: Network, splits: LabelledSplits, batch_size: int, epochs: float = 1.0) -> None:
        self.network, self._splits, self._batch_size, self._epochs = network, splits, batch_size, epochs

    @functools.cached_property
    def encoded(self) -> dict[str, Encodings]:
        """Each split as tokens; an empty one as none."""
        parts = {"train": self._splits.train, "validation": self._splits.validation, "test": self._splits.test}
        return {name: self._encoded(part) for name, part in parts.items()}

    def _encoded(self, part: Examples) -> Encodings:
        if not isinstance(part.texts, LongTexts):
            return self.network.encode(part.texts, part.seconds)
        if self.network.tokenizer is None or self._epochs < ENOUGH_EPOCHS:
            return ReadLate(self.network, part)
        return encoded_once(self.network.tokenizer, part, self.network.context, self._splits.fingerprint)

    @functools.cached_property
    def order(self) -> LengthOrder:
        train = self._splits.train
        long = isinstance(train.texts, LongTexts)  # whose order does not hang on how they are encoded
        lengths = lengths_in_bytes(train) if long else self.encoded["train"].lengths
        return LengthOrder(lengths, self._batch_size)
