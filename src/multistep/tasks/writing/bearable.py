"""Held-out splits of a size that a budget bears to have scored with a large model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from multistep.tasks.chat.conversation import Conversation
from multistep.tasks.chat.load import ChatSplits
from multistep.tasks.order import sample_of
from multistep.tasks.preference.load import PairSplits
from multistep.tasks.preference.pairs import Pair
from multistep.tasks.text.splits import TextSplits

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Splits = TypeVar("Splits", bound=TextSplits | ChatSplits)
LEAST = 16  # conversations that stay; of fewer nobody could say anything, and what is too long is cut or left out
LOOKED_AT = 20_000  # characters, for how many of them a token has


def bearable(splits: Splits, most: Callable[[str], int | None], tokenizer: Tokenizer, around: int = 0) -> Splits:
    """The splits with as many tokens of the held-out ones as `most` says for each, and a note on what was left out.

    Of a running text the beginning stays, of documents and conversations some that are drawn by lot, always the same.
    `around` are tokens that a chat template writes beside the text of each.
    """
    for name in ("validation", "test"):
        parts: Sequence[str | Conversation] = getattr(splits, name)
        limit = most(name)
        sizes = [len(text) for text in map(_text, parts)]
        if limit is None or not sizes:
            continue
        tokens = sum(sizes) / _characters_per_token([_text(part) for part in parts], tokenizer) + around * len(parts)
        if (share := limit / max(1.0, tokens)) >= 1:
            continue
        if len(parts) == 1 and isinstance(text := parts[0], str):
            kept: tuple[str | Conversation, ...] = (text[: int(share * len(text))],)
            what = f"the first {len(_text(kept[0])):,} of {len(text):,} characters are"
        else:
            least = LEAST if isinstance(parts[0], Conversation) else 1
            if len(parts) <= least:
                continue
            chosen = sample_of(len(parts), max(least, round(share * len(parts))))
            kept = tuple(parts[i] for i in chosen.tolist())
            what = f"{len(kept):,} of {len(parts):,}, drawn by lot, are"
        note = f"{name}: {what} scored, since the budget bears no more; `multistep evaluate` scores all"
        mark = f"{splits.fingerprint}-{len(kept)}-{sum(len(_text(part)) for part in kept)}"
        splits = replace(splits, **{name: kept}, fingerprint=mark, notes=(*splits.notes, note))  # type: ignore[arg-type]
    return splits


def bearable_pairs(
    splits: PairSplits, most: Callable[[str], int | None], tokenizer: Tokenizer, around: int = 0
) -> PairSplits:
    """The splits with as many pairs as `most` says tokens for each, and notes on what was left out.

    All pairs, those of train too, are scored once with the weights that the phase begins with before its first step:
    more than a budget can train on would only take its time.
    """
    for name in ("train", "validation", "test"):
        pairs: Sequence[Pair] = getattr(splits, name)
        limit = most(name)
        if limit is None or len(pairs) <= LEAST:
            continue
        texts = [f"{_text(pair.chosen)}\n{_text(pair.rejected)}" for pair in pairs]
        tokens = sum(map(len, texts)) / _characters_per_token(texts, tokenizer) + 2 * around * len(texts)
        if (share := limit / max(1.0, tokens)) >= 1:
            continue
        chosen = sample_of(len(pairs), max(LEAST, round(share * len(pairs))))
        what = "are learnt from, since the budget bears no more to be scored with the weights that it begins with"
        if name != "train":
            what = "are scored, since the budget bears no more"
        note = f"{name}: {len(chosen):,} of {len(pairs):,} pairs, drawn by lot, {what}"
        kept = tuple(pairs[i] for i in chosen.tolist())
        mark = f"{splits.fingerprint}-{name}-{len(kept)}"
        splits = replace(splits, **{name: kept}, fingerprint=mark, notes=(*splits.notes, note))
    return splits


def _text(part: str | Conversation) -> str:
    return part if isinstance(part, str) else "\n".join(turn.content for turn in part.turns)


def _characters_per_token(texts: Sequence[str], tokenizer: Tokenizer) -> float:
    some = "\n".join(texts)[:LOOKED_AT]
    return len(some) / max(1, len(tokenizer.encode(some).ids))
