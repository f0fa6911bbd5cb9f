"""Text generation: opens its phases, which share one model with its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import torch

from multistep.backends.torch.learner import TorchLearner, pick_device
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe, Setting
from multistep.core.values.trial import Facts
from multistep.engine.learner import Learner, Readiness
from multistep.errors import DataError, PlanError
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.text.models import Maker, load_model, make_preset
from multistep.tasks.text.preset import PRESETS, TextFacts, choose_preset, default_recipe, expected_epochs
from multistep.tasks.text.splits import TextSplits, load_splits
from multistep.tasks.text.stream import Stream
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tuning import tuned_recipe

USAGE = """from transformers import pipeline
generate = pipeline("text-generation", {model})
print(generate("Once", max_new_tokens=100)[0]["generated_text"])"""


class TextWorkshop:
    """Opens the phases of a text-generation plan. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._maker: Maker | None = None

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        data = plan.phase(phase).data
        assert data is not None, "a plan has data"
        splits = _splits(data)
        if self._maker is None:
            self._maker = _make(plan, splits if plan.phase_count == 1 else None)
        maker = self._maker
        given = dict(plan.phase(phase).recipe)
        context = given.get("context")
        domain = TextDomain(splits, maker, context if isinstance(context, int) else None)
        device = pick_device()
        parameters = sum(p.numel() for p in maker.build(plan.seed).parameters())
        recipe = _recipe(plan, given, domain, maker, parameters, device)
        facts = Facts(
            parameters=parameters,
            train_examples=domain.order.per_epoch,
            tokens_per_example=domain.context,
            sample_tokens=_tokens(domain.held_out["validation"], sample=True),
            validation_tokens=_tokens(domain.held_out["validation"]),
            test_tokens=_tokens(domain.held_out["test"]),
            pretrained=maker.pretrained,
            device=device_name(device),
            description=maker.description,
            notes=splits.notes,
            settings=domain.settings,
            longest_context=maker.longest_context,
            optimizers=usable_optimizers(),
            usage=USAGE,
        )
        # The tokenizer may be learnt from other phases' texts, which must not change under a resumed run either.
        tokens = hashlib.blake2b(maker.tokenizer.to_str().encode(), digest_size=8).hexdigest()
        rate_open = "learning_rate" not in given and not maker.pretrained
        ready = Readiness(facts, recipe, rate_open, f"{splits.fingerprint}-{tokens}")
        return TorchLearner(domain, should_stop, device, lambda: maker.at_once(domain.context)), ready

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "tokenizers", "safetensors", "numpy")


def _recipe(
    plan: Plan, given: Mapping[str, Setting], domain: TextDomain, maker: Maker, parameters: int, device: torch.device
) -> Recipe:
    tokens = len(domain.train.tokens)
    if maker.pretrained:
        return tuned_recipe(
            given,
            plan,
            parameters=parameters,
            own_dropout=maker.own_dropout,
            adapts=maker.origin is not None and maker.origin.source is not None,
            tokens_per_example=domain.context,
            train_tokens=tokens,
            device=device,
        )
    cores = torch.get_num_threads()
    epochs = expected_epochs(plan, parameters=parameters, tokens=tokens, device=device.type, cores=cores)
    return default_recipe(given, architecture=maker.architecture, epochs=epochs, vocabulary=maker.vocabulary)


def _splits(data: DataSpec) -> TextSplits:
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


def _make(plan: Plan, splits: TextSplits | None) -> Maker:
    """The model that all phases train; a tokenizer from nothing is learnt from all their training texts."""
    if plan.model.name not in ("auto", *PRESETS):
        sizes = ("parameters", "layers", "width", "heads", "vocabulary")
        given = [name for name in sizes if getattr(plan.model, name) is not None]
        given += ["tokenizer"] if plan.model.tokenizer != "auto" else []
        if given:
            raise PlanError(f"model.{given[0]}: '{plan.model.name}' brings its own; leave it out")
        return load_model(plan.model.name, plan.model.context)
    if splits is not None:
        texts = splits.train
    else:
        sources = {plan.phase(i).data for i in range(plan.phase_count)}
        texts = tuple(t for data in sorted(sources, key=str) if data for t in _splits(data).train)
    facts = TextFacts(sum(map(len, texts)), len(set().union(*texts)))
    return make_preset(choose_preset(plan.model, facts, plan), texts)


def _tokens(stream: Stream, *, sample: bool = False) -> int:
    if not sample:
        return len(stream.tokens)
    return int(np.isin(stream.span, stream.sample_spans()).sum()) if len(stream.tokens) else 0
