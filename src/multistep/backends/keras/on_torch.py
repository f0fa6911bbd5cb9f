"""Steps on torch, as Keras has it: eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch

from multistep.backends.keras.domain import Array, Batch
from multistep.backends.keras.stepping import Stepping, norm_of


class TorchStepper:
    """Implements stepping.Stepper."""

    def __init__(self, of: Stepping) -> None:
        self.of, self.compiled = of, False

    def begin(self) -> None:
        self._loss_sum = self._norm = keras.ops.zeros(())

    def step(self, batch: Batch, rate: float, seeds: Array) -> None:
        of = self.of
        inputs, targets, weights = keras.tree.map_structure(_as_tensor, batch)
        _assign(of.seeds, seeds)
        of.optimizer._learning_rate.assign(rate)
        loss, gradients = self._gradients(inputs, targets, weights)
        if of.sharpness:
            before = [v.value.detach().clone() for v in of.trained]
            others = [(v, v.value.detach().clone()) for v in of.model.non_trainable_variables]
            share = of.sharpness / (norm_of(gradients) + 1e-12)
            with torch.no_grad():
                for variable, gradient in zip(of.trained, gradients, strict=True):
                    if gradient is not None:
                        variable.assign(variable.value + share * gradient)
            _assign(of.seeds, seeds)
            _, gradients = self._gradients(inputs, targets, weights)
            for variable, value in (*zip(of.trained, before, strict=True), *others):
                variable.assign(value)
        norm = norm_of(gradients)
        with torch.no_grad():
            if of.clip:
                share = torch.clamp(of.clip / norm, max=1.0)
                gradients = [g if g is None else g * share for g in gradients]
            of.optimizer.apply(gradients, of.trained)
        self._loss_sum = self._loss_sum + loss.detach()
        self._norm = norm.detach()

    def _gradients(self, inputs: Any, targets: Any, weights: Any) -> tuple[Any, list[Any]]:
        of = self.of
        for variable in of.model.trainable_variables:
            variable.value.grad = None
        loss = of.loss(targets, of.model(inputs, training=True), weights)
        (loss + sum(each.sum() for each in of.model.losses)).backward()
        return loss, [v.value.grad for v in of.trained]

    @torch.no_grad()
    def follow(self, weight: float) -> None:
        for average, variable in zip(self.of.averages, self.of.trained, strict=True):
            average.assign(average.value + weight * (variable.value - average.value))

    def end(self) -> tuple[float, float]:
        for variable in self.of.model.trainable_variables:
            variable.value.grad = None
        loss, norm = torch.stack([self._loss_sum, self._norm]).tolist()
        return loss, norm

    @torch.no_grad()
    def observe(self, inputs: Any, seeds: Array) -> None:
        _assign(self.of.seeds, seeds)
        self.of.model(keras.tree.map_structure(_as_tensor, inputs), training=True)


def scorer(model: Any, rows: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    @torch.no_grad()
    def score(*batch: Any) -> tuple[Any, Any]:
        inputs, targets, weights = keras.tree.map_structure(_as_tensor, batch)
        outputs = model(inputs, training=False)
        return outputs, rows(targets, outputs, weights)

    return score


def _as_tensor(value: Any) -> Any:
    return None if value is None else keras.ops.convert_to_tensor(value)


def _assign(states: list[Any], seeds: Array) -> None:
    for state, seed in zip(states, seeds, strict=False):
        state.assign(seed)
    torch.manual_seed(int(seeds[0, 0]))  # from which Keras draws where a layer was given no seed of its own
