"""Again from the beginning at a lower rate: where overfitting set in long before the budget ends.

A rate that overfits after a tenth of the time has been chosen for a tenth of the time. Weights that have memorised
do not forget by being regularised; fresh ones at a rate that fits the length end better (docs/appendix/experiments.md).
"""

from __future__ import annotations

from dataclasses import replace

from multistep.core.choice.guards import trunk_forgets
from multistep.core.choice.moves import RESTART
from multistep.core.choice.retained import look_gain
from multistep.core.choice.room import LEAST_SHARE, LEAST_STEPS, extra, plain_speed
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal, Trial
from multistep.core.values.units import Amount, Unit

SHARE = 2 / 3  # of what is left; moves of its recipe have the rest
# Of the rate: a higher one would bring nothing new, and a lower one little for as many times the steps.
LEAST_FACTOR, MOST_FACTOR = 1 / 4, 1 / 2
FLAT = 3.0  # tolerances of the metric: within so much of its best look a curve has come to where it turns


def restart(plan: Plan, history: History, left: Amount | None) -> Proposal | None:
    """The proposal; None where it was tried, the rate is given, or there is no room for one that differs."""
    phase = history.phase
    index = phase.started.phase
    control = phase.control
    if left is None or control is None or phase.started.facts.pretrained or "learning_rate" in plan.phase(index).recipe:
        return None
    if any(t.trial.move == RESTART for t in phase.of_kind("move")) or trunk_forgets(phase):
        return None
    value = left.value - extra(history, left.unit)
    if (1 - SHARE) * value > LEAST_SHARE * SHARE * value + extra(history, left.unit):
        value *= SHARE
    per_step = _with_looks(phase) if left.unit is Unit.SECONDS else 1.0
    steps = value / max(per_step, 1e-9)
    # Where the curve turned is how far this rate can be followed; a lower one gets as far in as many more steps.
    turn = max(1, _turn(phase, control))
    if (most := turn / LEAST_FACTOR) < steps:
        value, steps = value * most / steps, most
    factor = turn / max(steps, 1e-9)
    if factor > MOST_FACTOR or steps < LEAST_STEPS:
        return None
    length = Amount(round(value, 2) if left.unit is Unit.SECONDS else float(round(value)), left.unit)
    rate = control.trial.learning_rate * factor
    recipe = replace(control.trial.recipe, learning_rate=rate)
    reason = (
        f"from about step {turn:,} on the plain run got hardly better, so training begins again for about {steps:,.0f} "
        "steps at a lower learning rate, which suits so many"
    )
    start = phase.started.start
    name = f"{index}.{RESTART}"
    trial = Trial(name, index, "move", start, recipe, plan.seed, rate, length=length, move=RESTART, carry="weights")
    return Proposal(trial, reason)


def _with_looks(phase: PhaseRecord) -> float:
    """Seconds a step of the plain run, the looks on the way counted, of which a restart has no fewer."""
    done = [r for t in phase.of_kind("trunk") for r in t.done]
    done = done[1:] or done  # the first window pays for what happens only once
    looks = sum(r.evaluate_seconds for r in done) / max(1, sum(r.window.steps for r in done))
    return plain_speed(phase) + looks


def _turn(phase: PhaseRecord, control: TrialRecord) -> int:
    """The first step whose look was about as good as that which the control begins from.

    Near its turn a curve is flat, and which of its looks is the best is chance.
    """
    looks = [look for t in phase.of_kind("trunk") for look in t.curve if look.step <= control.first_step]
    good = (look.step for look in looks if look_gain(phase, look, looks[-1]) >= -FLAT)
    return next(good, control.first_step)
