"""The tokens that end an answer."""

from __future__ import annotations

from typing import Any

from multistep.tasks.chat.template import ANSWER, QUESTION


def ends_of(tokenizer: Any, model: Any = None) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's, those of the model's generation settings, the chat template's.

    `tokenizer` is one of `transformers`. Templates end a turn with a token of their own as often as not.
    """
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named]), end_of_turn(tokenizer)]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def end_of_turn(tokenizer: Any) -> int | None:
    """The special token that the chat template writes after an assistant's words; None where it writes no such."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # a template may raise what it likes, and be of another language than it is used for
        return None
    behind = tokenizer(text.rpartition(ANSWER)[2], add_special_tokens=False).input_ids
    return int(behind[0]) if behind and behind[0] in set(tokenizer.all_special_ids) | _added(tokenizer) else None


def _added(tokenizer: Any) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
