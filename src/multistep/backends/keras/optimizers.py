"""Keras' own optimizers by the names of recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multistep.core.values.recipe import OptimizerName, Recipe
from multistep.errors import PlanError

NAMES: tuple[OptimizerName, ...] = ("muon", "adamw", "adam", "sgd", "adafactor", "lion")
CLASSES: dict[OptimizerName, str] = {
    "muon": "Muon",
    "adamw": "AdamW",
    "adam": "Adam",
    "sgd": "SGD",
    "adafactor": "Adafactor",
    "lion": "Lion",
}


def usable() -> tuple[OptimizerName, ...]:
    """Those that the installed Keras has."""
    import keras

    return tuple(name for name in NAMES if hasattr(keras.optimizers, CLASSES[name]))


def build(recipe: Recipe, variables: Sequence[Any]) -> Any:
    """An optimizer for these variables, built. Weight decay acts on matrices alone, decoupled, as Keras has it.

    Clipping is the step's affair, not the optimizer's. Raises PlanError for an optimizer that Keras has not.
    """
    import keras

    name = recipe.optimizer
    if name not in usable():
        raise PlanError(f"recipe.optimizer: Keras has no '{name}'; allowed: {', '.join(usable())}")
    kind = getattr(keras.optimizers, CLASSES[name])
    decay, beta_1, beta_2 = recipe.weight_decay or 0.0, *recipe.betas
    given: dict[str, Any] = {"learning_rate": recipe.learning_rate}
    match name:
        case "sgd":
            momentum = recipe.momentum
            given |= {"momentum": momentum, "nesterov": recipe.nesterov and momentum > 0, "weight_decay": decay or None}
        case "adamw" | "lion":
            given |= {"beta_1": beta_1, "beta_2": beta_2, "weight_decay": decay}
        case "adam":
            given |= {"beta_1": beta_1, "beta_2": beta_2, "weight_decay": decay or None}
        case "adafactor":
            given |= {"weight_decay": decay or None, "relative_step": False}
        case "muon":
            given |= {"adam_beta_1": beta_1, "adam_beta_2": beta_2, "momentum": recipe.momentum}
            given |= {
                "nesterov": recipe.nesterov,
                "weight_decay": decay,
                "adam_weight_decay": 0.0,
                "adam_lr_ratio": 0.5,
            }
    optimizer = kind(**given)
    optimizer.build(list(variables))
    if decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    return optimizer
