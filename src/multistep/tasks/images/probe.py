"""The linear probe of a pretrained image classifier: of how many images there is time for, and its fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from multistep.backends.torch.batchnorm import batch_norms
from multistep.backends.torch.devices import pick_device
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Setting
from multistep.errors import PlanError
from multistep.tasks.images.models import Maker, TransformersMaker
from multistep.tasks.images.splits import ImageSplits
from multistep.tasks.labelled import linear_probe
from multistep.tasks.labelled.linear_probe import LinearProbe
from multistep.tasks.pretrained.settle import TUNING, seconds_of
from multistep.tasks.speeds import operations

AT_ONCE = 32  # images a batch
Pixels: TypeAlias = Callable[[NDArray[np.int64], torch.device], Tensor]


def probed(
    maker: Maker, splits: ImageSplits, pixels: Pixels, plan: Plan, given: Mapping[str, Setting]
) -> LinearProbe | None:
    """The probe that the maker's new last layer is to begin as; None where none is wanted, can be had or is borne.

    `pixels` gives those of some training images on a device, as the model reads them.

    Raises PlanError where the recipe asks for one that cannot be had.
    """
    asked = given.get("head") == "linear-probe"
    if not isinstance(maker, TransformersMaker) or not maker.pretrained:
        if asked:
            raise PlanError("recipe.head is linear-probe, but no pretrained model is trained here; leave it out")
        return None
    model = maker.build(0)
    wanted = linear_probe.wanted(given, splits.labels, maker.origin.fresh if maker.origin else (), model)
    if wanted is False or plan.phase_count > 1:
        return None
    if batch_norms(model):  # whose statistics are computed anew from the data, behind which a fitted layer is another's
        if asked:
            raise PlanError(
                f"recipe.head is linear-probe, but this {maker.architecture} has batch normalisation, whose statistics "
                "follow the data, so that no layer fitted before fits after; leave it out"
            )
        return None
    train, height, width = splits.train, splits.form.height, splits.form.width
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, splits.form.channels, height, width))
    per_image = counter.get_total_flops() / operations(TUNING)
    many = linear_probe.affordable(len(train), len(splits.validation), max(per_image, 1e-9), seconds_of(plan))
    if not many and not wanted:
        return None
    device = pick_device()

    def read(rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Callable[[nn.Module], object]]]:
        for at in range(0, len(rows), AT_ONCE):
            chosen = rows[at : at + AT_ONCE]
            yield chosen, functools.partial(_forward, pixels(chosen, device))

    labels, classes = train.labels.astype(np.int64), len(splits.labels.names)
    many = many or min(linear_probe.LEAST, len(train))
    return linear_probe.fitted(model, labels, classes, many, read, mark=f"{splits.fingerprint} {height}x{width}")


def _forward(pixels: Tensor, model: nn.Module) -> None:
    model(pixels)
