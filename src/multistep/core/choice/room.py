"""What is left of a phase for moves, and how long siblings are."""

from __future__ import annotations

import math

from multistep.core.choice.allowance import evaluation_seconds, fixed_steps, seconds_left, taken_steps
from multistep.core.choice.moves import AVERAGE, RESTART
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.units import Amount, Unit

SIBLINGS = 8  # that what is left is divided into, within the shares below
LEAST_SHARE, MOST_SHARE = 0.15, 0.6  # of the plain run's training: the length of a sibling
LEAST_STEPS = 40  # a shorter sibling shows nothing
SAVES = 2  # of a sibling: before its cooldown, and at its end
BETWEEN_SECONDS = 0.5  # loading and judging between two siblings, beside what is measured
AVERAGES = 2  # at most: what `remaining` keeps back for them
MOST_JUDGING = (0.15, 0.3)  # of a sibling's time may go to scoring it; where that leaves no room, so much
OVERRUN = 0.01  # of the budget: by so much the last sibling may end late, if the others took longer than planned


def rounds_of(phase: PhaseRecord) -> list[TrialRecord]:
    """The controls that began the rounds so far."""
    return [t for t in phase.of_kind("control") if t.trial.length is not None]


def remaining(plan: Plan, history: History) -> Amount | None:
    """Seconds or steps that siblings may take; None where no end is given."""
    seconds = seconds_left(plan, history)
    if seconds is not None:
        wanted = plan.moves_of(history.phase.started.phase)
        # The reserve holds a scoring of the validation split; whoever is scored here pays for it by `between`.
        seconds += _scoring(history)
        # Averages come last and cost a scoring each. Where they would take a first move's place, they wait.
        held = AVERAGES * between(history) if wanted == "auto" or AVERAGE in wanted else 0.0
        return Amount(seconds - (held if seconds - held >= least_room(history, Unit.SECONDS) else 0.0), Unit.SECONDS)
    total = fixed_steps(plan, history)
    if total is None:
        return None
    phase = history.phase
    return Amount(float(total - taken_steps(phase)), Unit.STEPS)


def between(history: History) -> float:
    """Seconds of what a sibling costs beside its length: the full evaluation, saving, loading."""
    saves = sum(len(t.checkpoints) for p in history.phases for t in p.trials.values())
    per_save = history.spent.get("save", 0.0) / max(1, saves)
    return _scoring(history) + SAVES * per_save + BETWEEN_SECONDS


def _scoring(history: History) -> float:
    return evaluation_seconds(history.phase, history.phase.started.facts.validation_tokens)


def cost(history: History, length: Amount) -> float:
    return length.value + (between(history) if length.unit is Unit.SECONDS else 0.0)


def plain_cost(history: History, unit: Unit) -> float:
    """What the plain run's winner took to train, in seconds or steps; of a restart that was kept, what that took."""
    phase = history.phase
    assert phase.control is not None
    kept = [t for t in phase.of_kind("move") if t.trial.move == RESTART and t.verdict and t.verdict.decision == "keep"]
    steps = kept[-1].step if kept else phase.control.step
    return steps * plain_speed(phase) if unit is Unit.SECONDS else float(steps)


def plain_speed(phase: PhaseRecord) -> float:
    """Seconds a step of the plain run: a move's own may be twice that."""
    plain = [*phase.of_kind("trunk"), *(t for t in phase.of_kind("control") if t.trial.length is None)]
    done = [r for t in plain for r in t.done]
    done = done[1:] or done  # the first window pays for what happens only once
    return sum(r.train_seconds for r in done) / max(1, sum(r.window.steps for r in done))


def sibling_length(history: History, left: Amount | None) -> Amount | None:
    """The length of the siblings of a new round; None if there is no room.

    What is left is divided evenly, so that the last sibling ends with the budget. The first round must have
    room for a control and one move; a later one may go on with no change for what is left.
    """
    if left is None:
        return Amount(float(max(LEAST_STEPS, round(MOST_SHARE * plain_cost(history, Unit.STEPS)))), Unit.STEPS)
    plain = plain_cost(history, left.unit)
    extra = between(history) if left.unit is Unit.SECONDS else 0.0
    wanted = 1 if rounds_of(history.phase) else 2
    for judging in MOST_JUDGING:
        least = _least(history, left.unit, judging)
        aim = min(max(left.value / SIBLINGS - extra, least), max(least, MOST_SHARE * plain))
        many = math.floor((left.value + 1e-6) / (aim + extra))
        if many >= wanted:
            if left.unit is Unit.STEPS:
                return Amount(float(math.floor(left.value / many)), left.unit)
            return Amount(round(left.value / many - extra, 2), left.unit)
    return None


def _least(history: History, unit: Unit, judging: float) -> float:
    """The shortest sibling that shows anything, and whose scoring takes no more than that share of it."""
    plain = LEAST_SHARE * plain_cost(history, unit)
    if unit is not Unit.SECONDS:
        return max(plain, LEAST_STEPS)
    return max(plain, LEAST_STEPS * plain_speed(history.phase), _scoring(history) / judging)


def least_room(history: History, unit: Unit) -> float:
    """What the first round needs: a control and one move."""
    return 2 * cost(history, Amount(_least(history, unit, MOST_JUDGING[-1]), unit))


def scoring_fits(plan: Plan, history: History) -> bool:
    """Whether the validation split can be scored once more: one such is among what is kept for the run's end."""
    seconds = seconds_left(plan, history)
    return seconds is None or seconds + _slack(plan) >= 0


def _slack(plan: Plan) -> float:
    return OVERRUN * plan.budget.value if plan.budget and plan.budget.unit is Unit.SECONDS else 0.0


def fits(plan: Plan, history: History, left: Amount | None, length: Amount, many: int = 1) -> bool:
    """Whether so many siblings of that length can be had: what others took longer must not cost one its place."""
    slack = _slack(plan) if length.unit is Unit.SECONDS else 0.0
    return left is None or left.value + slack >= many * cost(history, length)
