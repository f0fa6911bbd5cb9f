"""What a learning curve shows: improving, stable, overfitting, diverged or undecided; and the forecast.

Stability is a statement about a noisy curve, not a patience counter: stable means that the upper 95% bound of
the improvement still to be expected over the horizon is below the tolerance. How, and how often it errs:
docs/appendix/measured-stability.md.

Sources: learning curves fall as offset power laws (arXiv 1712.00409, 2001.08361); plateau tests with
correlated noise (arXiv 1909.09785, 2002.10597); bounds that hold over all looks (arXiv 1810.08240, here by
Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.intervals import ERROR
from multistep.core.evidence.noise import MIN_POINTS as MIN_POINTS
from multistep.core.evidence.noise import Floats, inflation, spikeless, student
from multistep.core.evidence.rises import explosion, significant_rise
from multistep.core.evidence.scores import Form, metric_words

MIN_STABLE_POINTS = 10  # with fewer, the noise itself is unknown
MIN_STABLE_SHARE = 0.2  # of the steps up to the end of the horizon: no short curve vouches for a long future
SHORTER_PART = 1.5  # horizons
STABLE_LOOKS = 3  # in a row that must agree
# In a row that must agree: what got worse has begun, so fewer than for a plateau. With 4, one run of seven lost 4
# tolerances.
OVERFITTING_LOOKS = 2

# (1 - x**power) / power: from a straight line (1) over the logarithm (0) to a steep power law
POWERS = np.array([1.0, 0.5, 1e-6, -0.25, -0.5, -1.0, -1.5, -2.0, -3.0])[:, None]
# exp(-x / time); both in units of the steps so far
TIMES = np.array([0.14, 0.18, 0.23, 0.3, 0.4, 0.6, 0.9])[:, None]


class Stability(StrEnum):
    """What a learning curve shows."""

    IMPROVING = "improving"
    STABLE = "stable"
    OVERFITTING = "overfitting"
    DIVERGED = "diverged"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Forecast:
    """What going on would still bring within the horizon, in the score's unit; positive is better.

    `low` and `high` are one-sided 95% bounds that hold over all looks so far together.
    `noise` is the standard deviation of one point around the curve.
    """

    expected: float
    low: float
    high: float
    noise: float


@dataclass(frozen=True)
class Reading:
    """A curve's stability, why, and the index of the point where the smoothed curve is best."""

    stability: Stability
    forecast: Forecast | None
    reason: str
    best_index: int


def read_curve(
    steps: Sequence[float],
    scores: Sequence[float],
    *,
    horizon_steps: float,
    tolerance: float,
    maximize: bool = False,
    train_losses: Sequence[float] | None = None,
    form: Form | None = None,
) -> Reading:
    """Read the validation points of a trunk at constant learning rate.

    steps: ascending. scores: one per step, may hold NaN or inf. tolerance: in the score's unit, above 0. form: how the
    reason names the score and writes it.
    train_losses: one per step, if known; an explosion of the score that they do not share is no divergence.
    Raises ValueError for lengths that differ, steps that do not ascend, a tolerance or horizon out of range.
    """
    at = np.asarray(steps, dtype=np.float64)
    loss = np.asarray(scores, dtype=np.float64) * (-1.0 if maximize else 1.0)
    train = None if train_losses is None else np.asarray(train_losses, dtype=np.float64)
    _check(at, loss, train, horizon_steps, tolerance)
    form = form or Form("score")
    name = f"the validation {metric_words(form.name)}"

    finite = np.isfinite(loss)
    kept = np.flatnonzero(finite)
    if not len(kept):
        stability = Stability.DIVERGED if len(loss) else Stability.UNDECIDED
        return Reading(stability, None, f"{name} was never finite", 0)
    inner_best = _best_index(loss[kept])
    best = int(kept[inner_best])
    if not finite[-1] or (train is not None and not np.isfinite(train[-1])):
        return Reading(Stability.DIVERGED, None, f"the loss was not finite at step {at[-1]:,.0f}", best)
    at, loss, train = at[kept], loss[kept], None if train is None else train[np.isfinite(train)]
    if len(at) < MIN_POINTS:
        return Reading(
            Stability.UNDECIDED, None, f"{len(at)} evaluations are too few to tell, which takes {MIN_POINTS}", best
        )

    if (rise := explosion(loss, tolerance)) > 0.0 and (train is None or explosion(train, 0.0) > 0.0):
        return Reading(
            Stability.DIVERGED, None, f"{name} got worse by {form.size(rise)} at once and stayed there", best
        )
    forecast, falling = _forecast(at, loss, horizon_steps)
    looks = range(len(at), len(at) - OVERFITTING_LOOKS, -1)
    if (rise := min(significant_rise(at[:look], loss[:look], inner_best) for look in looks)) > tolerance:
        reason = f"{name} got worse by {form.size(rise)} since step {at[inner_best]:,.0f}, which is beyond noise"
        return Reading(Stability.OVERFITTING, forecast, reason, best)
    bounds = _bounds(forecast, tolerance, form)
    if forecast.high < tolerance:
        doubt = _doubt(at, loss, forecast, horizon_steps, tolerance)
        stability = Stability.UNDECIDED if doubt else Stability.STABLE
        return Reading(stability, forecast, f"{doubt}{bounds}", best)
    if falling:
        return Reading(Stability.IMPROVING, forecast, bounds, best)
    reason = f"noise of {form.size(forecast.noise)} between evaluations hides the trend: {bounds}"
    return Reading(Stability.UNDECIDED, forecast, reason, best)


def _doubt(at: Floats, loss: Floats, forecast: Forecast, horizon_steps: float, tolerance: float) -> str:
    """Why a bound below the tolerance is not yet believed; empty if it is."""
    if forecast.expected < -tolerance:
        return "it may be getting worse, which is not beyond doubt yet: "
    if len(at) < MIN_STABLE_POINTS:
        return f"{len(at)} evaluations are too few to tell, which takes {MIN_STABLE_POINTS}: "
    if at[-1] < MIN_STABLE_SHARE * (at[-1] + horizon_steps):
        return "the curve is too short to tell for what is left of the run: "
    for back in range(1, STABLE_LOOKS):
        if _forecast(at[:-back], loss[:-back], horizon_steps)[0].high >= tolerance:
            return "this is not confirmed yet: "
    return ""


def _bounds(forecast: Forecast, tolerance: float, form: Form) -> str:
    """What going on is expected to bring, beside what would be worth it."""
    name = f"the validation {metric_words(form.name)}"
    if forecast.high <= 0:
        return f"going on is expected to make {name} worse"
    expected = f"by {form.size(forecast.expected)} and" if forecast.expected > 0 else "no further, and"
    return (
        f"going on is expected to improve {name} {expected} by {form.size(forecast.high)} at most; what is worth going "
        f"on for is {form.size(tolerance)}"
    )


def _check(at: Floats, loss: Floats, train: Floats | None, horizon_steps: float, tolerance: float) -> None:
    if len(at) != len(loss) or (train is not None and len(train) != len(at)):
        raise ValueError(f"{len(at)} steps, {len(loss)} scores: as many of each (and train losses) needed")
    if not np.all(np.diff(at) > 0.0) or (len(at) and at[0] < 0.0):
        raise ValueError("steps must ascend, from 0 or above")
    if not 0.0 < tolerance < np.inf:
        raise ValueError(f"tolerance must be finite and above 0, not {tolerance}")
    if not 0.0 <= horizon_steps < np.inf:
        raise ValueError(f"horizon_steps must be finite and 0 or above, not {horizon_steps}")


def _forecast(at: Floats, loss: Floats, horizon_steps: float) -> tuple[Forecast, bool]:
    """The forecast from the last two thirds, or from a shorter part if that bounds the improvement lower.

    The shorter part still has to be half as long again as the horizon: what lies further back, the end of a
    ledge perhaps, then no longer stands in the way of calling the rest flat.
    """
    recent = min(len(at) // 3, len(at) - MIN_POINTS)
    forecast, falling = _fit(at, loss, horizon_steps, recent)
    long_enough = int(np.searchsorted(at, at[-1] - SHORTER_PART * horizon_steps, side="right")) - 1
    shorter = min(long_enough, len(at) - MIN_STABLE_POINTS)
    if shorter > recent:
        other, _ = _fit(at, loss, horizon_steps, shorter)
        if other.high < forecast.high:
            return other, falling
    return forecast, falling


@dataclass(frozen=True)
class _Fit:
    """Every shape fitted to a part of a curve: loss = level + size * shape(step), by least squares (shape: shapes).

    unit: squared standard error of a mean of the points, their noise's duration in it. variance: of one point.
    """

    first: float  # where shapes begin, in units of the last step
    size: Floats
    spread: Floats  # of each shape over the points
    distance: Floats  # by how many units its error exceeds the best shape's
    unit: float
    variance: float
    points: float
    inflated: float

    def at(self, ends: Sequence[float]) -> Floats:
        """Every shape at these steps (shape: shapes, steps)."""
        return _shapes(np.maximum(np.asarray(ends, dtype=np.float64), self.first))

    def credence(self, plausible: NDArray[np.bool_] | None = None) -> Floats:
        weight = np.exp(-0.5 * self.distance)
        weight = weight if plausible is None else np.where(plausible, weight, 0.0)
        return np.asarray(weight / weight.sum())


def _fitted(at: Floats, loss: Floats, recent: int) -> _Fit:
    """The shapes fitted to the points from `recent` on; spikes do not count."""
    x, y = at[recent:] / at[-1], loss[recent:]
    first = max(x[0], 0.5 * x[1])  # a power law has no value at step 0
    shapes = _shapes(np.maximum(x, first))
    unmarked = spikeless(y)
    weight = unmarked / unmarked.sum()
    y = y - weight @ y
    centred = shapes - (shapes @ weight)[:, None]
    spread = (centred**2) @ weight
    size = (centred @ (weight * y)) / spread
    residuals = y - size[:, None] * centred
    errors = (residuals**2) @ weight
    points = float(unmarked.sum())
    chosen = int(np.argmin(errors))
    variance = float(errors[chosen]) * points / max(points - 3.0, 1.0) + 1e-24
    inflated = inflation(residuals[chosen] * unmarked, points)
    unit = variance * inflated / points
    distance = np.maximum(errors - errors[chosen], 0.0) / unit
    return _Fit(float(first), size, spread, distance, unit, variance, points, inflated)


def _fit(at: Floats, loss: Floats, horizon_steps: float, recent: int) -> tuple[Forecast, bool]:
    """Bounds over all shapes, and whether the fall within the points from `recent` on is beyond doubt.

    A shape's bound is where its likelihood, profiled over level and size, has fallen as far as the error allows from
    the best shape's: a badly fitting shape is granted less doubt, down to none.
    """
    fit = _fitted(at, loss, recent)
    starts, now, later = fit.at([fit.first, 1.0, 1.0 + horizon_steps / at[-1]]).T
    quantile = student(_error_per_look(len(at)), max(fit.points / fit.inflated - 2.0, 1.0))
    doubt = np.sqrt(np.maximum(quantile**2 - fit.distance, 0.0))
    plausible = fit.distance <= quantile**2
    deviation = np.sqrt(fit.unit / fit.spread)

    reach = now - later
    centre, swing = fit.size * reach, doubt * deviation * np.abs(reach)
    forecast = Forecast(
        expected=float(fit.credence(plausible) @ centre),
        low=float(np.min((centre - swing)[plausible])),
        high=float(np.max((centre + swing)[plausible])),
        noise=float(np.sqrt(fit.variance)),
    )
    falls = fit.size * (starts - now) - doubt * deviation * np.abs(starts - now)
    return forecast, bool(np.min(falls[plausible]) > 0.0)


def gain_between(
    steps: Sequence[float], scores: Sequence[float], since: float, until: float, *, maximize: bool = False
) -> tuple[float, float] | None:
    """By how much the curve is better at step `until` than at `since`: mean and standard deviation, in its unit.

    `until` may lie ahead. No bound that holds over many looks, as a forecast's, but what a bet is made on: the mean
    over all shapes, each as likely as it fits the points from `since` on, or the last two thirds if those are more.
    None for fewer than five finite points.
    """
    at = np.asarray(steps, dtype=np.float64)
    loss = np.asarray(scores, dtype=np.float64) * (-1.0 if maximize else 1.0)
    at, loss = at[np.isfinite(loss)], loss[np.isfinite(loss)]
    if len(at) < MIN_POINTS:
        return None
    fit = _fitted(at, loss, min(len(at) // 3, len(at) - MIN_POINTS, int(np.searchsorted(at, since))))
    begin, end = fit.at([since / at[-1], until / at[-1]]).T
    credence = fit.credence()
    gains, reach = fit.size * (begin - end), np.abs(begin - end)
    mean = float(credence @ gains)
    within, among = credence @ (fit.unit / fit.spread * reach**2), credence @ (gains - mean) ** 2
    return mean, float(np.sqrt(within + among))


def _shapes(x: Floats) -> Floats:
    """Every shape's value at `x` (steps so far = 1), one row a shape; all fall with x."""
    return np.concatenate([(1.0 - x**POWERS) / POWERS, np.exp(-x / TIMES)])


def _error_per_look(points: int) -> float:
    """The error is shared among the doublings so far: fits at n and 3n points share none of their data."""
    return ERROR / (1.0 + float(np.log2(points / (MIN_POINTS - 1))))


def _best_index(loss: Floats) -> int:
    """Where the curve is lowest after a median of 3 and a moving mean over a tenth of the points."""
    if len(loss) < MIN_POINTS:
        return int(np.argmin(loss))
    padded = np.concatenate([loss[:1], loss, loss[-1:]])
    calm = np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1)
    kernel = np.ones(2 * max(1, len(loss) // 20) + 1)
    smooth = np.convolve(calm, kernel, "same") / np.convolve(np.ones_like(calm), kernel, "same")
    return int(np.argmin(smooth))
