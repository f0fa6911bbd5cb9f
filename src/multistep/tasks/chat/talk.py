"""A model to talk to: turns in its chat template, answers while they are written, history within the context."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from multistep.backends.torch.devices import pick_device
from multistep.errors import DataError, PlanError
from multistep.tasks.chat.answers import prompt_tokens
from multistep.tasks.chat.conversation import Conversation, Turn, plain_prompt
from multistep.tasks.chat.ends import ends_of
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.folders import existing, read_task, task_of
from multistep.tasks.hub import quietly
from multistep.tasks.notes import say
from multistep.tasks.text.generate import Tokens, generate, settings_for
from multistep.tasks.text.models import load_transformers

Messages = Sequence[dict[str, str]]
OnText = Callable[[str], None]


@dataclass(frozen=True)
class Writer:
    """A causal model that is ready to write.

    `answers`: it was trained on conversations, or prompts and completions; `chats`: its turns are written in the
    tokenizer's chat template, else each prompt stands by itself.
    """

    name: str
    tokenizer: Any
    model: Any
    chats: bool
    context: int
    ends: tuple[int, ...]
    answers: bool = True

    @property
    def described(self) -> str:
        """What it is, in a line for people."""
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        how = "its chat template" if self.chats else "plain text"
        return f"{self.name}: {self.model.config.model_type}, {size:,.0f} million parameters, {how}"

    @functools.cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens that an answer follows: by the template, or as plain text. Raises DataError."""
        turns = tuple(Turn(message["role"], message["content"]) for message in messages)
        if self.chats:
            return prompt_tokens(Conversation(turns, where=self.name), self._template)
        tokens = [int(token) for token in self.tokenizer(plain_prompt(turns)).input_ids]
        if tokens and tokens[-1] in self.ends:  # some tokenizers close whatever they read
            tokens = tokens[:-1]
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        return tokens or [int(start or 0)]

    def decode(self, tokens: Tokens) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def answer(self, prompts: Sequence[Messages], *, tokens: int, temperature: float, seed: int) -> list[str]:
        """An answer to each, of at most `tokens`, without thoughts; of what is too long the end is read."""
        written = generate(
            self.model,
            [self.prompt(messages) for messages in prompts],
            ends=self.ends,
            most_new=tokens,
            context=self.context,
            temperature=temperature,
            seed=seed,
        )
        said = [self.decode(answer) for answer in written]
        return [self._template.words_of(answer).strip() for answer in said] if self.chats else said


def load_writer(model: str) -> Writer:
    """The writer of a run, a model folder or a hub id. Raises PlanError for what writes nothing."""
    folder = existing(model)
    task = task_of(folder)
    if task != "text-generation":
        raise PlanError(
            f"{model}: a model for {task}, which writes no text; use `multistep predict {model} ...` to ask it"
        )
    tokenizer, module = load_transformers(folder, "auto", whole=True)
    module.to(pick_device()).eval()
    config = module.config.get_text_config()
    # Ours says in multistep.json what it was trained on; elsewhere who has a template was trained with it.
    told = read_task(folder)
    template = bool(tokenizer.chat_template)
    answers = bool(told.get("conversations", template and "task" not in told))
    context = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 1024)
    return Writer(model, tokenizer, module, answers and template, context, ends_of(tokenizer, module), answers)


@dataclass
class Talk:
    """One conversation with a model. Not frozen: what was said is its state.

    `tokens` is the most that an answer has, `temperature` 0 takes the likeliest token, `seed` draws the same answers
    to the same turns again.
    """

    writer: Writer
    system: str | None = None
    temperature: float = 0.7
    tokens: int = 512
    seed: int = 0
    turns: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.system and not self.writer.chats:
            raise PlanError(f"{self.writer.name}: has no chat template, so there is no place for a system turn")

    def say(self, text: str, on_text: OnText = lambda piece: None) -> str:
        """The model's answer to a user's turn; `on_text` gets its pieces while it is written.

        Where an answer no longer fits behind all that was said, the oldest turns are left out, and that is told.
        Raises DataError for a turn that alone is too long for the context.
        """
        kept, prompt = self._within_context([*self.turns, {"role": "user", "content": text}])
        stream = Pieces(self.writer.tokenizer, on_text)
        room = min(self.tokens, self.writer.context - len(prompt))
        try:
            self._write(prompt, room, stream)
        finally:  # what was said before Ctrl-C was said
            answer = stream.end()
            self.turns = [*kept, {"role": "assistant", "content": answer}] if self.writer.chats else []
        return answer

    def reset(self) -> None:
        """Forget all that was said."""
        self.turns = []

    def _within_context(self, turns: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        context, spare = self.writer.context, min(self.tokens, self.writer.context // 4)
        dropped = 0
        while True:
            prompt = self.writer.prompt([*head, *turns[dropped:]])
            if len(prompt) + spare <= context:
                break
            if dropped + 1 == len(turns):
                if len(prompt) < context:
                    break
                raise DataError(
                    f"this turn has {len(prompt):,} tokens with what the template puts around it, and the model reads "
                    f"{context:,}; say it in fewer words"
                )
            dropped += 2  # a user's turn and its answer
        if dropped:
            say([f"the first {dropped // 2} turns and their answers are left out: the model reads {context:,} tokens"])
        return turns[dropped:], prompt

    def _write(self, prompt: list[int], room: int, stream: Pieces) -> None:
        model, ends = self.writer.model, self.writer.ends
        tokens_BT = torch.tensor([prompt], device=model.device)
        with torch.inference_mode(), torch.random.fork_rng(), quietly():
            torch.manual_seed(self.seed + len(self.turns))
            model.generate(
                tokens_BT,
                attention_mask=torch.ones_like(tokens_BT),
                generation_config=settings_for(ends, room, self.temperature),
                streamer=stream,
            )


class Pieces:
    """Gets tokens one by one and gives text as soon as its characters are whole. A streamer of transformers."""

    def __init__(self, tokenizer: Any, on_text: OnText) -> None:
        self._tokenizer, self._on_text = tokenizer, on_text
        self._tokens: list[int] = []
        self._said = ""
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._prompt:  # which comes first
            self._prompt = False
            return
        self._tokens += value.flatten().tolist()
        text = self._text()
        # A character of several bytes may be spread over several tokens.
        if not text.endswith("\ufffd"):
            self._tell(text)

    def end(self) -> str:
        """The whole text, once there is no more to come."""
        text = self._text()
        self._tell(text)
        return text

    def _text(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def _tell(self, text: str) -> None:
        if new := text[len(self._said) :]:
            self._on_text(new)
        self._said = text
