"""A few prompts with the answer of the data and the model's own, for people to look at."""

from __future__ import annotations

from multistep.tasks.chat.conversation import Conversation, plain_prompt
from multistep.tasks.chat.template import ChatTemplate

SHOWN, MOST_ANSWER_TOKENS = 3, 48
MOST_SHOWN = 400  # characters of a prompt


def opening(conversation: Conversation) -> tuple[Conversation, str]:
    """A conversation up to the assistant's first turn, and that turn's text."""
    return exchanges(conversation)[0]


def exchanges(conversation: Conversation) -> list[tuple[Conversation, str]]:
    """Each turn of the assistant with the true history before it, in order, and that turn's text."""
    return [
        (Conversation(conversation.turns[:i], conversation.completion, conversation.where), turn.content)
        for i, turn in enumerate(conversation.turns)
        if turn.role == "assistant"
    ]


def prompt_tokens(prompt: Conversation, template: ChatTemplate) -> list[int]:
    """What a model reads before it answers: the very tokens that stand before the answer in training."""
    encode = template.tokenizer.backend_tokenizer.encode
    if template.given:
        text = template.render(prompt.turns, prompt.where, prompt=True)
        return list(encode(text, add_special_tokens=False).ids)
    ids = list(encode(plain_prompt(prompt.turns), add_special_tokens=True).ids)
    return ids[:-1] if ids and ids[-1] == template.tokenizer.eos_token_id else ids


def shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN // 2]} [...] {text[-MOST_SHOWN // 2 :]}"
