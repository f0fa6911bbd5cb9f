"""Numbers are trained in deviations from their mean; what is exported gives them in their own unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from multistep.tasks.labelled.labels import Array, Labels


@dataclass(frozen=True)
class Scale:
    """Numbers are predicted in deviations from their mean; a folder's head gives them in their own unit."""

    mean: float = 0.0
    deviation: float = 1.0

    @property
    def undone(self) -> Scale:
        """The scale that leads from the unit of the labels back to deviations."""
        return Scale(-self.mean / self.deviation, 1.0 / self.deviation)


UNSCALED = Scale()  # numbers in their own unit; of classes there is nothing to scale


def scale_of(train: Array, labels: Labels) -> Scale:
    """Mean and deviation of the training split's numbers; of classes nothing."""
    if labels.kind != "number":
        return UNSCALED
    return Scale(float(train.mean()), float(train.std()) or 1.0)


def last_linear(model: nn.Module) -> str:
    """The name of the layer that gives the logits."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return str(names[-1])


def rescale(model: nn.Module, scale: Scale, fresh: Sequence[str]) -> None:
    """Multiply and shift what the head gives, by its last layer; a layer that is `fresh` is left as it is."""
    name = last_linear(model)
    if scale == UNSCALED or f"{name}.weight" in fresh:
        return
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    layer.weight.mul_(scale.deviation)
    layer.bias.mul_(scale.deviation).add_(scale.mean)
