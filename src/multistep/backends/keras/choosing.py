"""Steps and passes as the backend of Keras computes them, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from multistep.backends.keras.stepping import Stepper, Stepping
from multistep.errors import PlanError


def stepper_for(of: Stepping) -> Stepper:
    """By Keras' backend."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            from multistep.backends.keras.on_tensorflow import TensorFlowStepper

            return TensorFlowStepper(of)
        case "jax":
            from multistep.backends.keras.on_jax import JaxStepper

            return JaxStepper(of)
        case "torch":
            from multistep.backends.keras.on_torch import TorchStepper

            return TorchStepper(of)
        case other:
            raise PlanError(f"KERAS_BACKEND is {other}; allowed: tensorflow, jax or torch, which can train")


def scorer_for(model: Any, rows: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A compiled pass of inference: outputs, and the loss of each example, of the weights that the model has then."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            from multistep.backends.keras.on_tensorflow import scorer
        case "jax":
            from multistep.backends.keras.on_jax import scorer
        case _:
            from multistep.backends.keras.on_torch import scorer

    def score(inputs: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        outputs, losses = passed(inputs, targets, weights)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs), np.asarray(
            keras.ops.convert_to_numpy(losses)
        )

    passed = scorer(model, rows)
    return score
