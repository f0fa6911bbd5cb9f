"""Statistics of numbers that were predicted: each gives its value and every row's influence, as in `statistics`.

A row has one number (`label`, `prediction`), or several (`target_0`, `output_0`, ...), over which is averaged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from multistep.core.evidence.statistics import Columns, Estimate, mean_of

Floats = npt.NDArray[np.float64]
ABOUT_ZERO = 1e-4  # of the mean size of targets: a smaller one makes a percentage of thousands by itself
LEAST = float(np.finfo(np.float64).eps)  # what a target of 0 counts as in a percentage, as scikit-learn has it


def mean_squared_error(columns: Columns) -> Estimate:
    return mean_of(_squares(columns))


def root_mean_squared_error(columns: Columns) -> Estimate:
    """The square root of the mean square over all numbers; a row moves it by the slope of the root."""
    square, influence = mean_of(_squares(columns))
    value = float(np.sqrt(square))
    return value, (influence / (2 * value) if value > 0 else np.zeros_like(influence))


def mean_absolute_error(columns: Columns) -> Estimate:
    label_NK, prediction_NK = _pair(columns)
    return mean_of(np.abs(prediction_NK - label_NK).mean(axis=1))


def mean_absolute_percentage_error(columns: Columns) -> Estimate:
    """The mean of |error| / |target|, 1 being 100%; targets of 0 weigh enormously, as in scikit-learn."""
    label_NK, prediction_NK = _pair(columns)
    share_NK = np.abs(prediction_NK - label_NK) / np.maximum(np.abs(label_NK), LEAST)
    return mean_of(share_NK.mean(axis=1))


def has_shares(columns: Columns) -> bool:
    """Whether an error can be told as a share of its target: no target is about 0."""
    size_NK = np.abs(_pair(columns)[0])
    return bool((size_NK > ABOUT_ZERO * size_NK.mean(axis=0)).all())


def r2(columns: Columns) -> Estimate:
    """1 less the squared error's share of the targets' own variance, averaged over the numbers of a row.

    1 is perfect, 0 what the mean of these targets comes to, and below 0 is worse. A number that is the same in all
    rows is left out; where all are, nothing can be shown, and the value is 0.
    """
    label_NK, prediction_NK = _pair(columns)
    varies_K = np.ptp(label_NK, axis=0) > 0
    if not varies_K.any():
        return 0.0, np.full(len(label_NK), np.nan)
    label_NK, prediction_NK = label_NK[:, varies_K], prediction_NK[:, varies_K]
    missed_NK, spread_NK = (prediction_NK - label_NK) ** 2, (label_NK - label_NK.mean(axis=0)) ** 2
    ratio_K = missed_NK.mean(axis=0) / spread_NK.mean(axis=0)
    # The mean of the targets is at its best, so that a row's influence does not pass through it.
    influence_NK = -(missed_NK - ratio_K * spread_NK) / spread_NK.mean(axis=0)
    return float(1 - ratio_K.mean()), influence_NK.mean(axis=1)


def _squares(columns: Columns) -> Floats:
    label_NK, prediction_NK = _pair(columns)
    return np.asarray(((prediction_NK - label_NK) ** 2).mean(axis=1), dtype=np.float64)


def _pair(columns: Columns) -> tuple[Floats, Floats]:
    """Targets and predictions (shape: rows, numbers of a row; both)."""
    if "label" in columns:
        return columns["label"][:, None], columns["prediction"][:, None]
    count = sum(1 for name in columns if name.startswith("target_") and name[7:].isdigit())
    targets, outputs = ([columns[f"{kind}_{k}"] for k in range(count)] for kind in ("target", "output"))
    return np.stack(targets, axis=1), np.stack(outputs, axis=1)
