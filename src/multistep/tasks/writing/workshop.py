"""Text generation: opens its phases, over running text, conversations or preferences, which share one model."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.evidence.metric import metric_named
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Facts
from multistep.engine.learner import TEXT_METRICS, GuardReady, Learner, Readiness
from multistep.errors import PlanError
from multistep.tasks.chat.load import ChatSplits
from multistep.tasks.chat.task import ChatDomain
from multistep.tasks.chat.template import has_template, tokens_around
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.preference.load import PairSplits
from multistep.tasks.preference.task import TASK as PREFERENCE
from multistep.tasks.preference.task import PreferenceDomain
from multistep.tasks.pretrained.settle import TUNING, Settled, seconds_of, settle
from multistep.tasks.reckoned import Costs
from multistep.tasks.text.corpus import heads_of
from multistep.tasks.text.models import Maker
from multistep.tasks.text.preset import WORK
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tokenizer import sample_note
from multistep.tasks.text.tuning import LEAST_OF_TEXT, most_scored
from multistep.tasks.understood import LOOKED_AT, told
from multistep.tasks.writing.bearable import bearable, bearable_pairs
from multistep.tasks.writing.opened import Opened, open_chat, open_pairs, open_text
from multistep.tasks.writing.recipes import costs_of_token, recipe_of, rivals_of
from multistep.tasks.writing.sources import (
    GUARD_TRAIN,
    earlier_turns,
    make_model,
    need,
    parts_of,
    read_splits,
    shortened,
    texts_of,
)

Splits: TypeAlias = TextSplits | ChatSplits | PairSplits


class TextWorkshop:
    """Opens the phases of a text-generation plan. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._maker: Maker | None = None
        self._settled = Settled((), left_open=False)  # the plan's model, once what `auto` comes to is known

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        data = plan.phase(phase).data
        assert data is not None, "a plan has data"
        task = str(plan.phase(phase).task)
        splits = read_splits(data, task)
        if self._maker is None:
            self._settled = settle(plan, lambda: need(plan, splits))
            self._maker = make_model(self._settled.applied(plan), splits if plan.phase_count == 1 else None)
        maker = self._maker
        device = pick_device()
        parameters = maker.parameters
        readings = 1 if isinstance(splits, PairSplits) else _readings(_metric(plan, phase))
        splits = _within_time(splits, plan, maker, _metric(plan, phase))
        if isinstance(splits, PairSplits):
            spread = functools.partial(most_scored, plan, parameters=parameters)
            around = tokens_around(maker.hub_tokenizer, [pair.chosen for pair in splits.train])
            splits = bearable_pairs(splits, lambda n: _shared(spread(n), plan.phase_count), maker.tokenizer, around)
        given = dict(plan.phase(phase).recipe)
        shown = most_scored(plan, "shown", parameters=parameters) if maker.pretrained else None
        match splits:
            case TextSplits():
                opened = open_text(splits, maker, given, seconds_of(plan), shown)
            case ChatSplits():
                opened = open_chat(splits, maker, given, data, plan.model.context, _metric(plan, phase), shown)
            case _:
                require_knowing(plan, phase, maker)
                earlier = () if has_template(maker.hub_tokenizer) else earlier_turns(plan, phase)
                opened = open_pairs(splits, maker, given, plan.model.context, earlier, should_stop)
        guard = self._guard(plan, phase, maker)
        recipe = recipe_of(plan, opened, maker, parameters, device)
        raced = plan.phase_count == 1 and maker.pretrained and not {"adapter", "frozen"} & given.keys()
        rivals = rivals_of(recipe, plan, opened, maker, parameters, device) if raced else ()
        facts = Facts(
            parameters=parameters,
            train_examples=opened.examples,
            tokens_per_example=opened.tokens_per_example,
            sample_tokens=opened.sample_tokens,
            validation_tokens=opened.held_out_tokens["validation"],
            test_tokens=opened.held_out_tokens["test"],
            closing_tokens=opened.closing_tokens // readings,  # in tokens that are scored and judged
            pretrained=maker.pretrained or task == PREFERENCE,  # which begins with what an earlier phase has learnt
            device=device_name(device),
            description=maker.description,
            notes=(*self._settled.notes, *opened.notes, *self._learnt_from(plan, splits)),
            settings=opened.settings,
            longest_context=maker.longest_context,
            optimizers=usable_optimizers(),
            usage=opened.usage,
            able=maker.pretrained or task == PREFERENCE,
            rivals=rivals,
            loss_unit=opened.loss_unit,
        )
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=parts_of(splits, opened.held_out_tokens, opened.tokens),
            models=self._settled.names,
            texts=heads_of(texts_of(splits), LOOKED_AT),
            costs=Costs(
                TUNING if maker.pretrained else WORK,
                costs_of_token(maker, parameters, recipe.adapter) * opened.tokens / opened.examples,
            ),
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
            functools.partial(rows_at_once, maker, opened.domain),
            (guard.domain, guard.domain.context) if guard else None,
            opened.domain if isinstance(opened.domain, PreferenceDomain) else None,
        ), ready

    def _learnt_from(self, plan: Plan, splits: Splits) -> list[str]:
        """That the tokenizer was learnt from a part of the texts, where it was."""
        learnt = self._maker is not None and not self._maker.pretrained and plan.phase_count == 1
        if not learnt or self._maker is None:
            return []
        return sample_note(texts_of(splits), self._maker.tokenizer, seconds_of(plan))

    def _guard(self, plan: Plan, phase: int, maker: Maker) -> Opened | None:
        """What the phase must not forget, read as by a phase that trains on it: only its validation part is scored, of
        which the plan's time bears as much as of the phase's own.
        """
        guard = plan.phase(phase).guard
        if guard is None:
            return None
        metric = metric_named(guard.metric).name if guard.metric else None
        splits = _within_time(read_splits(guard.data), plan, maker, metric)
        if isinstance(splits, TextSplits):
            return open_text(shortened(splits), maker, {})
        assert isinstance(splits, ChatSplits), "a guard is text or conversations"
        few = replace(splits, train=splits.train[:GUARD_TRAIN])
        return open_chat(few, maker, {}, guard.data, None, metric)

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "tokenizers", "safetensors", "numpy")


def _within_time(splits: Splits, plan: Plan, maker: Maker, metric: str | None) -> Splits:
    """Of texts and conversations as much as the plan's time bears to have scored with a pretrained model."""
    if isinstance(splits, PairSplits) or not maker.pretrained:
        return splits
    around, least = 0, LEAST_OF_TEXT
    if isinstance(splits, ChatSplits):
        everything = (*splits.train, *splits.validation, *splits.test)
        around, least = tokens_around(maker.hub_tokenizer, everything), 0
    readings = _readings(metric)
    most = functools.partial(most_scored, plan, parameters=maker.parameters, readings=readings, least=least)
    return bearable(splits, most, maker.tokenizer, around)


def _readings(metric: str | None) -> int:
    """How often an evaluation reads a conversation: where answers are judged, beside the loss."""
    return 1 if metric in (None, *TEXT_METRICS) else 2


def _metric(plan: Plan, phase: int) -> str | None:
    """The name of what decides a phase, if it says."""
    name = plan.phase(phase).metric
    return metric_named(name).name if name else None


def rows_at_once(maker: Maker, domain: TextDomain | ChatDomain | PreferenceDomain) -> int | None:
    """How many examples a pass should hold; a pair is two rows."""
    rows = maker.at_once(domain.context)
    return max(1, rows // 2) if rows is not None and isinstance(domain, PreferenceDomain) else rows


def _shared(tokens: int | None, phases: int) -> int | None:
    """A phase's part of what the whole plan's time bears."""
    return None if tokens is None else tokens // phases


def require_knowing(plan: Plan, phase: int, maker: Maker) -> None:
    """Raises PlanError where a preference would be taught to a model that cannot write yet."""
    if phase == 0 and not maker.pretrained:
        raise PlanError(
            f"phase '{plan.phase(phase).name}': a preference between answers is taught to a model that writes them; "
            "name a pretrained model (model: FOLDER or hub id), or let a phase of text-generation come first"
        )
