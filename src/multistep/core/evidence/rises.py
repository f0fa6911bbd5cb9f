"""Whether a curve has got worse: slowly, which is overfitting, or at once, which is divergence.

Sources: regression with AR(1) noise whose autocorrelation is integrated out (Zellner and Tiao 1964); how often it
errs, and what recorded curves say about the autocorrelation: docs/appendix/measured-stability.md.
"""

import numpy as np

from multistep.core.evidence.noise import MIN_POINTS, Floats, around_line, spikeless

OVERFITTING_ERROR = 0.04  # shared evenly among the looks so far; with 0.02, one run of seven lost 4 tolerances
EXPLOSION_SDS = 8.0  # of the noise before it, at least
EXPLOSION_SHARE = 0.3  # of the fall so far that must be lost again, and at once, to be called diverged
LASTING_POINTS = 3  # before an explosion, that tell its noise, and after it, that tell it from a spike

AUTOCORRELATIONS = np.linspace(0.0, 0.95, 20)  # that the noise may have; a grid to integrate over
CREDENCE = 1.0 - AUTOCORRELATIONS  # before the curve is seen: noise of looks at a trunk hardly lasts


def significant_rise(at: Floats, loss: Floats, best: int) -> float:
    """How much worse the curve got after its best point; 0 where noise could have done it.

    A line, and a parabola, through everything since the best point, the last half or the last quarter of it: a
    curve may rest at the bottom for long before it rises. The best point is left out, for it was chosen for being
    low.
    """
    error = OVERFITTING_ERROR / len(at)
    risen = 0.0
    for part in (0, 2, 3):
        start = best + 1 + (len(at) - best - 1) * part // 4
        if len(at) - start < MIN_POINTS:
            break
        points = spikeless(loss[start:]) > 0.0
        x, y = at[start:][points], loss[start:][points]
        for degree, least in ((1, MIN_POINTS), (2, MIN_POINTS + 2)):
            if len(x) >= least:
                rise, doubt = _rise(x, y, degree)
                risen = max(risen, rise) if doubt < error else risen
    return risen


def _rise(x: Floats, y: Floats, degree: int) -> tuple[float, float]:
    """From the first point to the last of a polynomial, and the probability that it is not above zero.

    The noise is AR(1). With few points its autocorrelation is hardly known, and a rise is what noise that lasts
    looks like: so every autocorrelation is asked, and counts as much as the points leave it likely.
    """
    from scipy.special import stdtr  # a tenth of a second, so only once a curve is read

    freedom = len(x) - degree - 1
    terms = ((x - x[0]) / (x[-1] - x[0]))[:, None] ** np.arange(degree + 1)
    columns = np.column_stack([terms, y - np.mean(y)])
    r = AUTOCORRELATIONS[:, None, None]
    # What is new in each point, if the noise is AR(1) of r: white, and as wide in the first point as in the others.
    white = np.concatenate([columns[None, :1] * np.sqrt(1.0 - r**2), columns[1:] - r * columns[:-1]], axis=1)
    products = white.transpose(0, 2, 1) @ white
    normal, right, total = products[:, :-1, :-1], products[:, :-1, -1], products[:, -1, -1]
    inverse = np.linalg.inv(normal)
    fitted = (inverse @ right[:, :, None])[:, :, 0]
    squares = np.maximum(total - np.sum(fitted * right, axis=1), 1e-12 * total + 1e-24)

    rises = np.sum(fitted[:, 1:], axis=1)
    deviations = np.sqrt(squares / freedom * np.sum(inverse[:, 1:, 1:], axis=(1, 2)))
    likelihood = -0.5 * (freedom * np.log(squares) + np.linalg.slogdet(normal)[1] - np.log(1.0 - AUTOCORRELATIONS**2))
    weight = np.exp(likelihood - np.max(likelihood)) * CREDENCE
    weight /= weight.sum()
    return float(weight @ rises), float(weight @ stdtr(freedom, -rises / deviations))


def explosion(loss: Floats, tolerance: float) -> float:
    """How far the curve jumped up, at once and for good; 0 if it did not.

    At once: within LASTING_POINTS windows, which tells it from overfitting. For good: all points since, at
    least LASTING_POINTS, stay up and the last is not on its way back, which tells it from a spike. The rise
    must be large against the tolerance, the noise before it and the fall before it.
    """
    count = len(loss)
    lowest_since = np.minimum.accumulate(loss[::-1])[::-1]
    fall = loss[0] - np.minimum.accumulate(loss)
    for split in range(LASTING_POINTS, count - LASTING_POINTS + 1):
        settled = min(split + LASTING_POINTS - 1, count - LASTING_POINTS)
        if lowest_since[settled] - loss[split - 1] <= max(tolerance, EXPLOSION_SHARE * fall[split - 1]):
            continue
        before = loss[max(0, split - 20) : split]
        level = float(np.median(before[-5:]))
        lasting = float(lowest_since[settled]) - level
        noise = around_line(before[-12:])
        peak = float(np.max(loss[split:])) - level
        threshold = max(EXPLOSION_SDS * noise, EXPLOSION_SHARE * float(fall[split - 1]), tolerance)
        if lasting > threshold and loss[-1] - level > 0.5 * peak:
            return lasting
    return 0.0
