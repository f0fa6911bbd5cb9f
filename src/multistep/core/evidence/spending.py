"""When is a candidate significantly better, over many attempts in one run? Its boundary in standard errors.

Open attempts are those that were neither kept nor clearly worse. With n of them before it, an attempt's boundary
is the value at which, were it and they no better than their rivals, the chance that any of them passes its own
boundary would be `spendable(n + 1)`: a growing share of 5%, so no end need be known in advance. The chance is
taken under the joint law of the paired differences: candidates that share an leader and blocks succeed and
fail together, and what an earlier boundary guards against is not paid for twice.

Spending: Lan and DeMets, Biometrika 70 (1983). The maximum of dependent statistics, without those rejected:
Romano and Wolf, JASA 100 (2005). Alpha that passes on: Wiens, Pharm. Stat. 2 (2003); that, and leaving out what
is clearly worse: Tian and Ramdas, Stat. Methods Med. Res. 30 (2021). The argument and the numbers:
docs/how-it-decides/verdicts.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multistep.core.evidence.intervals import ERROR as ERROR
from multistep.core.evidence.intervals import Floats, standard_error

POWER = 0.8  # with which a gain is found that `detectable` names
FIRST_SHARE = 0.6  # of the error, for the first attempt
PACE = 3.0  # open attempts until half of the rest is spent
CLEARLY_WORSE = 2.0  # standard errors
WORSE_PREMIUM = 0.05  # of the error: an attempt can look clearly worse by bad luck, in 2.3% of cases
LEAST_CORRELATION = -0.2  # below it, one candidate's bad luck is another's good luck
DRAWS = 4096  # of joint noise, that a boundary is read off: its error is a few thousandths
TAILS = (1e-6, ERROR)  # the range of tail probabilities in which boundaries are looked for


@dataclass(frozen=True)
class Attempt:
    """A candidate that was compared with its rival, and whether it was kept.

    `differences` holds each block's linearised improvement (shape: blocks); their mean is the improvement.
    With the mean left out (0 instead) the boundaries hold too, but no attempt is known to be clearly worse.
    """

    differences: Floats
    kept: bool


def critical_value(earlier: Sequence[Attempt], differences: Floats) -> float:
    """The standard errors by which the attempt with these `differences` must be better to be kept.

    `earlier` are all attempts of the run, in order; one that failed (its score is not finite) could not have
    been kept and is left out. Attempts with another number of blocks belong to another split: what they spent
    counts, as if they and this one could not both err. Infinite for fewer than two blocks, or if one is not finite.
    """
    if not _usable(differences):
        return math.inf
    from scipy.special import ndtr, stdtrit

    attempts = [attempt for attempt in earlier if _usable(attempt.differences)]
    normal = _boundaries([*attempts, Attempt(differences, kept=False)])[-1]
    return _guarded(-float(stdtrit(len(differences) - 1, ndtr(-normal))), differences)


def spendable(attempts: int) -> float:
    """The chance of a false keep that so many open attempts may have between them; grows towards 5%."""
    if attempts < 1:
        return 0.0
    return ERROR * (1.0 - WORSE_PREMIUM) * (1.0 - (1.0 - FIRST_SHARE) * PACE / (PACE + attempts - 1))


def detectable(standard_error: float, attempts_before: int, blocks: int) -> float:
    """The true improvement that the next attempt would find with 80% power, in the standard error's unit.

    `attempts_before` counts those still open. An upper bound: it rests on the attempt's own share alone, and
    correlation with the earlier ones makes smaller improvements visible.
    """
    if blocks < 2:
        return math.inf
    from scipy.special import stdtrit

    share = spendable(attempts_before + 1) - spendable(attempts_before)
    return standard_error * float(stdtrit(blocks - 1, POWER) - stdtrit(blocks - 1, share))


def blocks_needed(improvement: float, standard_error: float, attempts_before: int, blocks: int) -> int | None:
    """How many blocks the next attempt would need to find `improvement` with 80% power.

    `standard_error` is what `blocks` blocks gave. None where no number would do, or nothing is known.
    """
    if not (improvement > 0 and math.isfinite(standard_error)):
        return None

    def enough(count: int) -> bool:
        return detectable(standard_error * math.sqrt(blocks / count), attempts_before, count) <= improvement

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _guarded(boundary: float, differences: Floats) -> float:
    """The boundary, raised where a few large losses stand against many small gains.

    Until the sample holds its share of such losses, its mean is too high and its standard error too small.
    Hall's transformation, J. R. Stat. Soc. B 54 (1992), undoes that to second order. Only ever upwards: long
    tails of gains cost no error, and heavy tails on both sides make the estimated skewness a poor guide.
    """
    root = math.sqrt(len(differences))
    skewness = root * float(np.sum(_unit(differences) ** 3))
    if skewness > -1e-3:
        return boundary
    inner = 1.0 + skewness * (boundary - skewness / (6.0 * root)) / root
    return max(boundary, 3.0 * root / skewness * (math.cbrt(inner) - 1.0))


def _boundaries(attempts: Sequence[Attempt]) -> Floats:
    """Each attempt's boundary on the normal scale, as if standard errors were known exactly."""
    from scipy.special import ndtri

    blocks = [len(attempt.differences) for attempt in attempts]
    correlation, draws = _joint(attempts)
    closed = np.array([[a.kept] * len(attempts) for a in attempts])
    closed |= np.array([[_clearly_worse(a.differences)] for a in attempts]) & (correlation >= LEAST_CORRELATION)
    tails = np.geomspace(*TAILS, DRAWS)
    heights = -ndtri(tails)
    found = np.full(len(attempts), math.inf)

    def chances(k: int, before: list[int]) -> Floats:
        """That attempt k is above each of the heights and none before it passed its boundary.

        The height is drawn first, evenly over the logarithm of its tail; the others' errors follow given it.
        """
        same = [j for j in before if blocks[j] == blocks[k]]
        given = draws[same] + np.outer(correlation[same, k], heights - draws[k])
        none = np.all(given <= found[same, None], axis=0)
        return np.cumsum(np.diff(tails, prepend=0.0) * none)

    counted: list[list[int]] = []  # the open attempts that each one's boundary took into account
    risked: list[float] = []  # its own chance to be the first of them that passes
    for i in range(len(attempts)):
        before = [k for k in range(i) if not closed[k, i]]
        spent = 0.0
        for n, k in enumerate(before):
            known = counted[k] == before[:n]
            spent += risked[k] if known else float(np.interp(-found[k], -heights, chances(k, before[:n])))
        # Attempts that were out of the count for others may be in it for this one, and have spent its part.
        # Its own share in the order of all attempts is always left to it: those shares add up to the error.
        left = max(spendable(len(before) + 1) - spent, spendable(i + 1) - spendable(i))
        reached = chances(i, before)
        found[i] = np.interp(left, reached, heights) if left > reached[0] else -ndtri(left)
        counted.append(before)
        risked.append(left)
    return found


def _joint(attempts: Sequence[Attempt]) -> tuple[Floats, Floats]:
    """The correlation of the attempts' differences, and draws of their errors (shape: attempts, draws).

    The Gaussian multiplier bootstrap over blocks, drawn through the triangular factor of the correlation, so
    that an attempt's draws do not depend on those that follow. Splits of other sizes are left uncorrelated.
    """
    blocks = [len(attempt.differences) for attempt in attempts]
    correlation = np.zeros((len(attempts), len(attempts)))
    draws = np.zeros((len(attempts), DRAWS))
    for size in set(blocks):
        members = [k for k, count in enumerate(blocks) if count == size]
        units = np.stack([_unit(attempts[k].differences) for k in members], axis=1)
        factor = np.asarray(np.linalg.qr(units, mode="r"))
        draws[members] = factor.T @ np.random.default_rng(0).standard_normal((len(factor), DRAWS))
        correlation[np.ix_(members, members)] = units.T @ units
    return correlation, draws


def _unit(differences: Floats) -> Floats:
    centred = differences - np.mean(differences)
    length = float(np.linalg.norm(centred))
    return centred / length if length > 0 else centred


def _usable(differences: Floats) -> bool:
    return math.isfinite(standard_error(differences))


def _clearly_worse(differences: Floats) -> bool:
    return float(np.mean(differences)) < -CLEARLY_WORSE * standard_error(differences)
