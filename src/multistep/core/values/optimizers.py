"""Learning rates of one optimizer told in another's, and of one batch in a larger one's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from multistep.core.values.recipe import OptimizerName

# For models from nothing, of the size this package makes, with a BPE of some thousand tokens. After # is what it gave
# of bits per byte, 600 steps on the Python manual, one seed (2 layers of width 128, 12 contexts of 64; decay and
# momentum as in the text preset, cooled down over half but for schedule-free), and the sources that rates rest on.
TYPICAL_RATE: Mapping[OptimizerName, float] = MappingProxyType(
    {
        "muon": 0.01,  # by longer runs, docs/appendix/experiments.md; 0.03: 1.887
        "adamw": 5e-3,  # 1.884; half: 1.891, twice: 1.920
        "adam": 5e-3,  # 1.910; half: 1.891
        "sgd": 0.25,  # 1.919; twice: 1.870, 0.1: 2.047, which convolutional nets take, arXiv 1512.03385
        "adafactor": 0.1,  # 1.919; of the weights' own size, capped by torch at 1 / sqrt(step), arXiv 1804.04235
        "schedule-free": 1e-2,  # 1.889; half: 1.896, twice: 2.027; above AdamW's, as in arXiv 2405.15682
        "soap": 5e-3,  # 1.863; half: 1.877, twice: 1.883; AdamW's, as in arXiv 2409.11321
        "lion": 1e-3,  # 2.005; five times: 1.949; a third to a tenth of AdamW's, arXiv 2302.06675
        "prodigy": 1.0,  # 1.959; a factor of the rate that it finds, arXiv 2306.06101
    }
)


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
