"""A split as one stream of token ids, the order in which training reads it, and the spans it is scored in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.errors import DataError
from multistep.tasks.text.ngram import SCALAR_VALUES
from multistep.tasks.text.tokenizer import UNKNOWN, encoder_of, token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from multistep.tasks.text.ngram import NGram

Ints = NDArray[np.int32]
LEAST_SPAN_BYTES = 2048  # neighbouring characters are not independent; spans of this length nearly are
MOST_SPAN_BYTES = 16384  # room for long contexts where there is text enough
SPANS = 64  # aimed at, so that an interval means something
SAMPLE_SPANS = 16  # scored after each window, evenly spread


@dataclass(frozen=True)
class Stream:
    """Token ids of a split, each document closed by the end-of-text token if there are several.

    `span` names each token's span; `lost` is what an unknown token's character costs beyond the token: it is
    one of the rest of Unicode, and whoever predicts "unknown" has not said which. `texts` are the documents.
    """

    texts: tuple[str, ...]
    tokens: Ints
    span: Ints
    lost: Floats
    span_bytes: Floats  # UTF-8 bytes of each span

    @property
    def spans(self) -> int:
        return len(self.span_bytes)

    def sample_spans(self) -> NDArray[np.int64]:
        """The numbers of the spans that are looked at after each window: evenly spread, always the same."""
        return np.unique(np.linspace(0, self.spans - 1, min(SAMPLE_SPANS, self.spans)).round().astype(np.int64))

    def table(self, nats: Floats, spans: Sequence[int] | NDArray[np.int64] | None = None) -> Evaluation:
        """The evaluation with one row a span, of the nats of each token (shape: tokens)."""
        chosen = np.arange(self.spans) if spans is None else np.asarray(spans)
        loss = np.bincount(self.span, weights=nats + self.lost, minlength=self.spans).astype(np.float64)
        count = np.bincount(self.span, minlength=self.spans).astype(np.float64)
        return Evaluation(
            {
                "loss": loss[chosen],
                "count": count[chosen],
                "bytes": self.span_bytes[chosen],
                "block": chosen.astype(np.float64),
            }
        )


def read_stream(texts: Sequence[str], tokenizer: Tokenizer, *, several: bool, end: int | None) -> Stream:
    """Encode a split. `several`: whether documents are closed by `end`, the end-of-text token."""
    pieces: list[Ints] = []
    starts: list[NDArray[np.int64]] = []
    offset = 0
    unknown = tokenizer.token_to_id(UNKNOWN)
    known = tokenizer.get_vocab_size()
    encode, lengths = encoder_of(tokenizer), token_bytes(tokenizer)
    for text in texts:
        tokens = encode(text)
        token_starts, size = _starts(tokens, text, lengths, unknown)
        pieces.append(tokens)
        starts.append(token_starts + offset)
        offset += size
        if several and end is not None:
            pieces.append(np.array([end], np.int32))
            starts.append(np.array([offset - 1], np.int64))
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
    starting = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    size = span_size(offset)
    count = max(1, offset // size)
    span = np.minimum(starting // size, count - 1).astype(np.int32)
    edges = np.append(np.arange(count) * size, offset)
    lost = np.zeros(len(tokens))
    if unknown is not None:
        lost[tokens == unknown] = np.log(SCALAR_VALUES - known)
    return Stream(tuple(texts), tokens, span, lost, np.diff(edges).astype(np.float64))


def span_size(total_bytes: int) -> int:
    """Bytes of a span: by the text alone, whatever tokenizer and context, so that models can be compared."""
    return int(np.clip(total_bytes // SPANS, LEAST_SPAN_BYTES, MOST_SPAN_BYTES))


def _starts(
    tokens: Ints, text: str, token_lengths: NDArray[np.int64], unknown: int | None
) -> tuple[NDArray[np.int64], int]:
    """The byte that each token begins at, and the text's bytes."""
    size = len(text.encode())
    lengths = _character_bytes(text) if unknown is not None and len(tokens) == len(text) else token_lengths[tokens]
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1])) if len(tokens) else np.zeros(0, np.int64)
    return np.minimum(starts, max(0, size - 1)), size


def _character_bytes(text: str) -> NDArray[np.int64]:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    lengths: NDArray[np.int64] = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    return lengths


def baseline_table(model: NGram, stream: Stream) -> Evaluation:
    """The n-gram model's evaluation in the same spans, per the same tokens: the nats of each span's characters."""
    nats = np.concatenate(model.score_documents(stream.texts, end=model.ends))
    starts: list[NDArray[np.int64]] = []
    offset = 0
    for text in stream.texts:
        lengths = _character_bytes(text)
        starts.append(offset + np.concatenate(([0], np.cumsum(lengths)[:-1])))
        offset += int(lengths.sum())
        if model.ends:
            starts.append(np.array([offset - 1]))
    size = span_size(offset)
    span = np.minimum(np.concatenate(starts) // size, stream.spans - 1)
    count = np.bincount(stream.span, minlength=stream.spans).astype(np.float64)
    return Evaluation(
        {
            "loss": np.bincount(span, weights=nats, minlength=stream.spans).astype(np.float64),
            "count": count,
            "bytes": stream.span_bytes,
            "block": np.arange(stream.spans, dtype=np.float64),
        }
    )


class ReadingOrder:
    """Which window of the training stream is example number `position`, for any position.

    Each epoch cuts the stream into windows of `context` tokens, from another offset, and shuffles them; all of
    it follows from (seed, epoch), so nothing needs to be saved but the position.
    """

    def __init__(self, tokens: int, context: int, setting: str = "model.context") -> None:
        self.context = context
        self.per_epoch = (tokens - 1) // context
        if self.per_epoch < 2:
            raise DataError(
                f"the training split has {tokens} tokens, less than two contexts of {context}; give more text or set "
                f"{setting} to {max(1, (tokens - 1) // 8)} or less"
            )
        self._slack = (tokens - 1) % context + (context if self.per_epoch > 2 else 0)
        if self.per_epoch > 2:
            self.per_epoch -= 1  # room for the offset
        self._epochs: dict[tuple[int, int], NDArray[np.int64]] = {}

    def starts(self, position: int, size: int, seed: int) -> NDArray[np.int64]:
        """Where examples `position` to `position + size` begin in the stream (shape: size)."""
        numbers = np.arange(position, position + size)
        epochs, places = np.divmod(numbers, self.per_epoch)
        if epochs[0] == epochs[-1]:
            return self._epoch(seed, int(epochs[0]))[places]
        return np.array([self._epoch(seed, int(e))[p] for e, p in zip(epochs, places, strict=True)])

    def _epoch(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if (seed, epoch) not in self._epochs:
            generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
            offset = generator.integers(0, self._slack + 1)
            order = generator.permutation(self.per_epoch)
            self._epochs = {key: value for key, value in self._epochs.items() if key[1] >= epoch - 1}
            self._epochs[seed, epoch] = order * self.context + offset
        return self._epochs[seed, epoch]
