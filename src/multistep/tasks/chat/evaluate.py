"""Scores of conversations, one row each: the nats of what the assistant says, and those of the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.chat.encode import Encoded
from multistep.tasks.chat.pack import padded_rows
from multistep.tasks.fitting import brought, that_fit
from multistep.tasks.sending import sent
from multistep.tasks.text.evaluate import MOST_LOGITS, MOST_TOKENS
from multistep.tasks.text.ngram import NGram

Nats = Callable[[Tensor, Tensor], Tensor]  # of tokens and labels (shape of all: B, T)
SAMPLE_TOKENS = 8192  # read after each window, at most; of 16 conversations at least
LEAST_SAMPLE = 16


def sample_size(examples: Sequence[Encoded]) -> int:
    """How many conversations are looked at after each window."""
    mean = np.mean([example.length for example in examples]) if examples else 1.0
    return max(LEAST_SAMPLE, int(SAMPLE_TOKENS / mean))


def score(
    nats_of: Nats, examples: Sequence[Encoded], *, vocabulary: int, pad: int, lost: Floats, device: torch.device
) -> Floats:
    """The nats of each conversation's trained tokens (shape: examples), each read in a row of its own.

    `lost` is what each token of the vocabulary costs beside itself: of an unknown one, saying which it was.
    """
    lengths = np.array([example.length for example in examples], np.int64)
    most = max(1, min(MOST_TOKENS, MOST_LOGITS // vocabulary))
    nats = np.zeros(len(examples))

    def scored(numbers: NDArray[np.int64]) -> Tensor:
        tokens, labels, _ = padded_rows(examples, [[int(i)] for i in numbers], pad)
        return nats_of(sent(torch.from_numpy(tokens), device), sent(torch.from_numpy(labels), device))

    batches, found = zip(*that_fit(_batches(lengths, most), scored), strict=True) if len(examples) else ((), ())
    for numbers, each in zip(batches, brought(found), strict=True):
        nats[numbers] = each.sum(1, dtype=np.float64)
    more = [float(lost[example.tokens[example.trained]].sum()) for example in examples]
    return np.asarray(nats + np.array(more), np.float64)


def _batches(lengths: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Conversations of about one length together, such that no batch has more places than `most`, the longest first."""
    order = np.argsort(-lengths, kind="stable")
    found = []
    at = 0
    while at < len(order):
        size = max(1, most // max(1, int(lengths[order[at]])))
        found.append(order[at : at + size])
        at += size
    return found


def table(
    nats: Floats, examples: Sequence[Encoded], numbers: NDArray[np.int64], more: Mapping[str, Floats] | None = None
) -> Evaluation:
    """One row for each conversation, which is a block of its own; `numbers` are theirs in the whole split.

    `more` are columns of what was answered, a row for each turn of the assistant. Then the table has as many, a
    conversation's in one block, since what is said in it hangs together; its loss stands in the first of them.
    """
    found = {
        "loss": np.asarray(nats, np.float64),
        "count": np.array([example.trained.sum() for example in examples], np.float64),
        "bytes": np.array([example.bytes for example in examples], np.float64),
    }
    block = numbers.astype(np.float64)
    if more:
        turns = np.array([len(example.source.answers) for example in examples], np.int64)
        first = np.cumsum(turns) - turns
        for name, column in found.items():
            found[name] = np.zeros(turns.sum())
            found[name][first] = column
        block = np.repeat(block, turns)
    return Evaluation({**found, "block": block, **(more or {})})


def fit_ngram(examples: Sequence[Encoded]) -> NGram:
    """Counts what is trained on, knowing nothing of the prompts."""
    texts = [text for example in examples for text in example.texts if text]
    return NGram.fit(texts)


def baseline_nats(model: NGram, examples: Sequence[Encoded]) -> Floats:
    """The nats of each conversation's trained text, with those of each turn's end where that is trained, too."""
    pieces = [(i, text, closed) for i, e in enumerate(examples) for text, closed in zip(e.texts, e.closed, strict=True)]
    found = np.zeros(len(examples))
    scored = model.score_documents([text for _, text, _ in pieces], end=model.ends)
    for (i, _, closed), nats in zip(pieces, scored, strict=True):
        found[i] += nats.sum() if closed or not model.ends else nats[:-1].sum()
    return found
