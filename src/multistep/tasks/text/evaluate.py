"""Scoring a stream of text with a causal model, span by span."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.fitting import brought, cut, that_fit
from multistep.tasks.sending import sent
from multistep.tasks.text.stream import Stream

Logits = Callable[[Tensor], Tensor]  # tokens_BT -> logits_BTV
MOST_LOGITS = 2**25  # numbers held at once: 128 MiB
MOST_TOKENS = 1024  # of a batch; larger ones leave the cache of a CPU


def score_stream(
    logits_of: Logits,
    stream: Stream,
    *,
    context: int,
    vocabulary: int,
    before: int,
    spans: NDArray[np.int64] | None,
    device: torch.device,
) -> Evaluation:
    """The evaluation of all spans, or of those named.

    Each span is read in windows of `context` tokens that start anew at its beginning, each token scored once
    with what stands before it in its window and the one token before that. `before` stands before the first.
    """
    starts, ends = _windows(stream, context, spans)
    padded = np.concatenate(([before], stream.tokens)).astype(np.int64)
    nats: Floats = np.zeros(len(stream.tokens))
    size = max(1, min(MOST_TOKENS, MOST_LOGITS // vocabulary) // context)

    def scored(windows: NDArray[np.int64]) -> Tensor:
        place, _ = _places(starts[windows], ends[windows], len(stream.tokens))
        tokens_BT, labels_BT = (sent(torch.from_numpy(padded[at]), device) for at in (place, place + 1))
        logits_BTV = logits_of(tokens_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels_BT.flatten(), reduction="none")

    batches, losses = zip(*that_fit(cut(np.arange(len(starts)), size), scored), strict=True)
    for windows, each in zip(batches, brought(losses), strict=True):
        place, inside = _places(starts[windows], ends[windows], len(stream.tokens))
        nats[place[inside]] = each.reshape(place.shape)[inside]
    return stream.table(nats, spans)


def _places(
    start: NDArray[np.int64], end: NDArray[np.int64], tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The places of some windows in the stream side by side (shape: windows, longest), and which are their own."""
    place = start[:, None] + np.arange(int((end - start).max()))
    return np.minimum(place, tokens - 1), place < end[:, None]


def _windows(
    stream: Stream, context: int, spans: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each window starts and ends in the stream, in order."""
    edges = np.searchsorted(stream.span, np.arange(stream.spans + 1))
    starts: list[NDArray[np.int64]] = []
    ends: list[NDArray[np.int64]] = []
    for span in range(stream.spans) if spans is None else spans:
        begin = np.arange(edges[span], edges[span + 1], context)
        starts.append(begin)
        ends.append(np.minimum(begin + context, edges[span + 1]))
    return np.concatenate(starts), np.concatenate(ends)


def sample_tokens(
    logits_of: Logits,
    prompt_T: Tensor,
    count: int,
    *,
    context: int,
    many: int,
    temperature: float,
    forbidden: tuple[int, ...],
    seed: int,
) -> Tensor:
    """Draw `count` tokens after a prompt, `many` times side by side (shape: many, count).

    For the few lines of a report, by models without a cache of keys and values: `generate` is for those that have one.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = prompt_T.repeat(many, 1)
    for _ in range(count):
        logits_BV = logits_of(tokens_BT[:, -context:])[:, -1].float().cpu() / temperature
        logits_BV[:, list(forbidden)] = -torch.inf
        drawn = torch.multinomial(logits_BV.softmax(-1), 1, generator=generator)
        tokens_BT = torch.cat((tokens_BT, drawn.to(tokens_BT.device)), 1)
    return tokens_BT[:, -count:]
