"""Text generation: what the engine and the torch learner need to know of it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.learner import Batch, TorchLearner, pick_device
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe, Setting
from multistep.core.values.trial import Facts
from multistep.engine.learner import NO_FORM, Exhibit, Learner, Readiness, Split
from multistep.errors import DataError, PlanError
from multistep.tasks.hub import weights_hash
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.recipes import refuse_model
from multistep.tasks.text.evaluate import sample_tokens, score_stream
from multistep.tasks.text.lean import LeanGPT
from multistep.tasks.text.models import Maker, load_model, make_preset
from multistep.tasks.text.ngram import NGram
from multistep.tasks.text.preset import PRESETS, TextFacts, choose_preset, default_recipe, expected_epochs
from multistep.tasks.text.splits import TextSplits, load_splits
from multistep.tasks.text.stream import ReadingOrder, Stream, baseline_table, read_stream
from multistep.tasks.text.tuning import tuned_recipe

SAMPLES, SAMPLE_TOKENS = 3, 120
USAGE = """from transformers import pipeline
generate = pipeline("text-generation", {model})
print(generate("Once", max_new_tokens=100)[0]["generated_text"])"""


class TextDomain:
    """One phase's text and model. Implements backends.torch.learner.Domain."""

    def __init__(self, splits: TextSplits, maker: Maker, context: int | None = None) -> None:
        several = not splits.contiguous
        read = functools.partial(read_stream, tokenizer=maker.tokenizer, several=several, end=maker.end)
        self._maker = maker
        self._splits = splits
        self.train = read(splits.train)
        self.held_out: dict[Split, Stream] = {
            "validation": read(splits.validation),
            "test": read(splits.test),
        }
        self._stream = torch.from_numpy(self.train.tokens.astype(np.int64))
        self._read_at(context)

    def _read_at(self, context: int | None) -> None:
        """Read training and held-out text in windows of a recipe's context, or of the model's own."""
        self.context = context or self._maker.context
        setting = "recipe.context" if context else "model.context"
        self.order = ReadingOrder(len(self.train.tokens), self.context, setting)
        self._offsets = torch.arange(self.context + 1)

    @functools.cached_property
    def _ngram(self) -> NGram:
        return NGram.fit(self._splits.train)

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        starts = torch.from_numpy(self.order.starts(position, size, seed))
        tokens = self._stream[starts[:, None] + self._offsets]
        if device.type != "cpu":
            tokens = tokens.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tokens.to(device)
        return tokens[:, :-1], tokens[:, 1:]

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BT, labels_BT = batch
        if isinstance(model, LeanGPT) and not label_smoothing:
            return model.loss(tokens_BT, labels_BT)
        nats_BT = self._maker.token_nats(model, tokens_BT, labels_BT, label_smoothing=label_smoothing)
        return nats_BT.sum(), torch.tensor(labels_BT.numel(), device=nats_BT.device)

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that text and this model answer to."""
        return ("label_smoothing", *self._maker.settings)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.augmentation:
            raise PlanError(f"recipe.augmentation is {recipe.augmentation:g}, but text has none; leave it out")
        if recipe.resolution:
            raise PlanError("recipe.resolution is for images; what a text model has is recipe.context")
        self._maker.configure(model, recipe)
        if self.context != (recipe.context or self._maker.context):
            self._read_at(recipe.context)
        return self.context

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        stream = self.held_out[split]
        return score_stream(
            functools.partial(self._maker.logits, model),
            stream,
            context=self.context,
            vocabulary=self._maker.vocabulary,
            before=self._maker.end,
            spans=stream.sample_spans() if sample else None,
            device=device,
        )

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._ngram.name, baseline_table(self._ngram, self.held_out[split])

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        prompt = torch.tensor([[self._maker.end]], device=device)
        if self._splits.contiguous:
            # A running text never showed its end: begin as a line of it begins.
            newline = self._maker.tokenizer.encode("\n", add_special_tokens=False).ids
            prompt = torch.tensor([newline or [self._maker.end]], device=device)
        drawn = sample_tokens(
            functools.partial(self._maker.logits, model),
            prompt[0],
            SAMPLE_TOKENS,
            context=self.context,
            many=SAMPLES,
            forbidden=(self._maker.end,),
            seed=0,
        )
        texts = tuple(self._maker.tokenizer.decode(row) for row in drawn.tolist())
        return [Exhibit("What it writes", texts=texts)]

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self._maker.write(model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return weights_hash(folder)


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
