"""Learning rates of one optimizer told in another's, and of one batch in a larger one's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from multistep.core.recipe import OptimizerName

TYPICAL_RATE: Mapping[OptimizerName, float] = MappingProxyType(
    {
        "muon": 0.03,
        "adamw": 5e-3,
        "adam": 5e-3,
        "sgd": 0.1,  # a convolutional net's: arXiv 1512.03385
        "adafactor": 0.05,
        "schedule-free": 1e-2,
        "soap": 5e-3,
        "lion": 5e-4,  # a tenth of AdamW's: arXiv 2302.06675
        "prodigy": 1.0,  # a factor of the rate that it finds: arXiv 2306.06101
    }
)
"""What a model from nothing, of the size this package makes, trains well at."""


def convert_rate(rate: float, old: OptimizerName, new: OptimizerName) -> float:
    """The rate that lies as far from what is typical of `new` as `rate` does from what is typical of `old`.

    Prodigy finds its rate by itself: its own is always 1, and says nothing of another's.
    """
    if new == "prodigy" or old == "prodigy":
        return TYPICAL_RATE[new]
    return rate if new == old else rate * TYPICAL_RATE[new] / TYPICAL_RATE[old]


def scaled_rate(rate: float, optimizer: OptimizerName, factor: float) -> float:
    """The rate for a batch larger by `factor`: SGD's grows with it (arXiv 1706.02677), an adaptive optimizer's
    with its root (arXiv 2205.10287); Prodigy's stays, since it finds its own.
    """
    if optimizer == "prodigy":
        return rate
    return rate * (factor if optimizer == "sgd" else math.sqrt(factor))
