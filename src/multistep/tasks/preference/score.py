"""Log-probabilities of both answers of each pair, the table that follows from them, and the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.chat.pack import padded_rows
from multistep.tasks.fitting import brought, that_fit
from multistep.tasks.preference.encode import EncodedPair
from multistep.tasks.sending import sent
from multistep.tasks.text.evaluate import MOST_LOGITS, MOST_TOKENS

Nats = Callable[[Tensor, Tensor], Tensor]  # of tokens and labels (shape of all: B, T)
LEAST_SAMPLE, SAMPLE_TOKENS = 32, 16384  # pairs, and tokens of them, that are looked at after each window


def batches_of(pairs: Sequence[EncodedPair], vocabulary: int) -> list[NDArray[np.int64]]:
    """The numbers of the pairs that are scored together, of about one length, the longest first.

    A split has one such division, for the reference as for every checkpoint: the very same products give the very same
    bits, so that weights that have not changed have a margin of exactly 0.
    """
    lengths = np.array([pair.length for pair in pairs], np.int64)
    most = max(1, min(MOST_TOKENS, MOST_LOGITS // vocabulary))
    order, found, at = np.argsort(-lengths, kind="stable"), list[NDArray[np.int64]](), 0
    while at < len(order):
        size = max(1, most // max(1, 2 * int(lengths[order[at]])))
        found.append(order[at : at + size])
        at += size
    return found


def sampled(batches: Sequence[NDArray[np.int64]], pairs: Sequence[EncodedPair]) -> list[NDArray[np.int64]]:
    """The batches that are looked at after each window: every so-many-th, so that all lengths are among them."""
    tokens = 2 * sum(pair.length for pair in pairs)
    share = max(LEAST_SAMPLE / max(1, len(pairs)), SAMPLE_TOKENS / max(1, tokens))
    return list(batches[:: max(1, int(1 / share))])


def log_probabilities(
    nats_of: Nats,
    pairs: Sequence[EncodedPair],
    batches: Sequence[NDArray[np.int64]],
    *,
    pad: int,
    device: torch.device,
    before: Callable[[], None] = lambda: None,
) -> Floats:
    """Of the answers that were chosen and of those that were rejected, in nats (shape: pairs, 2; of the others 0).

    `before` is called ahead of each batch.
    """

    def nats(numbers: NDArray[np.int64]) -> Tensor:
        before()
        both = [side for i in numbers for side in (pairs[int(i)].chosen, pairs[int(i)].rejected)]
        tokens, labels, _ = padded_rows(both, [[i] for i in range(len(both))], pad)
        return nats_of(sent(torch.from_numpy(tokens), device), sent(torch.from_numpy(labels), device))

    found: Floats = np.zeros((len(pairs), 2))
    scored = list(that_fit(batches, nats))
    for (numbers, _), each in zip(scored, brought([each for _, each in scored]), strict=True):
        found[numbers] = -each.sum(1, dtype=np.float64).reshape(-1, 2)
    return found


def margins(own: Floats, reference: Floats, beta: float) -> Floats:
    """By how much the implicit reward of what was chosen is above that of what was rejected, in nats (shape: pairs).

    beta * log(p / reference) of the one less that of the other: arXiv 2305.18290, equation 7.
    """
    found: Floats = beta * ((own[:, 0] - own[:, 1]) - (reference[:, 0] - reference[:, 1]))
    return found


def table(margin: Floats, pairs: Sequence[EncodedPair], numbers: NDArray[np.int64]) -> Evaluation:
    """One row for each pair; those of one prompt share a block."""
    keys: dict[str, int] = {}
    block = [keys.setdefault(pairs[int(i)].source.key(), int(i)) for i in numbers]
    return Evaluation(
        {
            "margin": margin,
            "loss": np.logaddexp(0.0, -margin),  # -log sigmoid
            "count": np.ones(len(margin)),
            "block": np.array(block, np.float64),
        }
    )


@dataclass(frozen=True)
class LengthRule:
    """Prefers the longer answer, or the shorter one: whichever was right more often in training, and as surely."""

    longer: bool
    right: float  # share of the training pairs of unequal length

    @property
    def name(self) -> str:
        return f"the {'longer' if self.longer else 'shorter'} answer"

    @classmethod
    def fit(cls, pairs: Sequence[EncodedPair]) -> LengthRule:
        signs = np.array([_longer(pair) for pair in pairs])
        longer, shorter = int((signs > 0).sum()), int((signs < 0).sum())
        most = max(longer, shorter)
        # One pair of each kind beside those that were seen: nothing is certain.
        return cls(longer >= shorter, (most + 1) / (longer + shorter + 2))

    def margins(self, pairs: Sequence[EncodedPair]) -> Floats:
        sure = math.log(self.right / (1.0 - self.right))
        signs = np.array([_longer(pair) for pair in pairs], np.float64)
        return signs * (sure if self.longer else -sure)


def _longer(pair: EncodedPair) -> int:
    """1 where the answer that was chosen has more characters, -1 where it has fewer."""
    chosen, rejected = map(len, pair.source.answers)
    return (chosen > rejected) - (chosen < rejected)
