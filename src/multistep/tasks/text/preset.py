"""What to train when the plan leaves it open: tokenizer, shape and recipe, by rule from data and budget.

The numbers come from bench/explore_text.py; docs/appendix/experiments.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from multistep.core.values.optimizers import TYPICAL_RATE
from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.core.values.units import Amount, Unit
from multistep.errors import PlanError
from multistep.tasks.recipes import epochs_of, fill_in, lengths_of
from multistep.tasks.speeds import Work
from multistep.tasks.text.tuning import BATCH_SIZE, WEIGHT_DECAY

PRESETS = ("nanochat", "gpt2", "qwen3", "llama")
MANY_TOKENS = 512  # of a vocabulary: with as many, Muon wants less than half the rate (docs/appendix/experiments.md)
WORK = Work("text", a_core=2.5e10)
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
    blocks = _parameters(facts, lengths_of(plan))
    if spec.parameters:
        # The plan counts all parameters; embedding and head take theirs first, at about the width to come.
        width = math.sqrt(spec.parameters / 24)
        tokens = vocabulary or facts.alphabet
        blocks = max(0.2 * spec.parameters, spec.parameters - (1 if architecture == "gpt2" else 2) * tokens * width)
    return Preset(architecture, tokenizer, vocabulary, _shape(spec, blocks))


def _tokenizer(spec: ModelSpec, facts: TextFacts) -> tuple[TokenizerKind, int | None]:
    """Byte-level BPE: it reads twice as far and as fast as characters, in any script.

    A text too short to learn merges from stays with characters, if it has few of them.
    """
    kind: TokenizerKind = "characters" if facts.characters < 50_000 and facts.alphabet <= 512 else "bpe"
    if spec.tokenizer == "wordpiece":
        raise PlanError("model.tokenizer is wordpiece, which cannot write text; allowed: auto, characters, bpe")
    if spec.tokenizer != "auto":
        kind = spec.tokenizer
    elif spec.vocabulary is not None:
        kind = "bpe"  # the only one whose vocabulary can be chosen
    if kind == "characters":
        if spec.vocabulary is not None:
            raise PlanError(
                f"model.vocabulary is {spec.vocabulary}, but characters bring their own: the {facts.alphabet} of the "
                "text; leave it out, or set model.tokenizer to bpe"
            )
        return kind, None
    # Chinese has thousands of characters, of three bytes each: they need tokens of their own.
    size = 1024 if facts.characters < 5_000_000 else 4096
    return kind, spec.vocabulary or (8192 if facts.alphabet > 2000 else size)


def _parameters(facts: TextFacts, lengths: Sequence[Amount]) -> float:
    """Of the blocks. More time bears a larger model, and little text a smaller one."""
    seconds = sum(amount.value for amount in lengths if amount.unit is Unit.SECONDS) or 300.0
    by_time = 0.75e6 * math.sqrt(max(1.0, seconds / 60.0))
    return min(max(by_time, 2e5), 1e5 + 2.0 * facts.characters, 1e8)


def _shape(spec: ModelSpec, blocks: float) -> Shape:
    """Wide and shallow: two layers train faster than four at the same size, up to a million parameters."""
    layers = spec.layers or max(2, min(12, round(2 * (blocks / 8e5) ** 0.4)))
    width = spec.width or max(32, round(math.sqrt(blocks / (12 * layers)) / 16) * 16)
    heads = spec.heads or max((h for h in range(1, max(2, width // 32 + 1)) if width % (2 * h) == 0), default=1)
    return Shape(layers, width, heads, spec.context or 64)


def expected_epochs(plan: Plan, *, parameters: int, tokens: int, rate: float) -> float:
    """About how often a plan's budget reads a training split of so many tokens, at `rate` operations a second.

    Six operations per parameter and token: arXiv 2001.08361.
    """
    per_epoch = {
        Unit.EPOCHS: 1.0,
        Unit.TOKENS: float(tokens),
        Unit.STEPS: tokens / (BATCH_SIZE * 64),
        Unit.SECONDS: 6.0 * parameters * tokens / rate,
    }
    return epochs_of(plan, per_epoch)


def default_dropout(epochs: float) -> float:
    """None while the text is new; more the more often it is read again, up to 0.3."""
    return 0.0 if epochs < 3 else round(min(0.3, 0.1 + 0.1 * math.log2(epochs / 3)), 2)


def _rate(optimizer: OptimizerName, architecture: str, vocabulary: int) -> float:
    if optimizer == "muon" and vocabulary < MANY_TOKENS:
        return 0.03 if architecture == "nanochat" else 0.02
    return TYPICAL_RATE[optimizer]


def default_recipe(
    given: Mapping[str, Setting], *, architecture: str, epochs: float = 0.0, vocabulary: int = 64
) -> Recipe:
    """The recipe with every setting that the plan leaves open, from nothing; `epochs` as `expected_epochs` says."""
    optimizer = cast(OptimizerName, given.get("optimizer", "muon"))
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": _rate(optimizer, architecture, vocabulary),
        "batch_size": BATCH_SIZE,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0),
        "warmup_steps": 10,
        "dropout": default_dropout(epochs) if architecture in ("nanochat", "gpt2") else 0.0,
    }
    return fill_in(given, base)
