"""Again from the beginning at a lower rate: the first answer where overfitting set in long before the budget ends.

A rate that overfits after a tenth of the time has been chosen for a tenth of the time. Weights that have memorised
do not forget by being regularised; fresh ones at a rate that fits the length end better (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import replace

from multistep.core.choice.moves import RESTART
from multistep.core.choice.room import LEAST_STEPS, between, plain_cost, plain_speed
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal, Trial
from multistep.core.values.units import Amount, Unit

SHARE = 2 / 3  # of what is left; moves of its recipe have the rest
LEAST_ROOM = 2.0  # times the plain run's training: less would bring nothing new
LEAST_FACTOR = 1 / 16  # of the rate
FLAT = 3.0  # tolerances of the metric: within so much of its best look a curve has come to where it turns


def restart(plan: Plan, history: History, left: Amount | None) -> Proposal | None:
    """The proposal, once the plain run has overfitted; None where it was tried, is not wanted, or has no room."""
    phase = history.phase
    index = phase.started.phase
    wanted, control = plan.moves_of(index), phase.control
    if left is None or control is None or phase.of_kind("move") or phase.started.facts.pretrained:
        return None
    if (wanted != "auto" and RESTART not in wanted) or "learning_rate" in plan.phase(index).recipe:
        return None
    extra = between(history) if left.unit is Unit.SECONDS else 0.0
    value = SHARE * (left.value - extra)
    per_step = plain_speed(phase) if left.unit is Unit.SECONDS else 1.0
    steps = value / max(per_step, 1e-9)
    if value < LEAST_ROOM * plain_cost(history, left.unit) or steps < LEAST_STEPS:
        return None
    length = Amount(round(value, 2) if left.unit is Unit.SECONDS else float(int(value)), left.unit)
    # Where the curve turned is how far this rate can be followed; a lower one gets as far in as many more steps.
    turn = _turn(phase, control)
    factor = max(LEAST_FACTOR, min(0.5, max(1, turn) / steps))
    rate = control.trial.learning_rate * factor
    recipe = replace(control.trial.recipe, learning_rate=rate)
    reason = (
        f"the plain run overfitted from step {turn} on, and {length} have room for {steps:.0f}: from the "
        "beginning at a rate that fits"
    )
    start = phase.started.start
    name = f"{index}.{RESTART}"
    trial = Trial(name, index, "move", start, recipe, plan.seed, rate, length=length, move=RESTART, carry="weights")
    return Proposal(trial, reason)


def _turn(phase: PhaseRecord, control: TrialRecord) -> int:
    """The first step whose look was about as good as that which the control begins from.

    Near its turn a curve is flat, and which of its looks is the best is chance.
    """
    metric = metric_of(phase.started)
    looks = [look for t in phase.of_kind("trunk") for look in t.curve if look.step <= control.first_step]
    if not looks:
        return control.first_step
    last = looks[-1].interval.score
    slack = FLAT * metric.tolerance(last)
    good = (look.step for look in looks if metric.improvement(look.interval.score, last) >= -slack)
    return next(good, control.first_step)
