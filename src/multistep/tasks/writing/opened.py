"""A phase's texts, conversations or pairs, made ready for the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.core.values.recipe import Setting
from multistep.core.values.tasks import TASKS
from multistep.engine.learner import TEXT_METRICS
from multistep.tasks.chat.conversation import Conversation
from multistep.tasks.chat.load import ChatSplits
from multistep.tasks.chat.task import ChatDomain
from multistep.tasks.preference.load import PairSplits
from multistep.tasks.preference.preset import PAIRS
from multistep.tasks.preference.task import METRICS as PREFERENCE_METRICS
from multistep.tasks.preference.task import TASK as PREFERENCE
from multistep.tasks.preference.task import PreferenceDomain
from multistep.tasks.text.corpus import LongTexts
from multistep.tasks.text.models import Maker
from multistep.tasks.text.ngram import counted_of_long
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.stream import Stream
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tuning import BATCH_SIZE

USAGE = """from transformers import pipeline
generate = pipeline("text-generation", {model})
print(generate("Once", max_new_tokens=100)[0]["generated_text"])"""
CHAT_USAGE = """from transformers import pipeline
chat = pipeline("text-generation", {model})
answer = chat([{"role": "user", "content": "Hello!"}], max_new_tokens=100)
print(answer[0]["generated_text"][-1])"""
LEAST_STEPS = 16  # in an epoch of conversations, where there are as many rows


@dataclass(frozen=True)
class Opened:
    """A phase's data, made ready for the model."""

    domain: TextDomain | ChatDomain | PreferenceDomain
    given: Mapping[str, Setting]  # the recipe as far as plan and data settle it
    most_examples: int  # a step
    settings: tuple[str, ...]
    examples: int  # an epoch
    tokens: int  # an epoch
    tokens_per_example: int
    sample_tokens: int
    held_out_tokens: Mapping[str, int]
    closing_tokens: int  # see Facts
    notes: tuple[str, ...]
    usage: str
    fingerprint: str
    metrics: tuple[str, ...] = TEXT_METRICS
    loss_unit: str = "nats per token"


def open_text(
    splits: TextSplits,
    maker: Maker,
    given: Mapping[str, Setting],
    seconds: float | None = None,
    shown: int | None = None,
) -> Opened:
    """Running text, for a plan that has so many seconds (None: not told in time)."""
    context = given.get("context")
    counted = counted_of_long(seconds)
    domain = TextDomain(splits, maker, context if isinstance(context, int) else None, counted=counted, shown=shown)
    notes = splits.notes
    if isinstance(splits.train, LongTexts) and splits.train.characters > counted:
        of = f"the first {counted / 1e6:,.1f} of {splits.train.characters / 1e6:,.1f} million characters"
        notes = (
            *notes,
            f"the n-gram baseline is counted from {of}: all would take more than 2% of the time or a gigabyte",
        )
    return Opened(
        domain=domain,
        given=given,
        most_examples=BATCH_SIZE,
        settings=domain.settings,
        examples=domain.order.per_epoch,
        tokens=len(domain.train),
        tokens_per_example=domain.context,
        sample_tokens=_tokens(domain.held_out["validation"], sample=True),
        held_out_tokens={name: _tokens(stream) for name, stream in domain.held_out.items()},
        closing_tokens=domain.closing_tokens,
        notes=notes,
        usage=USAGE,
        fingerprint=splits.fingerprint,
    )


def open_chat(
    splits: ChatSplits,
    maker: Maker,
    given: Mapping[str, Setting],
    data: DataSpec,
    wanted: int | None,
    metric: str | None,
    shown: int | None = None,
) -> Opened:
    context = given.get("context", wanted)
    domain = ChatDomain(splits, maker, data.train_on, context if isinstance(context, int) else None, metric, shown)
    tokens = sum(example.length for example in domain.train)
    sample = domain.sampled("validation", sample=True)
    template = str(domain.template.tokenizer.chat_template)
    how = hashlib.blake2b(f"{data.train_on}\0{template}\0{domain.context}".encode(), digest_size=8).hexdigest()
    return Opened(
        domain=domain,
        given={**given, "context": domain.context},
        # Packed, a few hundred conversations are a few rows, of which a step must not take all.
        most_examples=max(1, min(BATCH_SIZE, domain.order.per_epoch // LEAST_STEPS)),
        settings=domain.settings,
        examples=domain.order.per_epoch,
        tokens=tokens,
        tokens_per_example=max(1, round(tokens / domain.order.per_epoch)),
        sample_tokens=sum(domain.held_out["validation"][int(i)].length for i in sample),
        held_out_tokens={name: sum(e.length for e in part) for name, part in domain.held_out.items()},
        closing_tokens=domain.closing_tokens,
        notes=domain.notes,
        usage=CHAT_USAGE if domain.template.given else USAGE,
        fingerprint=f"{splits.fingerprint}-{how}",
        metrics=(*Opened.metrics, *domain.judge.metrics),
    )


def open_pairs(
    splits: PairSplits,
    maker: Maker,
    given: Mapping[str, Setting],
    wanted: int | None,
    earlier: Sequence[Conversation],
    should_stop: Callable[[], bool],
) -> Opened:
    context = given.get("context", wanted)
    domain = PreferenceDomain(splits, maker, context if isinstance(context, int) else None, earlier, should_stop)
    template = str(domain.template.tokenizer.chat_template)
    how = hashlib.blake2b(f"{template}\0{domain.context}".encode(), digest_size=8).hexdigest()
    return Opened(
        domain=domain,
        given={**given, "context": domain.context},
        most_examples=PAIRS,
        settings=domain.settings,
        examples=len(domain.train),
        tokens=sum(pair.chosen.length + pair.rejected.length for pair in domain.train),
        tokens_per_example=1,  # a pair counts once in the loss
        sample_tokens=sum(map(len, domain.scored("validation", sample=True))),
        held_out_tokens={name: len(pairs) for name, pairs in domain.held_out.items()},
        closing_tokens=sum(map(len, domain.scored("validation", sample=True))),  # of which some are shown
        notes=domain.notes,
        usage=CHAT_USAGE if domain.template.given else USAGE,
        fingerprint=f"{splits.fingerprint}-{how}",
        metrics=PREFERENCE_METRICS,
        loss_unit=TASKS[PREFERENCE].loss_unit,
    )


def _tokens(stream: Stream, *, sample: bool = False) -> int:
    if not sample:
        return len(stream.tokens)
    return int(np.isin(stream.span, stream.sample_spans()).sum()) if len(stream.tokens) else 0
