"""What a trunk that is cooled down now or later will score, over who leads: forecasts of its curve.

The curve of the metric and, beside it, that of the loss: a metric of hundreds of examples moves in the noise of a look
long after the loss has told where it goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multistep.core.choice.allowance import STABLE_COOLDOWN, allowance
from multistep.core.choice.forks import plain_controls
from multistep.core.choice.priors import link_of
from multistep.core.choice.readings import lineage, not_begun, spacing
from multistep.core.choice.retained import overfitted
from multistep.core.evidence.expected import Gain
from multistep.core.evidence.metric import Metric, beside
from multistep.core.evidence.stability import (
    MIN_POINTS,
    MIN_STABLE_POINTS,
    MIN_STABLE_SHARE,
    gain_between,
)
from multistep.core.values.events import Evaluated
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan

# A cooldown over half of the steps trains as far as three quarters of them at the plateau's rate.
WHILE_COOLING = 0.5
# Forecasts are this much less certain than the points around their curve say. On 200 simulated curves of each kind
# 92% (power laws), 83% (exponential) and 94% (with spikes) of the gains then lie within bounds that should hold 90%.
DOUBT = 1.5
# Tolerances: how far a metric may be from what its loss implies. A guess; smaller, and the loss decides.
LOOSE = 2.5
BEGINNING = Gain(10.0, 10.0)  # of going on where a curve has not shown yet where it goes
# Of the curves that look flat, those that fall again though nothing announces it (arXiv 2303.13506), in as much time as
# they had so far; by 10 tolerances, as recorded plain runs gained 2.4 with a spread of 4.9 from plateaus on. With 0.08,
# 10% of simulated runs whose curve comes in steps lose, instead of 4%; with more, the trunk alone is ever tried.
UNFORESEEN = 0.08


@dataclass(frozen=True)
class Outlook:
    """What the trunk may come to: `gain(plateau, cooldown)` over who leads, or over cooling down now if nobody does,
    after so many more steps of the plateau and a cooldown of so many.
    """

    steps_left: int
    gain: Callable[[float, float], Gain]
    told: bool  # whether the curve is long enough to tell anything


def outlook(plan: Plan, history: History, trunk: TrialRecord, *, without_last: int = 0) -> Outlook | None:
    """Of the trunk as it stands, or as it stood so many looks ago; None where no end is given."""
    phase = history.phase
    left = allowance(plan, history, trunk).steps_left
    if left is None:
        return None
    curve = [look for part in lineage(phase, trunk) for look in part.curve]
    curve = curve[: len(curve) - without_last]
    if not _tells(phase, trunk, curve, left) or not_begun(history, curve):
        return Outlook(left, lambda plateau, cooldown: BEGINNING if plateau > 0 else Gain(0.0, 0.0), told=False)
    forked, lead = _reference(history, trunk)
    if forked is None:
        since = trunk.step * (1.0 + WHILE_COOLING * STABLE_COOLDOWN)
    else:
        since = forked.first_step + WHILE_COOLING * (forked.step - forked.first_step)

    # Whoever was trained beside this trunk; what it began with is where its own curve begins.
    beside_it = history.leader is not None and not history.untrained_leads

    # What got worse beyond noise, if only by its loss, is not expected to come back: more time brings nothing.
    worse = overfitted(phase, trunk)

    def gain(plateau: float, cooldown: float) -> Gain:
        until = trunk.step + plateau + WHILE_COOLING * cooldown
        if forked is None and until <= since:
            return Gain(0.0, BEGINNING.spread if beside_it else 0.0)
        found = _curve_gain(phase, curve, since, trunk.step if worse else until)
        if not worse and until > trunk.step:
            found = _with_falls(found, (until - trunk.step) / until)
        if forked is None and beside_it:
            # Who leads has no curve in common with this trunk: nothing is known of how far apart they are.
            return Gain(found.mean, math.hypot(found.spread, BEGINNING.spread))
        return Gain(found.mean - lead, found.spread)

    return Outlook(left, gain, told=True)


def _with_falls(gain: Gain, share: float) -> Gain:
    """With the chance that the curve falls where nothing announces it.

    `share`: of the curve, that is still to come. What has not come in a time comes in as much time again with a chance
    of one half (Gott, Nature 363, 1993).
    """
    chance = UNFORESEEN * share
    spread = BEGINNING.mean * math.sqrt(chance * (1.0 - chance))
    return Gain(gain.mean + chance * BEGINNING.mean, math.hypot(gain.spread, spread))


def _reference(history: History, trunk: TrialRecord) -> tuple[TrialRecord | None, float]:
    """The last judged cooldown that was forked from this trunk, and by how much who leads is expected to be better."""
    phase = history.phase
    own = {c.id for part in lineage(phase, trunk) for c in part.checkpoints}
    forked = [t for t in plain_controls(history) if t.trial.start in own and t.trial.id in history.expected]
    if not forked or history.leader is None:
        return None, 0.0
    metric, last = metric_of(phase.started), forked[-1]
    assert last.full is not None
    expected = history.expected
    lead = expected.get(history.leader.trial, 0.0) - expected[last.trial.id]
    return last, lead / metric.tolerance(last.full.interval.score)


def _tells(phase: PhaseRecord, trunk: TrialRecord, curve: Sequence[Evaluated], left: int) -> bool:
    """Whether the curve is long enough to foretell what is left: no short one vouches for a long future.

    That it overfits may be seen early: what gets worse has begun.
    """
    if len(curve) < MIN_POINTS or (trunk.step + left) / max(1e-9, spacing(curve)) < MIN_STABLE_POINTS:
        return False
    if overfitted(phase, trunk):
        return True
    return len(curve) >= MIN_STABLE_POINTS and trunk.step >= MIN_STABLE_SHARE * (trunk.step + left)


def _curve_gain(phase: PhaseRecord, curve: Sequence[Evaluated], since: float, until: float) -> Gain:
    """From one step to another, in tolerances of the metric: by its own curve and by that of the loss beside it."""
    metric = metric_of(phase.started)
    steps = [float(look.step) for look in curve]
    own = _gain(metric, steps, [look.interval.score for look in curve], since, until)
    loss = beside(metric, curve[-1].scores)
    losses = [look.scores.get(loss.name, math.nan) for look in curve] if loss else []
    if loss is None or not all(map(math.isfinite, losses)):
        return own
    link = link_of(metric.name, loss.name)
    slope = link.correlation / link.ratio
    of_loss = _gain(loss, steps, losses, since, until)
    implied = Gain(slope * of_loss.mean, math.hypot(slope * of_loss.spread, LOOSE))
    weights = [1.0 / (g.spread**2 + 1e-9) for g in (own, implied)]
    mean = (weights[0] * own.mean + weights[1] * implied.mean) / sum(weights)
    return Gain(mean, 1.0 / math.sqrt(sum(weights)))


def _gain(metric: Metric, steps: Sequence[float], scores: Sequence[float], since: float, until: float) -> Gain:
    found = gain_between(steps, scores, since, until, maximize=metric.goal == "maximize")
    tolerance = metric.tolerance(scores[-1])
    if found is None or not all(map(math.isfinite, found)):
        return BEGINNING
    mean, spread = found[0] / tolerance, DOUBT * found[1] / tolerance
    if metric.bounds:
        mean = min(mean, abs(metric.bounds[1] - scores[-1]) / tolerance)
    return Gain(mean, spread)
