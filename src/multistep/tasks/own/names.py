"""The losses of torch by name, as torch.nn.functional calls them, and its functions as modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import nn

from multistep.errors import PlanError, nearest

FUNCTIONS: Mapping[Any, Callable[[], nn.Module]] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.poisson_nll_loss: nn.PoissonNLLLoss,
    F.multi_margin_loss: nn.MultiMarginLoss,
    F.soft_margin_loss: nn.SoftMarginLoss,
}
NAMED: Mapping[str, Callable[[], nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
    "bce": nn.BCELoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "smooth_l1": nn.SmoothL1Loss,
    "huber": nn.HuberLoss,
    "poisson_nll": nn.PoissonNLLLoss,
    "multi_margin": nn.MultiMarginLoss,
    "soft_margin": nn.SoftMarginLoss,
}
ALSO_NAMED: Mapping[str, str] = {
    "binary_cross_entropy_with_logits": "bce_with_logits",
    "binary_cross_entropy": "bce",
    "mae": "l1",
    "mean_squared_error": "mse",
    "mean_absolute_error": "l1",
    "ce": "cross_entropy",
    "crossentropy": "cross_entropy",
    "crossentropyloss": "cross_entropy",
}


def named_loss(name: str) -> nn.Module:
    """The loss of torch that is called so, as in torch.nn.functional. Raises PlanError that lists the names."""
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    key = ALSO_NAMED.get(key, key.removesuffix("_loss"))
    key = ALSO_NAMED.get(key, key)
    if key not in NAMED:
        raise PlanError(
            f"loss is {name!r}; allowed: {', '.join(NAMED)}, a loss module, or a function (output, target) -> mean "
            f"loss.{nearest(key, NAMED)}"
        )
    return NAMED[key]()
