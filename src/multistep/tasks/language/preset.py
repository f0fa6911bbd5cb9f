"""What to train when the plan leaves it open: tokenizer, shape and recipe, by rule from data and budget.

docs/appendix/measured-tasks.md has the measurements behind the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from multistep.core.values.optimizers import TYPICAL_RATE, convert_rate
from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.recipe import OptimizerName, Precision, Recipe, Setting
from multistep.core.values.units import Unit
from multistep.errors import PlanError
from multistep.tasks.language.load import PRESETS
from multistep.tasks.language.nets import BAG, CNN
from multistep.tasks.language.tokenizer import Kind
from multistep.tasks.recipes import WEIGHT_DECAY, epochs_of, fill_in, fine_tuning_rate, lengths_of
from multistep.tasks.speeds import Work

BATCH_SIZE, FINE_TUNING_BATCH = 64, 32
MOST_BATCH_TOKENS, LEAST_BATCH = 4096, 16  # long texts come in smaller batches
LEAST_CONTEXT, MOST_CONTEXT = 64, 256  # tokens of a text that are read unless the plan says otherwise
WORK = Work("encoder", a_core=2.5e10)
USUAL_SECONDS = 300.0  # where a plan names no time
# What a model from nothing should read within its time: its texts eight times, or, where these are many, so many tokens
# a parameter, so that more text never makes for a smaller model. 20 are best for a language model (arXiv 2203.15556);
# of hidden words fewer tokens count, and what was tuned on SST-2, the eight times of it, comes to 50.
EPOCHS, MOST_A_PARAMETER = 8.0, 60.0
PER_PARAMETER_AND_TOKEN = 12.0  # operations: six, and six more of a sharpness-aware step
# Against overfitting, where a text is read several times; each was worth it on SST-2: docs/appendix/measured-tasks.md.
DROPOUT, WORD_DROPOUT, SHARPNESS = 0.3, 0.6, 0.05
# A bag without it tells rare n-grams of the training split by heart: bench/explore_language.py.
OF_SMALL: Mapping[str, Mapping[str, Setting]] = {
    BAG: {"optimizer": "adamw", "learning_rate": 0.01, "dropout": 0.0, "augmentation": 0.95},
    CNN: {"optimizer": "muon", "learning_rate": 0.01, "dropout": 0.5, "augmentation": 0.6},
}
GOING_ON = 0.1  # of the rate from nothing, where a trained net is trained on


@dataclass(frozen=True)
class Shape:
    """A model's sizes; the feed-forward layer is four widths wide."""

    layers: int
    width: int
    heads: int


def choose_tokenizer(spec: ModelSpec, characters: int) -> tuple[Kind, int]:
    """The kind of tokenizer and its vocabulary, for training texts of so many characters."""
    if spec.name not in ("auto", *PRESETS):
        raise PlanError(f"model '{spec.name}': no preset; allowed: auto, {', '.join(PRESETS)}, a folder or a hub id")
    if spec.tokenizer == "characters":
        raise PlanError(
            "model.tokenizer is characters; an encoder takes wordpiece or bpe; allowed: auto, wordpiece, bpe"
        )
    kind: Kind = "bpe" if spec.tokenizer == "bpe" else "wordpiece"
    return kind, spec.vocabulary or max(1000, min(16_000, characters // 90))


def choose_shape(spec: ModelSpec, plan: Plan, *, tokens: int, vocabulary: int, rate: float) -> Shape:
    """Sizes that `tokens` of training text can fill, and that read enough of them within the plan's time, at `rate`
    operations a second.
    """
    compute = seconds_of(plan) * rate / PER_PARAMETER_AND_TOKEN
    by_time = max(compute / (EPOCHS * tokens), math.sqrt(compute / MOST_A_PARAMETER))
    blocks = min(max(by_time, 3e4), 2e4 + 2.0 * tokens, 1e8)
    if spec.parameters:
        # The plan counts all parameters; the embedding takes its share first, at about the width to come.
        width = math.sqrt(spec.parameters / 24)
        blocks = max(0.2 * spec.parameters, spec.parameters - vocabulary * width)
    layers = spec.layers or max(1, min(12, round(2 * (blocks / 4e5) ** 0.5)))
    width = spec.width or max(32, round(math.sqrt(blocks / (12 * layers)) / 16) * 16)
    heads = spec.heads or max((h for h in range(1, max(2, width // 32 + 1)) if width % h == 0), default=1)
    return Shape(layers, int(width), heads)


def seconds_of(plan: Plan) -> float:
    """The time that a plan gives to training, where it gives any."""
    seconds = sum(amount.value for amount in lengths_of(plan) if amount.unit is Unit.SECONDS)
    return seconds or USUAL_SECONDS


def default_recipe(
    given: Mapping[str, Setting],
    *,
    classify: bool,
    pretrained: bool,
    parameters: int,
    own_dropout: float,
    epochs: float,
    length: float,
    precision: Precision = "auto",
) -> Recipe:
    """The recipe with every setting that the plan leaves open.

    `epochs` are those that its time is expected to hold, `length` the mean of the training texts in tokens.
    """
    size = FINE_TUNING_BATCH if pretrained else BATCH_SIZE
    while length * size > MOST_BATCH_TOKENS and size > LEAST_BATCH:
        size //= 2
    optimizer = cast(OptimizerName, given.get("optimizer", "adamw" if pretrained else "muon"))
    adapter = given.get("adapter", "none")
    rate = fine_tuning_rate(parameters, optimizer, adapter) if pretrained else TYPICAL_RATE[optimizer]
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": rate,
        "batch_size": size,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0) if adapter == "none" else 0.0,
        "warmup_steps": 100 if pretrained else 20,
        "dropout": own_dropout,
        "precision": precision,
    }
    if not pretrained and classify and epochs >= 2:
        base |= {"dropout": DROPOUT, "augmentation": WORD_DROPOUT, "sharpness": SHARPNESS}
    return fill_in(given, base)


def small_recipe(given: Mapping[str, Setting], kind: str, *, pretrained: bool) -> Recipe:
    """The recipe of a small net with every setting that the plan leaves open."""
    own = OF_SMALL[kind]
    usual = cast(OptimizerName, own["optimizer"])
    optimizer = cast(OptimizerName, given.get("optimizer", "adamw" if pretrained else usual))
    rate = convert_rate(cast(float, own["learning_rate"]), usual, optimizer)
    base: dict[str, Setting] = {
        **own,
        "model": kind,
        "optimizer": optimizer,
        "learning_rate": rate * (GOING_ON if pretrained else 1.0),
        "batch_size": BATCH_SIZE,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0),
        "warmup_steps": 20,
    }
    return fill_in(given, base)


def expected_epochs(plan: Plan, *, blocks: int, tokens: int, examples: int, rate: float) -> float:
    """About how often a plan's length reads a training split of so many tokens, at `rate` operations a second.

    `blocks` are parameters without embeddings: looking a word up costs next to nothing.
    """
    per_epoch = {
        Unit.EPOCHS: 1.0,
        Unit.TOKENS: float(examples),
        Unit.STEPS: examples / BATCH_SIZE,
        Unit.SECONDS: PER_PARAMETER_AND_TOKEN * blocks * tokens / rate,
    }
    return epochs_of(plan, per_epoch) if lengths_of(plan) else EPOCHS
