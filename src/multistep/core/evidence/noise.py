"""What a curve's noise is like: spikes, how long it lasts, how wide it is. Pure functions of arrays."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_POINTS = 5  # of a line with noise around it: fewer leave its own scatter unknown
SPIKE_SDS = 5.0  # from the median of its neighbours, beyond which a point is a spike
CAUTION = 0.25  # standard errors added to the autocorrelation


def spikeless(y: Floats) -> Floats:
    """1 for a point, 0 for a spike: further from its neighbours' median than noise goes (Hampel filter).

    Windows of 7 points, shrinking symmetrically at the ends, so that a slope alone marks nothing.
    """
    away = np.zeros_like(y)
    for half in (1, 2, 3):
        if len(y) > 2 * half:
            middle = np.median(np.lib.stride_tricks.sliding_window_view(y, 2 * half + 1), axis=1)
            away[half:-half] = np.abs(y[half:-half] - middle)
    scale = 1.4826 * np.median(away)
    return np.where(away > SPIKE_SDS * scale, 0.0, 1.0) if scale > 0.0 else np.ones_like(y)


def inflation(residuals: Floats, points: float) -> float:
    """By how much AR(1) noise inflates the variance of a mean: (1 + r) / (1 - r).

    r is the lag-1 autocorrelation, corrected for its bias after a fit (Marriott and Pope 1954), plus a
    quarter of its standard error: with many looks, some fall where the noise happens to look white.
    """
    total = float(residuals @ residuals)
    if total <= 0.0:
        return 1.0
    raw = float(residuals[1:] @ residuals[:-1]) / total
    corrected = raw + (1.0 + 4.0 * raw) / points
    r = min(max(corrected + CAUTION / float(np.sqrt(points)), 0.0), 0.95)
    return (1.0 + r) / (1.0 - r)


def around_line(y: Floats) -> float:
    """Robust standard deviation around a straight line, so that a fall is not taken for noise."""
    x = np.arange(len(y)) - 0.5 * (len(y) - 1)
    residuals = y - np.mean(y) - x * float(x @ y) / float(x @ x)
    return 1.4826 * float(np.median(np.abs(residuals)))


@lru_cache(maxsize=1024)
def student(error: float, freedom: float) -> float:
    """Upper quantile of Student's t."""
    from scipy.special import stdtrit  # a tenth of a second, so only once a curve is read

    return float(stdtrit(freedom, 1.0 - error))
