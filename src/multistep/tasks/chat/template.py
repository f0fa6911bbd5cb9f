"""How a conversation is written out for a model: by its tokenizer's own chat template, or by a stated default."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multistep.errors import DataError
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.hub import first_line

MARKS = ("<|im_start|>", "<|im_end|>")  # of ChatML; what learns its tokenizer from the texts has them as tokens
QUESTION, ANSWER = "Quousque tandem?", "Patientia nostra."  # what a template is asked with; no template holds these
# Some templates write today's date, and a run that is resumed tomorrow must read what it read today. This is the date
# that Llama's own template falls back on. A macro stands before what transformers defines under that name.
SAME_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"


@dataclass(frozen=True)
class Span:
    """A turn to be trained on, in characters: what the assistant writes, and where the next turn begins at the latest.

    `content_end` is where its own text ends; what closes the turn stands between that and `limit`.
    """

    start: int
    content_end: int
    limit: int


class ChatTemplate:
    """Writes conversations as one tokenizer (of transformers) asks for; `notes` says where that is not its own way."""

    def __init__(self, tokenizer: Any, conversations: Sequence[Conversation] = ()) -> None:
        """Without a template there is the default one, unless all there is are prompts and completions.

        The tokenizer that was given stays as it is: phases share it, and each is what it would be by itself.
        """
        self.tokenizer = copy.copy(tokenizer)
        self.notes: tuple[str, ...] = ()
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        marks = [token.content for token in added if token.special]
        end = _end(tokenizer)
        self.given = bool(tokenizer.chat_template)
        if not self.given and not all(conversation.completion for conversation in conversations):
            self.tokenizer.chat_template = default_template(end)
            marks += [MARKS[0], end]
            self.given = True
            self.notes = (
                f"the model has no chat template: turns are written as {MARKS[0]}role, a new line, the text, {end}, "
                "and the exported tokenizer says so",
            )
        elif not self.given:
            self.notes = ("the model has no chat template: prompt and completion are written one after the other",)
        # Longest first, or one that begins another would hide it.
        ordered = sorted({mark for mark in marks if mark}, key=len, reverse=True)
        any_mark = "|".join(map(re.escape, ordered)) or "$^"
        self._marks, self._closed = re.compile(any_mark), re.compile(rf"\s*(?:{any_mark})")

    def spells_marks(self, conversation: Conversation) -> bool:
        """Whether a turn's text would be read as the end of a turn, or as some other token of the model's own."""
        return any(self._marks.search(turn.content) for turn in conversation.turns)

    def render(self, turns: Sequence[Turn], where: str, *, prompt: bool = False) -> str:
        """The turns as one text; with `prompt` up to where the assistant's next turn begins. Raises DataError."""
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            template = self.tokenizer.get_chat_template()
            if "strftime_now" in template:
                template = SAME_DATE + template
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # templates raise what they like, of jinja2 or their own
            raise DataError(
                f"{where}: the model's chat template refuses this conversation ({first_line(error)}); change its "
                "turns, or use a model with another template"
            ) from error
        return str(text)

    def written(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """The whole conversation, and where the assistant's turns are in it.

        Found by writing out what stands before each turn: that must be how the whole begins, or nobody could say
        what the model will see when it answers. Raises DataError for a template where it is not.
        """
        turns, where = conversation.turns, conversation.where
        whole = self.render(turns, where)
        mine = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
        starts = []
        for i in mine:
            before = self.render(turns[:i], where, prompt=True)
            if not whole.startswith(before):
                raise DataError(
                    f"{where}: the model's chat template writes what stands before turn {i + 1} differently once that "
                    "turn is there, so that it cannot be told what to train on; use a model with another template, or "
                    "set data.train_on to all"
                )
            starts.append(len(before))
        spans = []
        for i, start, limit in zip(mine, starts, [*starts[1:], len(whole)], strict=True):
            content = turns[i].content
            at = self._find(content, whole, start, limit)
            if at < 0:
                content = content.strip()  # as many templates do
                at = self._find(content, whole, start, limit)
            if at < 0:
                raise DataError(
                    f"{where}: the model's chat template does not write turn {i + 1} as it stands; use a model with "
                    "another template, or set data.train_on to all"
                )
            spans.append(Span(start, at + len(content), limit))
        return whole, spans

    @functools.cached_property
    def opening(self) -> str:
        """What the template writes of an answer before its words, such as an empty thought; "" where nothing."""
        if not self.given:
            return ""
        ask = Turn("user", QUESTION)
        try:
            before, whole = self.render((ask,), "", prompt=True), self.render((ask, Turn("assistant", ANSWER)), "")
        except DataError:  # it asks for more than a question
            return ""
        return whole[len(before) :].partition(ANSWER)[0] if whole.startswith(before) and ANSWER in whole else ""

    def words_of(self, answer: str) -> str:
        """An answer without the thought that the template has before it, so that answer and reference are alike."""
        last = self.opening.split()[-1:]
        return answer.rpartition(last[0])[2] if last else answer

    def _find(self, content: str, whole: str, start: int, limit: int) -> int:
        """Where a turn's text stands; -1 if nowhere. First where a mark closes it: "<think>" holds an answer "t"."""
        first = at = whole.find(content, start, limit)
        while at >= 0:
            if self._closed.match(whole, at + len(content)):
                return at
            at = whole.find(content, at + 1, limit)
        return first


def tokens_around(tokenizer: Any, conversations: Sequence[Conversation]) -> int:
    """About how many tokens are written beside the words of a question and its answer, where there are such data."""
    template = ChatTemplate(tokenizer, conversations)
    if not template.given:
        return 1  # the end of text
    try:
        text = template.render((Turn("user", "?"), Turn("assistant", "!")), "a question and its answer")
    except DataError:  # it asks for more; whether the data have that is said where they are written
        return 0
    return len(template.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids) - 2


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template of its own."""
    return bool(tokenizer.chat_template)


def _end(tokenizer: Any) -> str:
    """The token that ends a turn of the default template."""
    return MARKS[1] if MARKS[1] in tokenizer.get_vocab() else str(tokenizer.eos_token or MARKS[1])


def default_template(end: str) -> str:
    """ChatML, with whatever token a model has that ends a text: https://huggingface.co/docs/transformers/chat_templating."""
    return (
        "{% for message in messages %}{{ '"
        + MARKS[0]
        + "' + message['role'] + '\\n' + message['content'] + '"
        + end
        + "\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '"
        + MARKS[0]
        + "assistant\\n' }}{% endif %}"
    )
