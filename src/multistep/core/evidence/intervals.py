"""Influences of independent blocks -> standard errors and 95% intervals."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ERROR = 0.05  # of every statement: of an interval, of a curve that is called stable, of all claims of a run together
CONFIDENCE = 1.0 - ERROR


def standard_error(influence: Floats) -> float:
    """The standard error of a mean of independent blocks; infinite for fewer than two, or if one is not finite."""
    blocks = len(influence)
    if blocks < 2 or not np.isfinite(influence).all():
        return math.inf
    return float(np.std(influence, ddof=1)) / math.sqrt(blocks)


def margin(influence: Floats, confidence: float = CONFIDENCE) -> float:
    """Half the width of a two-sided Student interval over blocks."""
    error = standard_error(influence)
    return error * student_quantile(len(influence), confidence) if math.isfinite(error) else math.inf


def wilson(score: float, influence: Floats, bounds: tuple[float, float]) -> tuple[float, float]:
    """The interval of a score that has bounds: within them, and not empty where the score is one of them.

    The score's place between its bounds is read as the share of hits among as many independent trials as would
    have its standard error, or as there are blocks if that is 0. For the accuracy of independent examples this is
    Wilson's interval, 1927; for the rest, the design effect of Korn and Graubard, 1998.
    """
    low, width = bounds[0], bounds[1] - bounds[0]
    share = min(max((score - low) / width, 0.0), 1.0)
    error = standard_error(influence) / width
    trials = 1 + share * (1 - share) / error**2 if error > 1e-9 else len(influence)
    student = student_quantile(len(influence), CONFIDENCE)
    centre = share + student**2 / (2 * trials)
    half_width = student * math.sqrt(share * (1 - share) / trials + (student / (2 * trials)) ** 2)
    shrunk = width / (1 + student**2 / trials)
    return max(low + (centre - half_width) * shrunk, low), min(low + (centre + half_width) * shrunk, bounds[1])


def above_zero(score: float, influence: Floats, *, counted: bool) -> tuple[float, float]:
    """The interval of a mean of numbers of which none is negative: never below 0, as wide as Student's where that is
    far from 0.

    The variance is taken to grow with the mean, as that of counts does, and the mean is sought that the score lies
    just within its own interval of (Wilson's way, for Poisson counts; Sahai and Khurshid, 1993). `counted`: where not
    one error was counted, as many blocks were seen without one as there are, and the interval says what that excludes.
    """
    student = student_quantile(len(influence), CONFIDENCE)
    if not score > 0:
        return 0.0, student**2 / len(influence) if counted else 0.0
    half = 2 * math.asinh(student * standard_error(influence) / score / 2)
    return score * math.exp(-half), score * math.exp(half)


def student_quantile(blocks: int, confidence: float = CONFIDENCE) -> float:
    """Half the width of a two-sided interval over blocks, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(blocks - 1, 0.5 + confidence / 2))
