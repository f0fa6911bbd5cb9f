"""Answers under the metric that a phase is judged by: written or compared for it alone, since that takes time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from multistep.core.evidence.metric import Floats
from multistep.tasks.chat.answers import exchanges, prompt_tokens
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.fixed import answer_columns, fixed_answers, right_answers, score_answers
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.text.generate import generate, room_for

WRITTEN = ("exact_match", "token_f1", "rouge_l")  # metrics of answers that are written out
COMPARED = "answer_accuracy"  # of fixed answers


@dataclass(frozen=True)
class Judge:
    """Each turn of the assistant is a reference, and the true history before it its prompt, whatever would be answered.

    `metric` is what decides, `ends` are the tokens that end an answer, `context` what the model reads at most.
    `usual` is the answer that training rows have most often, `fixed` are all, where there are but a few.
    """

    metric: str | None
    template: ChatTemplate
    ends: tuple[int, ...]
    context: int
    usual: str
    fixed: tuple[str, ...] | None

    @classmethod
    def of(
        cls,
        metric: str | None,
        template: ChatTemplate,
        ends: Sequence[int],
        context: int,
        train: Sequence[Conversation],
    ) -> Judge:
        answers = [answer for conversation in train for answer in conversation.answers]
        usual = Counter(answers).most_common(1)[0][0]
        return cls(metric, template, tuple(ends), context, usual, fixed_answers(answers))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What answers can be judged by here."""
        return (*WRITTEN, *((COMPARED,) if self.fixed else ()))

    @property
    def wanted(self) -> bool:
        """Whether the metric asks for answers."""
        return self.metric in (*WRITTEN, COMPARED)

    @property
    def record(self) -> dict[str, Any]:
        """What scoring other data takes beside the model, in values that a file can hold."""
        fixed = list(self.fixed) if self.fixed else None
        own = {"metric": self.metric, "ends": list(self.ends), "context": self.context, "usual": self.usual}
        return {"judge": {**own, "fixed": fixed}} if self.wanted else {}

    @classmethod
    def recorded(cls, record: Mapping[str, Any], template: ChatTemplate) -> Judge | None:
        """The judge of a finished model; None where the loss decided."""
        if "judge" not in record:
            return None
        own = record["judge"]
        fixed = tuple(own["fixed"]) if own["fixed"] else None
        return cls(own["metric"], template, tuple(own["ends"]), own["context"], own["usual"], fixed)

    def columns(self, model: nn.Module, conversations: Sequence[Conversation]) -> dict[str, Floats]:
        """The columns of an evaluation, one row for each turn of the assistant; none where the loss decides."""
        if not self.wanted:
            return {}
        pairs = [pair for conversation in conversations for pair in exchanges(conversation)]
        references = [reference for _, reference in pairs]
        if self.metric in WRITTEN:
            written = self.write(model, [p for p, _ in pairs], self.room(references))
            return answer_columns(written, [self.template.words_of(reference) for reference in references])
        assert self.fixed is not None, "the metric is offered where answers are fixed"
        prompts = [prompt_tokens(prompt, self.template) for prompt, _ in pairs]
        tokens = [self._answer_tokens(answer, pairs[0][0]) for answer in self.fixed]
        nats = score_answers(model, prompts, tokens, context=self.context)
        return {"right_answer": right_answers(nats, self.fixed, references)}

    def usual_columns(self, conversations: Sequence[Conversation]) -> dict[str, Floats]:
        """The same of a trivial model, that always gives the usual answer."""
        references = [answer for conversation in conversations for answer in conversation.answers]
        if self.metric == COMPARED:
            right = [float(reference.strip() == self.usual.strip()) for reference in references]
            return {"right_answer": np.array(right)}
        if not self.wanted:
            return {}
        usual, *wanted = map(self.template.words_of, (self.usual, *references))
        return answer_columns([usual] * len(wanted), wanted)

    def room(self, references: Sequence[str]) -> int:
        """How many tokens an answer may have: `room_for` these references and what the template has before them."""
        encode = self.template.tokenizer.backend_tokenizer.encode_batch
        texts = [self.template.opening + reference for reference in references]
        return room_for([encoding.ids for encoding in encode(texts, add_special_tokens=False)])

    def write(self, model: nn.Module, prompts: Sequence[Conversation], most_new: int) -> list[str]:
        """The model's greedy answers."""
        tokens = [prompt_tokens(prompt, self.template) for prompt in prompts]
        written = generate(model, tokens, ends=self.ends, most_new=most_new, context=self.context)
        said = [str(self.template.tokenizer.decode(answer, skip_special_tokens=True)) for answer in written]
        return [self.template.words_of(answer).strip() for answer in said]

    def _answer_tokens(self, answer: str, prompt: Conversation) -> list[int]:
        """What the model has to write for this answer, up to the token that ends it."""
        tokenizer = self.template.tokenizer
        encode = tokenizer.backend_tokenizer.encode
        if not self.template.given:
            end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
            return [*encode(answer, add_special_tokens=False).ids, *end]
        before = self.template.render(prompt.turns, prompt.where, prompt=True)
        whole = self.template.render((*prompt.turns, Turn("assistant", answer)), prompt.where)
        # Encoded behind the prompt, as in training: some tokenizers begin whatever they read with a space.
        read, begin = encode(whole, add_special_tokens=False), len(before)
        tokens = [token for token, (start, _) in zip(read.ids, read.offsets, strict=True) if start >= begin]
        if any(start < begin < end for start, end in read.offsets):  # no token of the prompt reaches into an answer
            tokens = list(encode(whole[begin:], add_special_tokens=False).ids)
        closed = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        return tokens[: closed + 1]
