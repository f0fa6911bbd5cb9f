"""A few prompts with the answer of the data and the model's own, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multistep.tasks.chat.conversation import Conversation
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.text.models import Maker

SHOWN, MOST_ANSWER_TOKENS = 3, 48
MOST_SHOWN = 400  # characters of a prompt


def opening(conversation: Conversation) -> tuple[Conversation, str]:
    """A conversation up to the assistant's first turn, and that turn's text."""
    first = next(i for i, turn in enumerate(conversation.turns) if turn.role == "assistant")
    before = Conversation(conversation.turns[:first], conversation.completion, conversation.where)
    return before, conversation.turns[first].content


def prompt_tokens(prompt: Conversation, template: ChatTemplate) -> list[int]:
    """What a model reads before it answers: the very tokens that stand before the answer in training."""
    encode = template.tokenizer.backend_tokenizer.encode
    if template.given:
        text = template.render(prompt.turns, prompt.where, prompt=True)
        return list(encode(text, add_special_tokens=False).ids)
    ids = list(encode("".join(turn.content for turn in prompt.turns), add_special_tokens=True).ids)
    return ids[:-1] if ids and ids[-1] == template.tokenizer.eos_token_id else ids


def greedy_answer(
    maker: Maker, model: nn.Module, prompt: Sequence[int], *, ends: Sequence[int], most: int, context: int
) -> list[int]:
    """The likeliest token after another, up to one of `ends` or `most` tokens."""
    device = next(model.parameters()).device
    tokens_BT = torch.tensor([list(prompt)[-context:]], device=device)
    writing: Any = model
    if hasattr(writing, "generate"):
        given = tokens_BT.shape[1]
        out = writing.generate(
            tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            max_new_tokens=most,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=list(ends),
            pad_token_id=maker.end,
        )
        return [int(token) for token in out[0, given:] if int(token) not in ends]
    written: list[int] = []
    for _ in range(most):  # a small model from nothing, which keeps no keys and values
        logits: Tensor = maker.logits(model, tokens_BT[:, -context:])[0, -1]
        token = int(logits.argmax())
        if token in ends:
            break
        written.append(token)
        tokens_BT = torch.cat((tokens_BT, tokens_BT.new_tensor([[token]])), 1)
    return written


def shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN // 2]} [...] {text[-MOST_SHOWN // 2 :]}"
