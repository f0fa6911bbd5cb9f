"""Two evaluations of the same examples -> the improvement with its interval.

The comparison is paired: what both checkpoints find hard cancels, and what is left is the difference that
the validation split can show. Blocks, not tokens, are the independent pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multistep.core.evidence.intervals import margin, standard_error
from multistep.core.evidence.metric import Evaluation, Floats, Metric


@dataclass(frozen=True)
class Comparison:
    """How much better the new checkpoint is, in the metric's unit; positive is better for either goal."""

    improvement: float
    low: float
    high: float
    standard_error: float
    blocks: int

    @property
    def significant(self) -> bool:
        """Whether the 95% interval lies above zero."""
        return self.low > 0


def compare(metric: Metric, new: Evaluation, old: Evaluation) -> Comparison:
    """Compare two evaluations of the same examples, block by block.

    Raises ValueError if they do not cover the same examples.
    """
    if not np.array_equal(new.columns["block"], old.columns["block"]):
        raise ValueError("the two evaluations do not cover the same examples")
    sign = 1.0 if metric.goal == "maximize" else -1.0
    difference = sign * (metric.influence(new) - metric.influence(old))
    improvement = metric.improvement(metric.score(new), metric.score(old))
    half_width = margin(difference)
    return Comparison(
        improvement,
        improvement - half_width,
        improvement + half_width,
        standard_error(difference),
        len(difference),
    )


def paired(metric: Metric, new: Evaluation, rival: Evaluation) -> Floats:
    """Each block's linearised improvement (shape: blocks); its mean is the improvement."""
    sign = 1.0 if metric.goal == "maximize" else -1.0
    centred: Floats = sign * (metric.influence(new) - metric.influence(rival))
    found: Floats = centred - centred.mean() + metric.improvement(metric.score(new), metric.score(rival))
    return found
