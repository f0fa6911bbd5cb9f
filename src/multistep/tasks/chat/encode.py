"""Conversations -> tokens, with which of them are trained on, cut to a context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multistep.tasks.chat.conversation import Conversation, plain_prompt
from multistep.tasks.chat.template import ChatTemplate, Span

CHUNK = 512  # conversations that are written out and encoded at a time
TrainOn = Literal["assistant", "all"]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Encoded:
    """One conversation. `trained[i]`: token i is learnt, from those before it; never the first.

    `texts` is what the trained tokens spell, a piece for each turn; `closed` says of each whether the token that ends
    the turn is trained, too.
    """

    tokens: Ints
    trained: NDArray[np.bool_]
    texts: tuple[str, ...]
    closed: tuple[bool, ...]
    source: Conversation

    @property
    def length(self) -> int:
        """Places that it takes in a row: each token but the last is read, and foretells the next."""
        return len(self.tokens) - 1

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of what is trained on; tokens that close a turn have none."""
        return sum(len(text.encode()) for text in self.texts)


@dataclass(frozen=True)
class Written:
    """A conversation's tokens before they are cut: where each begins and ends in the text, and the turns in it."""

    source: Conversation
    text: str
    tokens: Ints
    offsets: Ints  # shape: tokens, 2
    spans: tuple[Span, ...]  # none where everything is trained on


def write_all(
    conversations: Sequence[Conversation], template: ChatTemplate, train_on: TrainOn
) -> tuple[list[Written], list[str]]:
    """All conversations as tokens, and what is to be said: those that spell out the model's own tokens are left out."""
    kept = [conversation for conversation in conversations if not template.spells_marks(conversation)]
    notes = []
    if len(kept) < len(conversations):
        first = next(conversation for conversation in conversations if template.spells_marks(conversation))
        notes.append(
            "conversations left out, since their text spells out a token that the model has for other ends: "
            f"{len(conversations) - len(kept):,} of {len(conversations):,} (first: {first.where})"
        )
    found: list[Written] = []
    for at in range(0, len(kept), CHUNK):
        found += _written(kept[at : at + CHUNK], template, train_on)
    return found, notes


def _written(conversations: Sequence[Conversation], template: ChatTemplate, train_on: TrainOn) -> list[Written]:
    encode = template.tokenizer.backend_tokenizer.encode_batch
    if not template.given:
        return _plain(conversations, template, train_on)
    if train_on == "all":
        texts = [template.render(conversation.turns, conversation.where) for conversation in conversations]
        spans: list[list[Span]] = [[] for _ in texts]
    else:
        pairs = [template.written(conversation) for conversation in conversations]
        texts, spans = [text for text, _ in pairs], [own for _, own in pairs]
    encodings = encode(texts, add_special_tokens=False)
    return [
        Written(conversation, text, *_arrays(encoding.ids, encoding.offsets), tuple(own))
        for conversation, text, own, encoding in zip(conversations, texts, spans, encodings, strict=True)
    ]


def _plain(conversations: Sequence[Conversation], template: ChatTemplate, train_on: TrainOn) -> list[Written]:
    """Prompt and completion one after the other, each encoded by itself: as whoever asks the model will have it."""
    tokenizer = template.tokenizer
    end = tokenizer.eos_token_id
    encode = tokenizer.backend_tokenizer.encode_batch
    prompts = [plain_prompt(conversation.turns) for conversation in conversations]
    answers = [c.answers[0] for c in conversations]
    found = []
    pairs = zip(encode(prompts, add_special_tokens=True), encode(answers, add_special_tokens=False), strict=True)
    for conversation, prompt, answer, (before, after) in zip(conversations, prompts, answers, pairs, strict=True):
        ids, offsets = list(before.ids), list(before.offsets)
        if ids and ids[-1] == end:  # some tokenizers close whatever they read
            ids, offsets = ids[:-1], offsets[:-1]
        begins, ends = len(prompt), len(prompt) + len(answer)
        offsets += [(a + begins, b + begins) for a, b in after.offsets]
        ids += after.ids
        if end is not None:
            ids, offsets = [*ids, end], [*offsets, (ends, ends)]
        spans = () if train_on == "all" else (Span(begins, ends, ends + 1),)
        found.append(Written(conversation, prompt + answer, *_arrays(ids, offsets), spans))
    return found


def _arrays(ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    return np.array(ids, np.int32), np.array(offsets, np.int32).reshape(len(ids), 2)


def special_tokens(tokenizer: Any) -> NDArray[np.int32]:
    """The ids of the tokens that are not text."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return np.array(sorted(i for i, token in added.items() if token.special), np.int32)


def cut(written: Iterable[Written], context: int, special: Ints) -> tuple[list[Encoded], list[str]]:
    """What fits into rows of `context` tokens: the beginning of each, and what is to be said of the rest.

    A conversation whose trained part lies wholly beyond the context is left out.
    """
    found: list[Encoded] = []
    shortened: list[str] = []
    beyond: list[str] = []
    unclosed: list[str] = []
    total = 0
    for one in written:
        total += 1
        trained, closed = _trained(one, special)
        size = min(len(one.tokens), context + 1)
        if not trained[:size].any():
            beyond.append(one.source.where)
            continue
        if size < len(one.tokens):
            shortened.append(one.source.where)
        elif not closed:
            unclosed.append(one.source.where)
        found.append(_encoded(one, trained, size, special))
    notes = []
    if shortened:
        notes.append(
            f"conversations longer than the context of {context:,} tokens, whose end is cut off: {len(shortened):,} of "
            f"{total:,} (first: {shortened[0]})"
        )
    if beyond:
        notes.append(
            f"conversations left out, since what is to be learnt of them begins beyond the context of {context:,} "
            f"tokens: {len(beyond):,} of {total:,} (first: {beyond[0]})"
        )
    if unclosed:
        notes.append("no token closes the assistant's turns as they are written, so the model learns no end of one")
    return found, notes


def _trained(one: Written, special: Ints) -> tuple[NDArray[np.bool_], bool]:
    """Which tokens are trained on, and whether every turn of them is closed by a token of its own."""
    trained = np.zeros(len(one.tokens), np.bool_)
    if not one.spans:
        trained[1:] = True
        return trained, True
    starts, ends = one.offsets[:, 0], one.offsets[:, 1]
    closed = True
    for span in one.spans:
        trained |= (starts >= span.start) & (ends <= span.content_end) & (starts < span.content_end)
        closing = np.flatnonzero(np.isin(one.tokens, special) & (starts >= span.content_end) & (starts < span.limit))
        if len(closing) and not one.text[span.content_end : starts[closing[0]]].strip():
            # What stands between, a space or a new line, must be written too before the turn is closed.
            trained[(starts >= span.start) & (np.arange(len(starts)) <= closing[0]) & (ends <= ends[closing[0]])] = True
        else:
            closed = False
    trained[0] = False
    return trained, closed


def _encoded(one: Written, trained: NDArray[np.bool_], size: int, special: Ints) -> Encoded:
    """The first `size` tokens, and the text that the trained ones among them spell."""
    tokens, trained = one.tokens[:size], trained[:size]
    spelt = trained & ~np.isin(tokens, special)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], spelt, [False])).astype(np.int8)))
    texts, closed = [], []
    starts = [span.start for span in one.spans]
    for first, last in zip(edges[::2], edges[1::2] - 1, strict=True):
        begin = int(one.offsets[first, 0])
        # Offsets of some tokenizers leave out the space that a token begins with.
        before = int(one.offsets[first - 1, 1]) if first else 0
        begin = max([before, *(start for start in starts if start <= begin)])
        texts.append(one.text[begin : int(one.offsets[last, 1])])
        closed.append(bool(last + 1 < size and trained[last + 1]))
    return Encoded(tokens, trained, tuple(texts), tuple(closed), one.source)
