"""Batches of encoded texts: to train on, in an order that is a function of (seed, position), and to be scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multistep.backends.torch.devices import on
from multistep.tasks.language.encode import Ints
from multistep.tasks.language.network import Encodings

MOST_TOKENS = 2048  # of a batch that is scored; larger ones leave the cache of a CPU


@dataclass(frozen=True)
class Padded:
    """Some texts as tensors (shape: texts, longest): tokens, where there are any, and 1 in a pair's second text."""

    tokens: Tensor
    inside: Tensor
    types: Tensor

    @classmethod
    def of(cls, tokens: Ints, types: Ints, inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Padded:
        return cls(torch.from_numpy(tokens), torch.from_numpy(inside), torch.from_numpy(types))

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        return on(device, self.tokens, self.inside, self.types)  # type: ignore[return-value]


def scoring_batches(encoded: Encodings, rows: Ints, most_tokens: int = MOST_TOKENS) -> Iterator[Ints]:
    """The rows in batches of about one length, none of more tokens than asked; of one text at least."""
    ordered = rows[np.argsort(encoded.lengths[rows], kind="stable")]
    start = 0
    while start < len(ordered):
        end = start + 1
        # Sorted: the last of a batch is its longest.
        while end < len(ordered) and (end + 1 - start) * encoded.lengths[ordered[end]] <= most_tokens:
            end += 1
        yield ordered[start:end]
        start = end


def in_order(batches: list[Ints], rows: Ints) -> Ints:
    """Where each of `rows` stands among what the batches gave."""
    given = np.concatenate(batches)
    places = np.empty(int(given.max()) + 1, np.int64)
    places[given] = np.arange(len(given))
    found: Ints = places[rows]
    return found
