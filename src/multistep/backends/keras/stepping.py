"""One step of training in Keras, compiled as its backend does that. Nothing of it leaves the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from multistep.backends.keras import optimizers
from multistep.backends.keras.domain import Array, Batch, Domain
from multistep.backends.keras.variables import array, seed_states, trained
from multistep.core.values.recipe import Recipe


@dataclass
class Stepping:
    """What a step of one recipe works on. `averages` follow the variables that are trained."""

    model: Any
    trained: list[Any]
    optimizer: Any
    averages: list[Any]
    seeds: list[Any]
    loss: Callable[[Any, Any, Any], Any]  # targets, outputs, weights -> the mean loss
    clip: float
    sharpness: float
    fresh: list[Array] = field(default_factory=list)  # of the optimizer, before its first step

    @classmethod
    def of(cls, domain: Domain, recipe: Recipe) -> Stepping:
        import keras

        variables = trained(domain.model, recipe.frozen)
        optimizer = optimizers.build(recipe, variables)
        averages = [
            keras.Variable(keras.ops.copy(v.value), trainable=False, dtype=v.dtype, name="average") for v in variables
        ]

        def loss(targets: Any, outputs: Any, weights: Any) -> Any:
            return domain.loss(targets, outputs, weights, recipe.label_smoothing)

        fresh = [array(variable) for variable in optimizer.variables]
        seeds = seed_states(domain.model)
        clip, sharpness = recipe.gradient_clip, recipe.sharpness
        return cls(domain.model, variables, optimizer, averages, seeds, loss, clip, sharpness, fresh)

    @property
    def state(self) -> list[Any]:
        """Everything that a step changes."""
        return [*self.model.variables, *self.optimizer.variables, *self.averages]


class Stepper(Protocol):
    """Steps of one recipe. Between `end` and the next `begin`, all state lies in the variables of `of`."""

    of: Stepping
    compiled: bool  # by XLA, where that is a choice

    def begin(self) -> None:
        """Take the state, and count the window's loss from nothing."""

    def step(self, batch: Batch, rate: float, seeds: Array) -> None:
        """One step at this rate; `seeds` are the seed generators' states before it (shape: generators or 1, 2)."""

    def follow(self, weight: float) -> None:
        """Move the averages that share of the way to the weights."""

    def end(self) -> tuple[float, float]:
        """Give the state back: the sum of the steps' losses, and the last gradient's norm, in one transfer."""

    def observe(self, inputs: Any, seeds: Array) -> None:
        """A pass in training mode, for what layers note of their inputs."""


def norm_of(gradients: Sequence[Any]) -> Any:
    """The norm of all gradients together, by operations of Keras."""
    import keras

    squares = [keras.ops.sum(keras.ops.square(keras.ops.cast(g, "float32"))) for g in gradients if g is not None]
    return keras.ops.sqrt(sum(squares[1:], squares[0]))
