"""What to train when the plan leaves it open: tokenizer, shape and recipe, by rule from data and budget.

The numbers come from bench/explore_text.py; docs/experiments.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from multistep.core.plan import ModelSpec, Plan
from multistep.core.recipe import Recipe, Setting
from multistep.core.units import Amount, Unit

PRESETS = ("nanochat", "gpt2", "qwen3", "llama")
TokenizerKind = Literal["characters", "bpe"]


@dataclass(frozen=True)
class TextFacts:
    """What a preset depends on: of the training split alone."""

    characters: int
    alphabet: int


@dataclass(frozen=True)
class Shape:
    """A model's sizes; the feed-forward layer is four widths wide."""

    layers: int
    width: int
    heads: int
    context: int


@dataclass(frozen=True)
class Preset:
    architecture: str
    tokenizer: TokenizerKind
    vocabulary: int | None  # of a BPE; characters bring their own
    shape: Shape


def choose_preset(spec: ModelSpec, facts: TextFacts, plan: Plan) -> Preset:
    """Fill in what the plan leaves open."""
    architecture = "nanochat" if spec.name == "auto" else spec.name
    tokenizer, vocabulary = _tokenizer(spec, facts)
    size = spec.parameters or _parameters(facts, plan.budget)
    return Preset(architecture, tokenizer, vocabulary, _shape(spec, size))


def _tokenizer(spec: ModelSpec, facts: TextFacts) -> tuple[TokenizerKind, int | None]:
    kind: TokenizerKind = "characters" if facts.alphabet <= 512 else "bpe"
    if spec.tokenizer != "auto":
        kind = spec.tokenizer
    if kind == "characters":
        return kind, None
    return kind, spec.vocabulary or (1024 if facts.characters < 2_000_000 else 4096)


def _parameters(facts: TextFacts, budget: Amount | None) -> int:
    """More time and more text bear a larger model."""
    seconds = budget.value if budget and budget.unit is Unit.SECONDS else 600.0
    by_time = 0.8e6 * (seconds / 30.0) ** 0.5
    by_text = 4.0 * facts.characters
    return int(min(max(2e5, min(by_time, by_text)), 1e8))


def _shape(spec: ModelSpec, parameters: int) -> Shape:
    layers = spec.layers or max(2, min(12, round(4 * (parameters / 8e5) ** 0.2)))
    head = 32
    width = spec.width or max(head, round(math.sqrt(parameters / (12 * layers)) / head) * head)
    heads = spec.heads or max(1, width // head)
    if width % heads:
        heads = next(h for h in range(min(heads, width), 0, -1) if width % h == 0)
    context = spec.context or 64
    return Shape(layers, width, heads, context)


def default_recipe(given: Mapping[str, Setting], *, pretrained: bool) -> Recipe:
    """The recipe with every setting that the plan leaves open."""
    optimizer = str(given.get("optimizer", "adamw" if pretrained else "muon"))
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": {"muon": 0.02, "adamw": 5e-5 if pretrained else 3e-3, "sgd": 0.1}[optimizer],
        "batch_size": 12,
        "weight_decay": 0.0 if optimizer == "sgd" else 0.1 if optimizer == "adamw" else 0.0,
        "gradient_clip": 0.0 if optimizer == "muon" else 1.0,
        "warmup_steps": 100 if pretrained else 10,
    }
    if optimizer == "sgd":
        base["momentum"] = 0.9
    return Recipe(**{**base, **given})  # type: ignore[arg-type]  # planfile has validated what is given
