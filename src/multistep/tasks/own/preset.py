"""The recipe where the plan leaves it open, for a model of which nothing is known but its modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from multistep.core.optimizers import convert_rate
from multistep.core.recipe import OptimizerName, Recipe, Setting

BATCH_SIZE = 32
RATE = 2e-3  # AdamW's, from nothing
FINE_TUNING_RATE = 5e-5  # AdamW's: arXiv 1810.04805
WEIGHT_DECAY: Mapping[OptimizerName, float] = {
    "adamw": 0.01,
    "schedule-free": 0.01,
    "soap": 0.01,
    "lion": 0.1,
    "prodigy": 0.01,
}


def default_recipe(
    given: Mapping[str, Setting], *, pretrained: bool, batch_size: int, dropout: float, label_smoothing: float
) -> Recipe:
    """The recipe with every setting that the plan leaves open; the last three are what loader, model and loss have."""
    optimizer = cast(OptimizerName, given.get("optimizer", "adamw"))
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": convert_rate(FINE_TUNING_RATE if pretrained else RATE, "adamw", optimizer),
        "batch_size": batch_size,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0),
        "gradient_clip": 0.0 if optimizer == "muon" else 1.0,
        "warmup_steps": 100 if pretrained else 20,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
    }
    if optimizer == "sgd":
        base["momentum"] = 0.9
    if optimizer == "schedule-free":
        base["cooldown_fraction"] = 0.0  # it averages instead: arXiv 2405.15682
    return Recipe(**{**base, **given})  # type: ignore[arg-type]  # planfile has validated what is given
