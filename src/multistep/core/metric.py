"""Metrics: pure functions of an evaluation's table.

An evaluation holds columns with one row an example, so that two checkpoints can be compared pair by pair.
Rows that are not independent (neighbouring spans of one text) share a block, and blocks are what is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from multistep.errors import PlanError, nearest

Floats = npt.NDArray[np.float64]
Goal = Literal["minimize", "maximize"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Evaluation:
    """A split scored example by example.

    `columns` maps a name to one number per example (all of equal length); `block` numbers the examples'
    blocks. For text: `loss` (summed nats), `count` (tokens), `bytes` (UTF-8).
    """

    columns: Mapping[str, Floats]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) != 1 or "block" not in self.columns:
            raise ValueError(f"an evaluation needs a 'block' column and columns of one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.columns["block"])

    def by_block(self, name: str) -> Floats:
        """The column summed within each block, in the order of the block numbers."""
        _, index = np.unique(self.columns["block"], return_inverse=True)
        return np.bincount(index, weights=self.columns[name]).astype(np.float64)


@dataclass(frozen=True)
class Interval:
    """A score with its 95% interval; `n` is the number of examples it rests on."""

    score: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Metric:
    """A ratio of two column sums, in `unit`; `exponential` for e to the power of it.

    `relative_tolerance` is the share of the score that nobody would wait for: what stability and forecasts
    are held against when the plan names no tolerance.
    """

    name: str
    goal: Goal
    unit: str
    numerator: str
    denominator: str
    scale: float = 1.0
    exponential: bool = False
    relative_tolerance: float = 0.003

    def score(self, evaluation: Evaluation) -> float:
        """The score over all examples; NaN if a row is not finite."""
        total = float(np.sum(evaluation.columns[self.denominator]))
        return self._transform(self.scale * float(np.sum(evaluation.columns[self.numerator])) / total)

    def improvement(self, new: float, old: float) -> float:
        """How much better `new` is, in the metric's unit; negative if worse, -inf if `new` is not finite."""
        if not math.isfinite(new):
            return -math.inf
        if not math.isfinite(old):
            return math.inf
        return old - new if self.goal == "minimize" else new - old

    def influence(self, evaluation: Evaluation) -> Floats:
        """Each block's first-order effect on the score (shape: blocks), the ratio estimator's linearisation.

        Its mean is 0 and its variance over blocks, divided by their number, is the score's variance:
        Cochran, Sampling Techniques, 3rd ed., section 6.3.
        """
        above = evaluation.by_block(self.numerator) * self.scale
        below = evaluation.by_block(self.denominator)
        ratio = above.sum() / below.sum()
        slope = self._transform(ratio) if self.exponential else 1.0
        return np.asarray(slope * (above - ratio * below) / below.mean(), dtype=np.float64)

    def interval(self, evaluation: Evaluation) -> Interval:
        """The score and its 95% interval over blocks; infinitely wide where there are fewer than two."""
        score = self.score(evaluation)
        half_width = margin(self.influence(evaluation))
        return Interval(score, score - half_width, score + half_width, len(evaluation))

    def tolerance(self, score: float) -> float:
        """The change of score that is too small to wait for, in the metric's unit; > 0."""
        return max(abs(score) * self.relative_tolerance, 1e-9)

    def _transform(self, ratio: float) -> float:
        if not self.exponential:
            return ratio
        return math.exp(ratio) if ratio < 700 else math.inf


def standard_error(influence: Floats) -> float:
    """The standard error of a mean of independent blocks; infinite for fewer than two."""
    blocks = len(influence)
    return float(np.std(influence, ddof=1)) / math.sqrt(blocks) if blocks > 1 else math.inf


def margin(influence: Floats, confidence: float = CONFIDENCE) -> float:
    """Half the width of a two-sided Student interval over blocks."""
    error = standard_error(influence)
    if not math.isfinite(error):
        return math.inf
    from scipy.special import stdtrit

    return error * float(stdtrit(len(influence) - 1, 0.5 + confidence / 2))


_TEXT = (
    Metric("loss", "minimize", "nats per token", "loss", "count"),
    Metric("perplexity", "minimize", "per token", "loss", "count", exponential=True),
    Metric("bits_per_byte", "minimize", "bits per byte", "loss", "bytes", scale=1 / math.log(2)),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _TEXT}
ALIASES: Mapping[str, str] = {"ppl": "perplexity", "bpb": "bits_per_byte"}


def metric_named(name: str) -> Metric:
    """The metric of that name. Raises PlanError that lists the allowed names."""
    key = name.strip().lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in METRICS:
        raise PlanError(f"unknown metric '{name}'; allowed: {', '.join(METRICS)}.{nearest(key, METRICS)}")
    return METRICS[key]
