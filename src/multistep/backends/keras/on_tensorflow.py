"""Steps on TensorFlow: one tf.function, by XLA where that pays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from multistep.backends.keras.domain import Array, Batch
from multistep.backends.keras.stepping import Stepping


class TensorFlowStepper:
    """Implements stepping.Stepper."""

    def __init__(self, of: Stepping) -> None:
        self.of, self.compiled = of, False
        self._loss_sum = tf.Variable(0.0, trainable=False)
        self._norm = tf.Variable(0.0, trainable=False)
        self._seed_type = np.dtype(of.seeds[0].dtype) if of.seeds else np.dtype(np.int32)
        self._steps: dict[bool, Any] = {}

    def begin(self) -> None:
        self._loss_sum.assign(0.0)

    def step(self, batch: Batch, rate: float, seeds: Array) -> None:
        if self.compiled not in self._steps:
            self._steps[self.compiled] = tf.function(self._step, jit_compile=self.compiled or None)
        ready = keras.tree.map_structure(as_tensor, batch)
        self._steps[self.compiled](*ready, np.asarray(rate, np.float32), seeds.astype(self._seed_type))

    def _step(self, inputs: Any, targets: Any, weights: Any, rate: Any, seeds: Any) -> None:
        of = self.of
        for i, state in enumerate(of.seeds):
            state.assign(seeds[i])
        of.optimizer._learning_rate.assign(rate)
        loss, gradients = self._gradients(inputs, targets, weights)
        if of.sharpness:
            before = [tf.identity(v.value) for v in of.trained]
            others = [(v, tf.identity(v.value)) for v in of.model.non_trainable_variables]
            share = of.sharpness / (tf.linalg.global_norm([g for g in gradients if g is not None]) + 1e-12)
            for variable, gradient in zip(of.trained, gradients, strict=True):
                if gradient is not None:
                    variable.assign_add(share * tf.convert_to_tensor(gradient))
            for i, state in enumerate(of.seeds):
                state.assign(seeds[i])
            _, gradients = self._gradients(inputs, targets, weights)
            for variable, value in (*zip(of.trained, before, strict=True), *others):
                variable.assign(value)
        norm = tf.linalg.global_norm([g for g in gradients if g is not None])
        if of.clip:
            gradients, _ = tf.clip_by_global_norm(gradients, of.clip, use_norm=norm)
        of.optimizer.apply(gradients, of.trained)
        self._loss_sum.assign_add(tf.cast(loss, tf.float32))
        self._norm.assign(tf.cast(norm, tf.float32))

    def _gradients(self, inputs: Any, targets: Any, weights: Any) -> tuple[Any, list[Any]]:
        of = self.of
        with tf.GradientTape() as tape:
            loss = of.loss(targets, of.model(inputs, training=True), weights)
            objective = tf.add_n([loss, *(tf.cast(tf.reduce_sum(each), loss.dtype) for each in of.model.losses)])
        return loss, tape.gradient(objective, [v.value for v in of.trained])

    def follow(self, weight: float) -> None:
        self._follow(np.asarray(weight, np.float32))

    @functools.cached_property
    def _follow(self) -> Callable[[Any], None]:
        def follow(weight: Any) -> None:
            for average, variable in zip(self.of.averages, self.of.trained, strict=True):
                average.assign_add(tf.cast(weight, average.dtype) * (variable.value - average.value))

        found: Callable[[Any], None] = tf.function(follow)
        return found

    def end(self) -> tuple[float, float]:
        loss, norm = tf.stack([self._loss_sum, self._norm]).numpy().tolist()
        return loss, norm

    def observe(self, inputs: Any, seeds: Array) -> None:
        self._observe(keras.tree.map_structure(as_tensor, inputs), seeds.astype(self._seed_type))

    @functools.cached_property
    def _observe(self) -> Callable[[Any, Any], None]:
        def observe(inputs: Any, seeds: Any) -> None:
            for i, state in enumerate(self.of.seeds):
                state.assign(seeds[i])
            self.of.model(inputs, training=True)

        found: Callable[[Any, Any], None] = tf.function(observe)
        return found


def scorer(model: Any, rows: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def passed(inputs: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        outputs = model(inputs, training=False)
        return outputs, rows(targets, outputs, weights)

    def ready(*batch: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = passed(*keras.tree.map_structure(as_tensor, batch))
        return found

    return ready


def as_tensor(value: Any) -> Any:
    """An array as a tensor: tf.function takes numbers as they are, and traces strings anew for each value."""
    return value if value is None or value.dtype.kind in "fiub" else tf.constant(value)
