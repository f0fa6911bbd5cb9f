"""Text generation: opens its phases, over running text or conversations, which share one model with its tokenizer."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from multistep.backends.torch.learner import TorchLearner, pick_device
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.evidence.metric import metric_named
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe, Setting
from multistep.core.values.tasks import TASKS
from multistep.core.values.trial import Facts
from multistep.engine.learner import TEXT_METRICS, GuardReady, Learner, Readiness
from multistep.errors import DataError, PlanError
from multistep.tasks.bearable import bearable
from multistep.tasks.chat.conversation import ROLES, Conversation
from multistep.tasks.chat.load import ChatSplits, holds_conversations, load_conversations
from multistep.tasks.chat.task import ChatDomain
from multistep.tasks.chat.template import MARKS, has_template, tokens_around
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.preference.load import PairSplits, holds_pairs, load_pairs
from multistep.tasks.preference.preset import PAIRS, preference_recipe
from multistep.tasks.preference.task import METRICS as PREFERENCE_METRICS
from multistep.tasks.preference.task import TASK as PREFERENCE
from multistep.tasks.preference.task import PreferenceDomain
from multistep.tasks.pretrained.choose import Need
from multistep.tasks.pretrained.script import kind_of
from multistep.tasks.pretrained.settle import Settled, operations, seconds_of, settle
from multistep.tasks.text.models import Maker, load_model, make_preset
from multistep.tasks.text.preset import PRESETS, TextFacts, choose_preset, default_recipe, expected_epochs
from multistep.tasks.text.splits import TextSplits, load_splits
from multistep.tasks.text.stream import Stream
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tuning import BATCH_SIZE, adapts, bears_all, most_scored, tuned_recipe

USAGE = """from transformers import pipeline
generate = pipeline("text-generation", {model})
print(generate("Once", max_new_tokens=100)[0]["generated_text"])"""
CHAT_USAGE = """from transformers import pipeline
chat = pipeline("text-generation", {model})
answer = chat([{"role": "user", "content": "Hello!"}], max_new_tokens=100)
print(answer[0]["generated_text"][-1])"""
CHARACTERS_A_TOKEN = 4.0  # about
LEAST_TOKENS = 25_000  # that tuning a language model must be able to read: some fifty steps of 512
GUARD_TRAIN, GUARD_TRAIN_CHARACTERS = 2000, 1_000_000  # conversations or characters, for what follows from lengths
CHAT_CONTEXT = 512  # of a model from nothing, whose positions end somewhere; rows are as long as conversations ask for
LEAST_STEPS = 16  # in an epoch of conversations, where there are as many rows


@dataclass(frozen=True)
class _Opened:
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
    notes: tuple[str, ...]
    usage: str
    fingerprint: str
    metrics: tuple[str, ...] = TEXT_METRICS
    loss_unit: str = "nats per token"


class TextWorkshop:
    """Opens the phases of a text-generation plan. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._maker: Maker | None = None
        self._settled = Settled((), left_open=False)  # the plan's model, once what `auto` comes to is known

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        data = plan.phase(phase).data
        assert data is not None, "a plan has data"
        task = str(plan.phase(phase).task)
        splits = _splits(data, task)
        if self._maker is None:
            self._settled = settle(plan, lambda: _need(plan, splits))
            self._maker = _make(self._settled.applied(plan), splits if plan.phase_count == 1 else None)
        maker = self._maker
        device = pick_device()
        parameters = sum(p.numel() for p in maker.build(plan.seed).parameters())
        if maker.pretrained and not isinstance(splits, PairSplits):
            most = functools.partial(most_scored, plan, parameters=parameters, device=device)
            around = tokens_around(maker.hub_tokenizer) if isinstance(splits, ChatSplits) else 0
            splits = bearable(splits, most, maker.tokenizer, around)
        given = dict(plan.phase(phase).recipe)
        match splits:
            case TextSplits():
                opened = _open_text(splits, maker, given)
            case ChatSplits():
                opened = _open_chat(splits, maker, given, data, plan.model.context, _metric(plan, phase))
            case _:
                _require_knowing(plan, phase, maker)
                earlier = () if has_template(maker.hub_tokenizer) else _earlier(plan, phase)
                opened = _open_pairs(splits, maker, given, plan.model.context, earlier, should_stop)
        guard = self._guard(plan, phase)
        recipe = _recipe(plan, opened, maker, parameters, device)
        raced = plan.phase_count == 1 and maker.pretrained and not {"adapter", "frozen"} & given.keys()
        rivals = _rivals(recipe, plan, opened, maker, parameters, device) if raced else ()
        facts = Facts(
            parameters=parameters,
            train_examples=opened.examples,
            tokens_per_example=opened.tokens_per_example,
            sample_tokens=opened.sample_tokens,
            validation_tokens=opened.held_out_tokens["validation"],
            test_tokens=opened.held_out_tokens["test"],
            pretrained=maker.pretrained or task == PREFERENCE,  # which begins with what an earlier phase has learnt
            device=device_name(device),
            description=maker.description,
            notes=(*self._settled.notes, *opened.notes),
            settings=opened.settings,
            longest_context=maker.longest_context,
            optimizers=usable_optimizers(),
            usage=opened.usage,
            able=maker.pretrained or task == PREFERENCE,
            rivals=rivals,
            loss_unit=opened.loss_unit,
        )
        # The tokenizer may be learnt from other phases' texts, which must not change under a resumed run either.
        tokens = hashlib.blake2b(maker.tokenizer.to_str().encode(), digest_size=8).hexdigest()
        rate_open = "learning_rate" not in given and not facts.pretrained
        keeps = GuardReady(f"{guard.fingerprint}-{tokens}", guard.metrics, guard.loss_unit) if guard else None
        mark = f"{opened.fingerprint}-{tokens}"
        ready = Readiness(facts, recipe, rate_open, mark, opened.metrics, self._settled.record, keeps)
        return TorchLearner(
            opened.domain,
            should_stop,
            device,
            lambda: maker.at_once(opened.domain.context),
            (guard.domain, guard.domain.context) if guard else None,
            opened.domain if isinstance(opened.domain, PreferenceDomain) else None,
        ), ready

    def _guard(self, plan: Plan, phase: int) -> _Opened | None:
        """What the phase must not forget, read as by a phase that trains on it: only its validation part is scored."""
        guard = plan.phase(phase).guard
        if guard is None:
            return None
        assert self._maker is not None, "the model comes first"
        splits = _splits(guard.data)
        if isinstance(splits, TextSplits):
            return _open_text(_shortened(splits), self._maker, {})
        assert isinstance(splits, ChatSplits), "a guard is text or conversations"
        few = replace(splits, train=splits.train[:GUARD_TRAIN])
        metric = metric_named(guard.metric).name if guard.metric else None
        return _open_chat(few, self._maker, {}, guard.data, None, metric)

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "tokenizers", "safetensors", "numpy")


def _rivals(
    own: Recipe, plan: Plan, opened: _Opened, maker: Maker, parameters: int, device: torch.device
) -> tuple[Recipe, ...]:
    """The same model with adapters where all of it is trained, and the other way round where memory bears it."""
    if not adapts(maker.origin) or (own.adapter != "none" and not bears_all(parameters, device)):
        return ()
    adapter = "lora" if own.adapter == "none" else "none"
    other = replace(opened, given={**opened.given, "adapter": adapter})
    return (_recipe(plan, other, maker, parameters, device),)


def _recipe(plan: Plan, opened: _Opened, maker: Maker, parameters: int, device: torch.device) -> Recipe:
    prefers = isinstance(opened.domain, PreferenceDomain)
    if maker.pretrained or prefers:
        tuned = tuned_recipe(
            opened.given,
            plan,
            parameters=parameters,
            own_dropout=maker.own_dropout,
            adapts=adapts(maker.origin),
            tokens_per_example=max(1, round(opened.tokens / opened.examples)) if prefers else opened.tokens_per_example,
            train_tokens=opened.tokens,
            device=device,
            most_examples=opened.most_examples,
        )
        return preference_recipe(tuned, opened.given) if prefers else tuned
    cores = torch.get_num_threads()
    epochs = expected_epochs(plan, parameters=parameters, tokens=opened.tokens, device=device.type, cores=cores)
    given = {"batch_size": opened.most_examples, **opened.given}
    return default_recipe(given, architecture=maker.architecture, epochs=epochs, vocabulary=maker.vocabulary)


def _open_text(splits: TextSplits, maker: Maker, given: Mapping[str, Setting]) -> _Opened:
    context = given.get("context")
    domain = TextDomain(splits, maker, context if isinstance(context, int) else None)
    return _Opened(
        domain=domain,
        given=given,
        most_examples=BATCH_SIZE,
        settings=domain.settings,
        examples=domain.order.per_epoch,
        tokens=len(domain.train.tokens),
        tokens_per_example=domain.context,
        sample_tokens=_tokens(domain.held_out["validation"], sample=True),
        held_out_tokens={name: _tokens(stream) for name, stream in domain.held_out.items()},
        notes=splits.notes,
        usage=USAGE,
        fingerprint=splits.fingerprint,
    )


def _open_chat(
    splits: ChatSplits,
    maker: Maker,
    given: Mapping[str, Setting],
    data: DataSpec,
    wanted: int | None,
    metric: str | None,
) -> _Opened:
    context = given.get("context", wanted)
    domain = ChatDomain(splits, maker, data.train_on, context if isinstance(context, int) else None, metric)
    tokens = sum(example.length for example in domain.train)
    sample = domain.sampled("validation", sample=True)
    template = str(domain.template.tokenizer.chat_template)
    how = hashlib.blake2b(f"{data.train_on}\0{template}\0{domain.context}".encode(), digest_size=8).hexdigest()
    return _Opened(
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
        notes=domain.notes,
        usage=CHAT_USAGE if domain.template.given else USAGE,
        fingerprint=f"{splits.fingerprint}-{how}",
        metrics=(*_Opened.metrics, *domain.judge.metrics),
    )


def _metric(plan: Plan, phase: int) -> str | None:
    """The name of what decides a phase, if it says."""
    name = plan.phase(phase).metric
    return metric_named(name).name if name else None


def _open_pairs(
    splits: PairSplits,
    maker: Maker,
    given: Mapping[str, Setting],
    wanted: int | None,
    earlier: Sequence[Conversation],
    should_stop: Callable[[], bool],
) -> _Opened:
    context = given.get("context", wanted)
    domain = PreferenceDomain(splits, maker, context if isinstance(context, int) else None, earlier, should_stop)
    template = str(domain.template.tokenizer.chat_template)
    how = hashlib.blake2b(f"{template}\0{domain.context}".encode(), digest_size=8).hexdigest()
    return _Opened(
        domain=domain,
        given={**given, "context": domain.context},
        most_examples=PAIRS,
        settings=domain.settings,
        examples=len(domain.train),
        tokens=sum(pair.chosen.length + pair.rejected.length for pair in domain.train),
        tokens_per_example=1,  # a pair counts once in the loss
        sample_tokens=sum(map(len, domain.scored("validation", sample=True))),
        held_out_tokens={name: len(pairs) for name, pairs in domain.held_out.items()},
        notes=domain.notes,
        usage=CHAT_USAGE if domain.template.given else USAGE,
        fingerprint=f"{splits.fingerprint}-{how}",
        metrics=PREFERENCE_METRICS,
        loss_unit=TASKS[PREFERENCE].loss_unit,
    )


def _earlier(plan: Plan, phase: int) -> tuple[Conversation, ...]:
    """What earlier phases learnt turns from: preferences are written as those were, also where a run is resumed."""
    data = [plan.phase(i).data for i in range(phase) if plan.phase(i).task != PREFERENCE]
    parts = [_splits(source) for source in dict.fromkeys(data) if source]
    return tuple(conversation for part in parts if isinstance(part, ChatSplits) for conversation in part.train)


def _require_knowing(plan: Plan, phase: int, maker: Maker) -> None:
    """Raises PlanError where a preference would be taught to a model that cannot write yet."""
    if phase == 0 and not maker.pretrained:
        raise PlanError(
            f"phase '{plan.phase(phase).name}': a preference between answers is taught to a model that writes them; "
            "name a pretrained model (model: FOLDER or hub id), or let a phase of text-generation come first"
        )


def _shortened(splits: TextSplits) -> TextSplits:
    """The same held-out texts beside little to train on, which nobody reads."""
    kept, left = list[str](), GUARD_TRAIN_CHARACTERS
    for text in splits.train:
        kept.append(text[:left])
        left -= len(kept[-1])
        if left <= 0:
            break
    return replace(splits, train=tuple(kept))


def _splits(data: DataSpec, task: str = "text-generation") -> TextSplits | ChatSplits | PairSplits:
    if task == PREFERENCE:
        return load_pairs(data)
    if holds_conversations(data):
        return load_conversations(data)
    if data.text_column is None and holds_pairs(data):
        raise DataError(
            f"{data}: these are pairs of a chosen and a rejected answer; learn from them by task: preference, or name "
            "a column of running text with data.text_column"
        )
    source: str | dict[str, str]
    if data.source:
        source = data.source
    else:
        named = {"train": data.train, "validation": data.validation, "test": data.test}
        source = {name: path for name, path in named.items() if path}
    splits = load_splits(source, text_column=data.text_column)
    if not splits.validation:
        raise DataError(f"{data}: the validation split is empty; give more text")
    return splits


def _need(plan: Plan, splits: TextSplits | ChatSplits | PairSplits) -> Need:
    """What a run has to offer a pretrained language model: each token counts as an example, no epoch is asked."""
    texts = _texts(splits)
    return Need(
        "text-generation",
        kind_of(texts),
        round(sum(map(len, texts)) / CHARACTERS_A_TOKEN),
        1.0,
        seconds_of(plan),
        operations(pick_device().type, torch.get_num_threads()),
        chat=isinstance(splits, ChatSplits | PairSplits),
        least_examples=LEAST_TOKENS,
    )


def _make(plan: Plan, splits: TextSplits | ChatSplits | PairSplits | None) -> Maker:
    """The model that all phases train; a tokenizer from nothing is learnt from all their training texts."""
    if plan.model.name not in ("auto", *PRESETS):
        sizes = ("parameters", "layers", "width", "heads", "vocabulary")
        given = [name for name in sizes if getattr(plan.model, name) is not None]
        given += ["tokenizer"] if plan.model.tokenizer != "auto" else []
        if given:
            raise PlanError(f"model.{given[0]}: '{plan.model.name}' brings its own; leave it out")
        return load_model(plan.model.name, plan.model.context)
    if splits is not None:
        parts = [splits]
    else:
        sources = {(plan.phase(i).data, str(plan.phase(i).task)) for i in range(plan.phase_count)}
        parts = [_splits(data, task) for data, task in sorted(sources, key=str) if data]
    texts = tuple(text for part in parts for text in _texts(part))
    spec, marks = plan.model, tuple[str, ...]()
    if any(isinstance(part, ChatSplits | PairSplits) for part in parts):
        spec, marks = replace(spec, context=spec.context or CHAT_CONTEXT), MARKS
    facts = TextFacts(sum(map(len, texts)), len(set().union(*texts)))
    return make_preset(choose_preset(spec, facts, plan), texts, marks)


def _texts(splits: TextSplits | ChatSplits | PairSplits) -> tuple[str, ...]:
    """What a tokenizer is learnt from: of conversations the turns, and the names of the roles that stand above them."""
    if isinstance(splits, TextSplits):
        return splits.train
    if isinstance(splits, PairSplits):
        return tuple(turn.content for pair in splits.train for c in (pair.chosen, pair.rejected) for turn in c.turns)
    return (*(turn.content for c in splits.train for turn in c.turns), "\n".join(ROLES))


def _tokens(stream: Stream, *, sample: bool = False) -> int:
    if not sample:
        return len(stream.tokens)
    return int(np.isin(stream.span, stream.sample_spans()).sum()) if len(stream.tokens) else 0
