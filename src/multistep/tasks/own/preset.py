"""The recipe where the plan leaves it open, for a model of which nothing is known but its modules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from multistep.core.values.optimizers import TYPICAL_RATE, convert_rate
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.tasks.recipes import WEIGHT_DECAY, fill_in, fine_tuning_rate

BATCH_SIZE = 32
SMALL = 1_000_000  # parameters; larger models want lower rates


def typical_rate(parameters: int) -> float:
    """AdamW's, from nothing: measured on five small networks (docs/how-to/own-module.md).

    Of larger ones it falls with the root of their size, which is about what arXiv 2005.14165, table 2.1, has.
    """
    return TYPICAL_RATE["adamw"] * min(1.0, math.sqrt(SMALL / max(1, parameters)))


def default_recipe(
    given: Mapping[str, Setting],
    *,
    pretrained: bool,
    parameters: int,
    batch_size: int,
    dropout: float,
    label_smoothing: float,
) -> Recipe:
    """The recipe with every setting that the plan leaves open; the last three are what loader, model and loss have."""
    optimizer = cast(OptimizerName, given.get("optimizer", "adamw"))
    fresh = convert_rate(typical_rate(parameters), "adamw", optimizer)
    adapter = given.get("adapter", "none")
    pretrained = pretrained or adapter != "none"  # or there would be nothing to leave as it is
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": fine_tuning_rate(parameters, optimizer, adapter) if pretrained else fresh,
        "batch_size": batch_size,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0) if adapter == "none" else 0.0,
        "warmup_steps": 100 if pretrained else 20,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
    }
    return fill_in(given, base)
