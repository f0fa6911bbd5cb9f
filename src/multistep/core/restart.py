"""Again from the beginning at a lower rate: the first answer where overfitting set in long before the budget ends.

A rate that overfits after a tenth of the time has been chosen for a tenth of the time. Weights that have memorised
do not forget by being regularised; fresh ones at a rate that fits the length end better (docs/experiments.md).
"""

from __future__ import annotations

import math
from dataclasses import replace

from multistep.core.history import History
from multistep.core.moves import RESTART
from multistep.core.plan import Plan
from multistep.core.room import LEAST_STEPS, between, plain_cost, plain_speed
from multistep.core.trial import Proposal, Trial
from multistep.core.units import Amount, Unit

SHARE = 2 / 3  # of what is left; moves of its recipe have the rest
LEAST_ROOM = 2.0  # times the plain run's training: less would bring nothing new
LEAST_FACTOR = 1 / 16  # of the rate
POWER = 1.5  # a rate four times lower overfits after two to three times the steps, not four: docs/experiments.md


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
    # Where the curve turned is how far this rate can be followed; a lower one can be followed further.
    factor = max(LEAST_FACTOR, min(0.5, math.pow(max(1, control.first_step) / steps, POWER)))
    rate = control.trial.learning_rate * factor
    recipe = replace(control.trial.recipe, learning_rate=rate)
    reason = (
        f"the plain run overfitted from step {control.first_step} on, and {length} have room for {steps:.0f}: from the "
        "beginning at a rate that fits"
    )
    start = phase.started.start
    name = f"{index}.{RESTART}"
    trial = Trial(name, index, "move", start, recipe, plan.seed, rate, length=length, move=RESTART, carry="weights")
    return Proposal(trial, reason)
