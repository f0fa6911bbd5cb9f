"""Layers that a recipe or averaged weights have to do with: those that drop activations, and batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def all_layers(model: Any) -> list[Any]:
    """Every layer within a model, at any depth, itself included."""
    return list(model._flatten_layers())  # as Keras' own summary and freezing walk them


def dropouts(model: Any) -> list[Any]:
    """The layers that drop activations. One that was made with a share of 0 has nothing to draw with: left out."""
    import keras

    found = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.Dropout)]
    return [layer for layer in found if getattr(layer, "seed_generator", None) is not None]


def batch_norms(model: Any) -> list[Any]:
    """Layers of batch normalisation that follow the batches' statistics: frozen ones do not."""
    import keras

    found = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in found if layer.trainable]


@contextmanager
def as_of_the_batch(norms: Sequence[Any]) -> Iterator[None]:
    """Within, moving statistics become those of the last batch, also in functions that are compiled there."""
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
