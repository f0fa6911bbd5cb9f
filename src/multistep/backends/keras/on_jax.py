"""Steps on JAX: one jitted pure function of the state, which lies in lists while a window is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from multistep.backends.keras.domain import Array, Batch
from multistep.backends.keras.stepping import Stepping, norm_of

State = tuple[list[Any], list[Any], list[Any]]  # of the model's trainable and other variables, and the optimizer's


class JaxStepper:
    """Implements stepping.Stepper."""

    def __init__(self, of: Stepping) -> None:
        self.of, self.compiled = of, False
        model = of.model
        trainable, others = model.trainable_variables, model.non_trainable_variables
        self._places = [_place(variable, trainable) for variable in of.trained]
        self._seed_places = [_place(state, others) for state in of.seeds]
        self._rate_place = _place(of.optimizer._learning_rate, of.optimizer.variables)
        self._seed_type = np.dtype(of.seeds[0].dtype) if of.seeds else np.dtype(np.uint32)
        self._step, self._lerp = jax.jit(self._stepped), jax.jit(_lerped)
        self._pass = jax.jit(self._passed)

    def begin(self) -> None:
        model = self.of.model
        self._state: State = (
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            [v.value for v in self.of.optimizer.variables],
        )
        self._averages = [v.value for v in self.of.averages]
        self._loss_sum = self._norm = jnp.zeros(())

    def step(self, batch: Batch, rate: float, seeds: Array) -> None:
        given = (np.asarray(rate, np.float32), seeds.astype(self._seed_type))
        self._state, self._loss_sum, self._norm = self._step(self._state, self._loss_sum, batch, *given)

    def _stepped(self, state: State, loss_sum: Any, batch: Batch, rate: Any, seeds: Any) -> tuple[State, Any, Any]:
        of = self.of
        trainable, others, slots = list(state[0]), self._seeded(state[1], seeds), list(state[2])
        slots[self._rate_place] = rate.astype(slots[self._rate_place].dtype)
        weights = [trainable[place] for place in self._places]

        def objective(values: list[Any]) -> tuple[Any, tuple[Any, list[Any]]]:
            full = self._with(trainable, values)
            outputs, found, more = of.model.stateless_call(full, others, batch[0], training=True, return_losses=True)
            loss = of.loss(batch[1], outputs, batch[2])
            return loss + sum(jnp.sum(each) for each in more), (loss, found)

        gradient = jax.value_and_grad(objective, has_aux=True)
        (_, (loss, found)), gradients = gradient(weights)
        if of.sharpness:
            share = of.sharpness / (norm_of(gradients) + 1e-12)
            _, gradients = gradient([w + share * g for w, g in zip(weights, gradients, strict=True)])
        norm = norm_of(gradients)
        if of.clip:
            gradients = [g * jnp.minimum(1.0, of.clip / norm).astype(g.dtype) for g in gradients]
        weights, slots = of.optimizer.stateless_apply(slots, gradients, weights)
        return (self._with(trainable, weights), found, slots), loss_sum + loss, norm

    def _with(self, trainable: list[Any], values: list[Any]) -> list[Any]:
        full = list(trainable)
        for place, value in zip(self._places, values, strict=True):
            full[place] = value
        return full

    def _seeded(self, others: list[Any], seeds: Any) -> list[Any]:
        found = list(others)
        for i, place in enumerate(self._seed_places):
            found[place] = seeds[i]
        return found

    def follow(self, weight: float) -> None:
        values = [self._state[0][place] for place in self._places]
        self._averages = self._lerp(self._averages, values, np.asarray(weight, np.float32))

    def end(self) -> tuple[float, float]:
        model = self.of.model
        groups = (model.trainable_variables, model.non_trainable_variables, self.of.optimizer.variables)
        for variables, values in (*zip(groups, self._state, strict=True), (self.of.averages, self._averages)):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        loss, norm = np.asarray(jnp.stack([self._loss_sum, self._norm])).tolist()
        return loss, norm

    def observe(self, inputs: Any, seeds: Array) -> None:
        model = self.of.model
        values = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        found = self._pass(*values, inputs, seeds.astype(self._seed_type))
        for variable, value in zip(model.non_trainable_variables, found, strict=True):
            variable.assign(value)

    def _passed(self, trainable: list[Any], others: list[Any], inputs: Any, seeds: Any) -> list[Any]:
        _, found = self.of.model.stateless_call(trainable, self._seeded(others, seeds), inputs, training=True)
        return list(found)


def scorer(model: Any, rows: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    def passed(trainable: Any, others: Any, inputs: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        outputs, _ = model.stateless_call(trainable, others, inputs, training=False)
        return outputs, rows(targets, outputs, weights)

    jitted = jax.jit(passed)

    def score(inputs: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        values = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        found: tuple[Any, Any] = jitted(*values, inputs, targets, weights)
        return found

    return score


def _place(variable: Any, variables: list[Any]) -> int:
    return next(i for i, each in enumerate(variables) if each is variable)


def _lerped(averages: list[Any], values: list[Any], weight: Any) -> list[Any]:
    return [a + weight.astype(a.dtype) * (v - a) for a, v in zip(averages, values, strict=True)]
