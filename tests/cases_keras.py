"""Keras models and data, made by rule: what test_keras.py trains. Imported where Keras is installed alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import Model as Model
from keras.utils import PyDataset as PyDataset
from numpy.typing import NDArray

Pair = tuple[NDArray[Any], NDArray[Any]]


def clouds(examples: int, seed: int) -> Pair:
    """Points in 8 dimensions around one of 3 centres, and which."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, examples)
    return (generator.standard_normal((examples, 8)) + 1.2 * np.eye(8)[labels]).astype(np.float32), labels


def stripes(examples: int, seed: int) -> Pair:
    """Pictures of 8 by 8 with a stripe in one of two directions."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, examples)
    images = 0.3 * generator.standard_normal((examples, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[(slice(None), generator.integers(8)) if label else generator.integers(8)] += 1.0
    return images.astype(np.float32), labels


def perceptron() -> Any:
    """With all that has a state of its own: dropout, and batch normalisation."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(1),
        ]
    )


class Scaled(keras.layers.Layer):  # type: ignore[misc, unused-ignore]
    """A layer of the user's own, with a weight and noise."""

    def __init__(self, noise: float = 0.01, **more: Any) -> None:
        super().__init__(**more)
        self.noise = noise
        self.generator = keras.random.SeedGenerator(7)

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            inputs = inputs + self.noise * keras.random.normal(keras.ops.shape(inputs), seed=self.generator)
        return inputs * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise": self.noise}


class Subclassed(keras.Model):  # type: ignore[misc, unused-ignore]
    """Not built before it is called."""

    def __init__(self, width: int = 8, **more: Any) -> None:
        super().__init__(**more)
        self.first, self.scaled, self.last = (
            keras.layers.Dense(width, activation="relu"),
            Scaled(),
            keras.layers.Dense(3),
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.last(self.scaled(self.first(inputs), training=training))
