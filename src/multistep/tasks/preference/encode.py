"""Pairs -> tokens of both answers, each after the prompt as the model's own template writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from multistep.tasks.chat.encode import Encoded, Written, cut, special_tokens, write_all
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.preference.pairs import Pair


@dataclass(frozen=True)
class EncodedPair:
    """Both conversations, of which the answers alone are `trained`."""

    chosen: Encoded
    rejected: Encoded
    source: Pair

    @property
    def length(self) -> int:
        """Of the longer one."""
        return max(self.chosen.length, self.rejected.length)


@dataclass(frozen=True)
class WrittenPair:
    """Both conversations as tokens, before it is known what fits."""

    chosen: Written
    rejected: Written
    source: Pair

    @property
    def length(self) -> int:
        return max(len(self.chosen.tokens), len(self.rejected.tokens)) - 1


def write_pairs(pairs: Sequence[Pair], template: ChatTemplate) -> tuple[list[WrittenPair], list[str]]:
    """All pairs as tokens, and what is to be said: those that spell out the model's own tokens are left out."""
    spelt = [any(map(template.spells_marks, (pair.chosen, pair.rejected))) for pair in pairs]
    kept = [pair for pair, out in zip(pairs, spelt, strict=True) if not out]
    notes = []
    if any(spelt):
        notes.append(
            "pairs left out, since their text spells out a token that the model has for other ends: "
            f"{sum(spelt):,} of {len(pairs):,} (first: {pairs[spelt.index(True)].where})"
        )
    both = [write_all([getattr(pair, side) for pair in kept], template, "assistant")[0] for side in SIDES]
    return [
        WrittenPair(_answer_alone(chosen, pair), _answer_alone(rejected, pair), pair)
        for chosen, rejected, pair in zip(*both, kept, strict=True)
    ], notes


SIDES = ("chosen", "rejected")


def _answer_alone(written: Written, pair: Pair) -> Written:
    """What counts is what follows the shared turns: earlier turns of the assistant are a part of the prompt."""
    earlier = sum(turn.role == "assistant" for turn in pair.prompt)
    return replace(written, spans=written.spans[earlier:])


def fit_pairs(
    written: Sequence[WrittenPair], context: int, template: ChatTemplate
) -> tuple[list[EncodedPair], list[str]]:
    """The pairs of which both conversations fit into `context` whole, and what is to be said of the others.

    An answer that is cut off would be judged by its beginning, and the longer of two answers lose more of itself.
    """
    special = special_tokens(template.tokenizer)
    fitting = [one for one in written if one.length <= context]
    found, alike, empty = list[EncodedPair](), list[str](), list[str]()
    for one in fitting:
        encoded = [cut([side], context, special)[0] for side in (one.chosen, one.rejected)]
        if not all(encoded):
            empty.append(one.source.where)
            continue
        chosen, rejected = (both[0] for both in encoded)
        if np.array_equal(chosen.tokens, rejected.tokens):
            alike.append(one.source.where)
            continue
        found.append(EncodedPair(chosen, rejected, one.source))
    notes = []
    if len(fitting) < len(written):
        first = next(one.source.where for one in written if one.length > context)
        notes.append(
            f"pairs left out, since an answer does not fit into the context of {context:,} tokens: "
            f"{len(written) - len(fitting):,} of {len(written):,} (first: {first})"
        )
    for rows, why in ((alike, "both answers are the same tokens"), (empty, "no token of an answer counts")):
        if rows:
            notes.append(f"pairs left out, since {why}: {len(rows):,} of {len(written):,} (first: {rows[0]})")
    return found, notes
