"""What is left of a phase for attempts, and how long they are."""

from __future__ import annotations

import math

from multistep.core.choice.allowance import (
    LEAST_STEPS as LEAST_STEPS,
)
from multistep.core.choice.allowance import (
    evaluation_seconds,
    fixed_steps,
    guard_seconds,
    save_seconds,
    seconds_left,
    taken_steps,
)
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.units import Amount, Unit

SIBLINGS = 8  # that what is left is divided into, within the shares below
LEAST_SHARE, MOST_SHARE = 0.15, 0.6  # of the leader's training: the length of a sibling
SAVES = 2  # of a sibling: before its cooldown, and at its end
BETWEEN_SECONDS = 0.5  # loading and judging between two siblings, beside what is measured
MOST_JUDGING = (0.15, 0.3)  # of a sibling's time may go to scoring it; where that leaves no room, so much
OVERRUN = 0.01  # of the budget: by so much the last sibling may end late, if the others took longer than planned


def rounds_of(phase: PhaseRecord) -> list[TrialRecord]:
    """The controls that began the rounds so far."""
    return [t for t in phase.of_kind("control") if t.trial.length is not None]


def remaining(plan: Plan, history: History) -> Amount | None:
    """Seconds or steps that attempts may take; None where no end is given."""
    seconds = seconds_left(plan, history)
    if seconds is not None:
        # The reserve holds a scoring of the validation split; whoever is scored here pays for it by `between`.
        return Amount(seconds + scoring(history), Unit.SECONDS)
    total = fixed_steps(plan, history)
    if total is None:
        return None
    return Amount(float(total - taken_steps(history.phase)), Unit.STEPS)


def between(history: History) -> float:
    """Seconds of what a sibling costs beside its length: the full evaluation, saving, loading."""
    return scoring(history) + SAVES * save_seconds(history) + BETWEEN_SECONDS


def scoring(history: History) -> float:
    """Seconds that judging takes: scoring the whole validation split, and what must not be forgotten."""
    phase = history.phase
    return evaluation_seconds(phase, phase.started.facts.validation_tokens) + guard_seconds(phase)


def cost(history: History, length: Amount) -> float:
    """A sibling's cost in its length's unit."""
    return length.value + extra(history, length.unit)


def extra(history: History, unit: Unit) -> float:
    """What an attempt costs beside its steps."""
    return between(history) if unit is Unit.SECONDS else 0.0


def in_unit(history: History, steps: float, unit: Unit) -> float:
    """So many steps of the plain run, in seconds or steps."""
    return steps * plain_speed(history.phase) if unit is Unit.SECONDS else float(steps)


def leader_cost(history: History, unit: Unit) -> float:
    """What the leader took to train from the beginning, in seconds or steps."""
    assert history.leader is not None
    leader = history.trial(history.leader.trial)
    if leader.trial.kind == "base" and history.phase.control:
        leader = history.phase.control  # what leads was not trained: as long as what it is held against
    return in_unit(history, leader.step, unit)


def plain_speed(phase: PhaseRecord) -> float:
    """Seconds a step of the plain run: a move's own may be twice that."""
    plain = [*phase.of_kind("trunk"), *(t for t in phase.of_kind("control") if t.trial.length is None)]
    done = [r for t in plain for r in t.done]
    done = done[1:] or done  # the first window pays for what happens only once
    return sum(r.train_seconds for r in done) / max(1, sum(r.window.steps for r in done))


def sibling_length(
    history: History, left: Amount | None, *, trained: float | None = None, first: int = 1
) -> Amount | None:
    """The length of the siblings of a new fork; None if there is no room for `first` of them.

    What is left is divided evenly, so that the last sibling ends with the budget. `trained` is what the leader took,
    in the unit of `left`; as it was if None.
    """
    if left is None:
        return Amount(float(max(LEAST_STEPS, round(MOST_SHARE * leader_cost(history, Unit.STEPS)))), Unit.STEPS)
    trained = leader_cost(history, left.unit) if trained is None else trained
    beside = extra(history, left.unit)
    for judging in MOST_JUDGING:
        least = _least(history, left.unit, trained, judging)
        aim = min(max(left.value / SIBLINGS - beside, least), max(least, MOST_SHARE * trained))
        many = math.floor((left.value + 1e-6) / (aim + beside))
        if many >= first:
            if left.unit is Unit.STEPS:
                return Amount(float(math.floor(left.value / many)), left.unit)
            return Amount(round(left.value / many - beside, 2), left.unit)
    return None


def _least(history: History, unit: Unit, trained: float, judging: float) -> float:
    """The shortest sibling that shows anything, and whose scoring takes no more than that share of it."""
    least = max(LEAST_SHARE * trained, in_unit(history, LEAST_STEPS, unit))
    return max(least, scoring(history) / judging) if unit is Unit.SECONDS else least


def least_room(history: History, unit: Unit, many: int) -> float:
    """What so many siblings of the leader need at least."""
    trained = leader_cost(history, unit)
    return many * cost(history, Amount(_least(history, unit, trained, MOST_JUDGING[-1]), unit))


def scoring_fits(plan: Plan, history: History) -> bool:
    """Whether the validation split can be scored once more: one such is among what is kept for the run's end."""
    seconds = seconds_left(plan, history)
    return seconds is None or seconds + slack(plan) >= 0


def slack(plan: Plan) -> float:
    """Seconds by which the last attempt may end late."""
    return OVERRUN * plan.budget.value if plan.budget and plan.budget.unit is Unit.SECONDS else 0.0


def fits(plan: Plan, history: History, left: Amount | None, length: Amount, many: int = 1) -> bool:
    """Whether so many siblings of that length can be had: what others took longer must not cost one its place."""
    late = slack(plan) if length.unit is Unit.SECONDS else 0.0
    return left is None or left.value + late >= many * cost(history, length)
