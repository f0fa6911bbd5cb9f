"""What to train when the plan leaves it open: tokenizer, shape and recipe, by rule from data and budget.

docs/language.md has the measurements behind the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from multistep.core.optimizers import TYPICAL_RATE, convert_rate
from multistep.core.plan import ModelSpec
from multistep.core.recipe import OptimizerName, Recipe, Setting
from multistep.errors import PlanError
from multistep.tasks.language.load import PRESETS
from multistep.tasks.language.tokenizer import Kind

BATCH_SIZE, FINE_TUNING_BATCH = 32, 32
FINE_TUNING_RATE = 5e-5  # AdamW's: arXiv 1810.04805
LEAST_CONTEXT, MOST_CONTEXT = 64, 256  # tokens of a text that are read unless the plan says otherwise
WEIGHT_DECAY: Mapping[OptimizerName, float] = {
    "adamw": 0.01,
    "schedule-free": 0.01,
    "soap": 0.01,
    "lion": 0.1,
    "prodigy": 0.01,
}


@dataclass(frozen=True)
class Shape:
    """A model's sizes; the feed-forward layer is four widths wide."""

    layers: int
    width: int
    heads: int
    tokenizer: Kind
    vocabulary: int


def choose_shape(spec: ModelSpec, characters: int) -> Shape:
    """Fill in what the plan leaves open; `characters` are those of the training texts."""
    if spec.name not in ("auto", *PRESETS):
        raise PlanError(f"model '{spec.name}': no preset; allowed: auto, {', '.join(PRESETS)}, a folder or a hub id")
    if spec.tokenizer == "characters":
        raise PlanError(
            "model.tokenizer is characters; an encoder takes wordpiece or bpe; allowed: auto, wordpiece, bpe"
        )
    kind: Kind = "bpe" if spec.tokenizer == "bpe" else "wordpiece"
    vocabulary = spec.vocabulary or 8000
    layers = spec.layers or 2
    width = spec.width or 128
    if spec.parameters and not spec.width:
        # Twelve widths squared a layer, and the embedding's vocabulary.
        width = 16
        while vocabulary * (width + 16) + 12 * layers * (width + 16) ** 2 <= spec.parameters:
            width += 16
    heads = spec.heads or max((h for h in range(1, max(2, width // 32 + 1)) if width % h == 0), default=1)
    return Shape(layers, width, heads, kind, vocabulary)


def default_recipe(given: Mapping[str, Setting], *, task: str, pretrained: bool, own_dropout: float) -> Recipe:
    """The recipe with every setting that the plan leaves open."""
    optimizer = cast(OptimizerName, given.get("optimizer", "adamw" if pretrained else "muon"))
    rate = convert_rate(FINE_TUNING_RATE, "adamw", optimizer) if pretrained else TYPICAL_RATE[optimizer]
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": rate,
        "batch_size": FINE_TUNING_BATCH if pretrained else BATCH_SIZE,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0),
        "gradient_clip": 0.0 if optimizer == "muon" else 1.0,
        "warmup_steps": 100 if pretrained else 20,
        "dropout": own_dropout,
    }
    if not pretrained and task == "text-classification":
        base |= {"dropout": 0.3, "augmentation": 0.6}
    if optimizer == "sgd":
        base["momentum"] = 0.9
    if optimizer == "schedule-free":
        base["cooldown_fraction"] = 0.0  # it averages instead: arXiv 2405.15682
    return Recipe(**{**base, **given})  # type: ignore[arg-type]  # planfile has validated what is given
