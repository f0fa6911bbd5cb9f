"""Language understanding: opens the phases of plans that classify texts or fill in hidden words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from multistep.backends.torch.learner import TorchLearner, pick_device
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.tasks import TASKS
from multistep.core.values.trial import Facts
from multistep.engine.learner import Learner, Readiness
from multistep.errors import PlanError
from multistep.tasks.language.baseline import majority_note
from multistep.tasks.language.classify import TASK as CLASSIFY
from multistep.tasks.language.classify import ClassifyDomain, encode_splits, scale_of
from multistep.tasks.language.encode import Encoded, Ints, encode_texts, usual_length
from multistep.tasks.language.load import PRESETS, classifier, load_encoder, masked_model, new_encoder
from multistep.tasks.language.mask import METRICS as MASK_METRICS
from multistep.tasks.language.mask import MaskDomain
from multistep.tasks.language.models import Encoder, Head
from multistep.tasks.language.preset import (
    LEAST_CONTEXT,
    MOST_CONTEXT,
    choose_shape,
    choose_tokenizer,
    default_recipe,
    expected_epochs,
)
from multistep.tasks.language.spans import TextParts, load_texts, read_spans, require_spans
from multistep.tasks.language.splits import LabelledSplits, class_shares, load_labelled, texts_of
from multistep.tasks.language.tokenizer import make_tokenizer
from multistep.tasks.machine import device_name, versions_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SIZES = ("parameters", "layers", "width", "heads", "vocabulary")
LOOKED_AT, MOST_CHARACTERS = 2000, 5000  # texts, and how much of each, for how long they are
USAGES = {
    CLASSIFY: """from transformers import pipeline
classify = pipeline("text-classification", {model})
print(classify("It is as good as it can be.", truncation=True))""",
    "fill-mask": """from transformers import pipeline
fill = pipeline("fill-mask", {model})
print(fill(f"It is as good as it can {fill.tokenizer.mask_token}.")[0]["sequence"])""",
}
PAIR_USAGE = """from transformers import pipeline
classify = pipeline("text-classification", {model})
print(classify({"text": "It is raining.", "text_pair": "It is dry."}, truncation=True))"""


class LanguageWorkshop:
    """Opens the phases of a plan, which share tokenizer and encoder. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._labelled: dict[DataSpec, LabelledSplits] = {}
        self._texts: dict[DataSpec, TextParts] = {}
        self._encoder: Encoder | None = None
        self._tokens = 0  # of training, about; 0 where an encoder was loaded

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        if self._encoder is None:
            self._encoder = self._make(plan)
        if plan.phase(phase).task == CLASSIFY:
            return self._open_classify(plan, phase, self._encoder, should_stop)
        return self._open_mask(plan, phase, self._encoder, should_stop)

    def _open_classify(
        self, plan: Plan, phase: int, encoder: Encoder, should_stop: Callable[[], bool]
    ) -> tuple[Learner, Readiness]:
        splits = self._read_labelled(_data_of(plan, phase))
        head = classifier(encoder, splits.labels, scale_of(splits.train, splits.labels))
        given = plan.phase(phase).recipe
        encoded = encode_splits(splits, head)
        recipe = self._recipe(plan, phase, encoder, head, encoded["train"].lengths)
        assert recipe.batch_size is not None, "the preset has one"
        domain = ClassifyDomain(splits, head, encoded, recipe.batch_size)
        usual = majority_note(splits.train, splits.validation, splits.labels)
        cut = _cut(encoded, encoder.context)
        shares = class_shares(splits.labels, splits.train)
        facts = Facts(
            parameters=_parameters(head.model),
            train_examples=len(splits.train),
            tokens_per_example=1,
            sample_tokens=len(domain.sample("validation")),
            validation_tokens=len(splits.validation),
            test_tokens=len(splits.test),
            pretrained=encoder.pretrained,
            device=device_name(pick_device()),
            description=f"{encoder.description}, up to {encoder.context} of a text",
            notes=(*splits.notes, f"train: {shares}", usual, *cut, *head.notes),
            settings=domain.settings,
            longest_context=encoder.longest,
            optimizers=usable_optimizers(),
            loss_unit=domain.loss_unit,
            usage=PAIR_USAGE if splits.train.seconds is not None else USAGES[CLASSIFY],
        )
        rate_open = "learning_rate" not in given and not encoder.pretrained
        mark = f"{splits.fingerprint}-{_mark(encoder)}"
        return TorchLearner(domain, should_stop), Readiness(facts, recipe, rate_open, mark, domain.metrics)

    def _open_mask(
        self, plan: Plan, phase: int, encoder: Encoder, should_stop: Callable[[], bool]
    ) -> tuple[Learner, Readiness]:
        data = _data_of(plan, phase)
        parts = self._read_texts(data)
        head = masked_model(encoder)
        given = plan.phase(phase).recipe
        splits = {"train": parts.train, "validation": parts.validation, "test": parts.test}
        spans = {name: read_spans(encoder.tokenizer, part, encoder.context) for name, part in splits.items()}
        for name in ("train", "validation"):
            require_spans(spans[name], name, str(data))
        recipe = self._recipe(plan, phase, encoder, head, spans["train"].encoded.lengths)
        assert recipe.batch_size is not None, "the preset has one"
        domain = MaskDomain(spans, head, recipe.batch_size)
        sample = domain.sample("validation")
        hidden = domain.hidden("validation", sample)
        facts = Facts(
            parameters=_parameters(head.model),
            train_examples=len(spans["train"]),
            tokens_per_example=max(1, round(hidden / len(sample))),
            sample_tokens=hidden,
            validation_tokens=domain.hidden("validation"),
            test_tokens=domain.hidden("test"),
            pretrained=encoder.pretrained,
            device=device_name(pick_device()),
            description=f"{encoder.description}, spans of up to {encoder.context}",
            notes=(
                *parts.notes,
                *_cut({name: part.encoded for name, part in spans.items()}, encoder.context),
                *head.notes,
            ),
            settings=domain.settings,
            longest_context=encoder.longest,
            optimizers=usable_optimizers(),
            loss_unit=TASKS["fill-mask"].loss_unit,
            usage=USAGES["fill-mask"],
        )
        rate_open = "learning_rate" not in given and not encoder.pretrained
        mark = f"{parts.fingerprint}-{_mark(encoder)}-{encoder.context}"
        return TorchLearner(domain, should_stop), Readiness(facts, recipe, rate_open, mark, MASK_METRICS)

    def _make(self, plan: Plan) -> Encoder:
        """The encoder that all phases train; a tokenizer from nothing is learnt from all their training texts."""
        spec = plan.model
        pretrained = spec.name not in ("auto", *PRESETS)
        if pretrained and (given := [name for name in SIZES if getattr(spec, name) is not None]):
            raise PlanError(f"model.{given[0]}: '{spec.name}' brings its own; leave it out")
        if pretrained and spec.tokenizer != "auto":
            raise PlanError(f"model.tokenizer: '{spec.name}' brings its own; leave it out")
        loaded = load_encoder(spec.name, spec.context) if pretrained else None
        phases = [(plan.phase(i).task == CLASSIFY, _data_of(plan, i)) for i in range(plan.phase_count)]
        texts = [self._train_texts(classify, data) for classify, data in dict.fromkeys(phases)]
        if loaded is not None:
            if spec.context is not None:
                return loaded
            usual = max(_usual(_lengths(loaded.tokenizer, some)[0]) for some in texts)
            return replace(loaded, context=min(loaded.longest, usual))
        everything = tuple(dict.fromkeys(text for some in texts for text in some))
        tokenizer = make_tokenizer(everything, *choose_tokenizer(spec, sum(map(len, everything))))
        found = [_lengths(tokenizer, some) for some in texts]
        self._tokens = max(1, *(tokens for _, tokens in found))
        shape = choose_shape(
            spec,
            plan,
            tokens=self._tokens,
            vocabulary=tokenizer.get_vocab_size(),
            device=pick_device().type,
            cores=torch.get_num_threads(),
        )
        context = spec.context or max(_usual(lengths) for lengths, _ in found)
        return new_encoder(tokenizer, layers=shape.layers, width=shape.width, heads=shape.heads, context=context)

    def _recipe(self, plan: Plan, phase: int, encoder: Encoder, head: Head, lengths: Ints) -> Recipe:
        blocks = sum(p.numel() for name, p in head.model.named_parameters() if "embeddings" not in name)
        epochs = expected_epochs(
            plan,
            blocks=blocks,
            tokens=self._tokens,
            examples=len(lengths),
            device=pick_device().type,
            cores=torch.get_num_threads(),
        )
        return default_recipe(
            plan.phase(phase).recipe,
            classify=plan.phase(phase).task == CLASSIFY,
            pretrained=encoder.pretrained,
            parameters=sum(p.numel() for p in head.model.parameters()),
            own_dropout=head.own_dropout,
            epochs=epochs,
            length=float(lengths.mean()),
        )

    def _train_texts(self, classify: bool, data: DataSpec) -> tuple[str, ...]:
        if classify:
            return tuple(texts_of(self._read_labelled(data).train))
        train = self._read_texts(data).train
        return (*train.texts, *(train.seconds or ()))

    def _read_labelled(self, data: DataSpec) -> LabelledSplits:
        if data not in self._labelled:
            self._labelled[data] = load_labelled(data)
        return self._labelled[data]

    def _read_texts(self, data: DataSpec) -> TextParts:
        if data not in self._texts:
            self._texts[data] = load_texts(data)
        return self._texts[data]

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn")


def _data_of(plan: Plan, phase: int) -> DataSpec:
    data = plan.phase(phase).data
    assert data is not None, "a plan has data"
    return data


def _lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Ints, int]:
    """The lengths of some texts in tokens, and about how many tokens all of them are."""
    chosen = np.random.default_rng(0).permutation(len(texts))[:LOOKED_AT]
    some = [texts[i][:MOST_CHARACTERS] for i in chosen.tolist()]
    lengths = encode_texts(tokenizer, some, longest=MOST_CHARACTERS + 2).lengths
    return lengths, round(int(lengths.sum()) / max(1, sum(map(len, some))) * sum(map(len, texts)))


def _usual(lengths: Ints) -> int:
    """How many tokens are read of such texts: all of nearly every one, but no more than 256."""
    return min(MOST_CONTEXT, max(LEAST_CONTEXT, usual_length(lengths)))


def _cut(encoded: Mapping[str, Encoded], context: int) -> tuple[str, ...]:
    """A note on texts whose ends are not read."""
    cut = {name: part.cut for name, part in encoded.items() if part.cut}
    if not cut:
        return ()
    counts = ", ".join(f"{name} {count:,} of {len(encoded[name]):,}" for name, count in cut.items())
    return (f"texts longer than {context} tokens, of which the ends are not read (model.context): {counts}",)


def _mark(encoder: Encoder) -> str:
    """Of the tokenizer: it may be learnt from other phases' texts, which must not change under a resumed run either."""
    return hashlib.blake2b(encoder.tokenizer.to_str().encode(), digest_size=8).hexdigest()


def _parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
