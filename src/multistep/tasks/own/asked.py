"""A run's module as it is asked afterwards, in the terms in which models of other frameworks are, too."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from multistep.tasks.own.evaluate import evaluate_module as evaluate
from multistep.tasks.own.found import module_for
from multistep.tasks.own.predict import outputs
from multistep.tasks.own.predict import predict_module as predict
from multistep.tasks.own.use import load_weights

__all__ = ["evaluate", "load", "outputs", "predict"]


def load(folder: Path, model: nn.Module | None = None) -> nn.Module:
    """A module with the weights of a model folder, in evaluation mode: `model`, else a new one.

    Raises PlanError where its code is not at hand, or names or shapes do not fit.
    """
    if model is None:
        model = copy.deepcopy(module_for(folder, None, "load"))
    return load_weights(model, folder)
