"""A split scored example by example, by whatever says something of each of its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multistep.core.evidence.metric import Evaluation
from multistep.tasks.fitting import cut, that_fit
from multistep.tasks.own.data import Indices
from multistep.tasks.own.judge import Judge, pieces_for
from multistep.tasks.own.layout import Layout
from multistep.tasks.own.losses import MOST_CALLS
from multistep.tasks.own.preset import BATCH_SIZE
from multistep.tasks.own.ragged import opened
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.reader import Reader
from multistep.tasks.own.scores import table_of

SCORED_AT_ONCE = 128
Say = Callable[[tuple[Tensor, ...], int], Any]  # tensors and the number of examples -> an output


@dataclass(frozen=True)
class Scorer:
    """How outputs are scored beside their targets; `batch_size` is the loader's, if there was one."""

    layout: Layout
    judge: Judge
    batch_size: int | None

    def table(self, reader: Reader, places: Indices, seed: int, device: torch.device, say: Say) -> Evaluation:
        """Score the examples at these places with what `say` says of each batch.

        What data set and model draw at random follows from `seed` and the place.
        """

        def rows(part: Indices) -> dict[str, Tensor]:
            with as_at(seed, int(part[0])):
                tensors, count = opened(reader.batch(part, device))
                piece = pieces_for(len(reader), MOST_CALLS)
                return self.judge.rows(say(tensors, count), self.layout.target(tensors), count, piece)

        return table_of([found for _, found in that_fit(cut(places, self._at_once), rows)])

    @property
    def _at_once(self) -> int:
        """Examples at a time; those of a training batch where the loss is one of a batch's examples together."""
        own = self.batch_size or BATCH_SIZE
        return own if self.judge.loss.joint else max(SCORED_AT_ONCE, own)
