"""Moves that a plan names: each is tried, in the plan's order, against a control of the same fork, seed and length.

Who names moves wants to know what they do, so nothing is weighed: a round begins with the control, and when a few moves
were tried and another trial leads, the next round forks from that one. What is left goes to reruns with other seeds.
"""

from __future__ import annotations

import math
from dataclasses import replace

from multistep.core.choice.lanes import judged_later
from multistep.core.choice.moves import AVERAGE, RESTART
from multistep.core.choice.restart import restart
from multistep.core.choice.retained import paid_most
from multistep.core.choice.room import fits, least_room, rounds_of, scoring_fits, sibling_length
from multistep.core.choice.siblings import (
    Base,
    applied,
    average,
    base_of_leader,
    compounds,
    control_trial,
    moved,
    names_of,
)
from multistep.core.values.events import MovesEnded
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal
from multistep.core.values.units import Amount, Unit

ROUND_MOVES = 3  # tried from one fork before the next round begins at who leads
RERUNS = 3  # of the control and of what helped most, once every move was tried
EARLY_RERUN = 5  # siblings that must still fit for a first look at the noise between seeds


def next_in_round(plan: Plan, history: History, left: Amount | None) -> Proposal | MovesEnded:
    """The next sibling, average or rerun, or why there is none."""
    phase = history.phase
    if RESTART in plan.moves_of(phase.started.phase) and (found := restart(plan, history, left)):
        return found
    if not rounds_of(phase):
        return _new_round(plan, history, base_of_leader(history), left)
    return _in_round(plan, history, rounds_of(phase)[-1], left)


def _new_round(plan: Plan, history: History, base: Base, left: Amount | None) -> Proposal | MovesEnded:
    phase = history.phase
    first = 1 if rounds_of(phase) else 2  # the control and a move; a later one may go on with no change
    length = sibling_length(history, left, first=first)
    index = phase.started.phase
    if length is None:
        assert left is not None
        unit = "s" if left.unit is Unit.SECONDS else " steps"
        reason = (
            f"there is no room for a move and its control: {max(0.0, left.value):.0f}{unit} are left, and "
            f"{math.ceil(least_room(history, left.unit, first))}{unit} are needed"
        )
        return _last(plan, history, reason, budget=True)
    if not names_of(plan, history, base):
        reason = "no further move applies to this model, task and recipe"
        return _reruns(plan, history, left) or _last(plan, history, reason, budget=False)
    number = len(rounds_of(phase)) + 1
    alone = not fits(plan, history, left, length, 2)
    what = "since there is no room for more" if alone else "for the moves of this round to be compared with"
    reason = f"round {number}: training goes on for {length} with nothing changed, {what}"
    return Proposal(control_trial(plan, index, number, base, length), reason)


def _in_round(plan: Plan, history: History, control: TrialRecord, left: Amount | None) -> Proposal | MovesEnded:
    phase = history.phase
    trial = control.trial
    assert trial.length is not None
    base = Base(trial.start, trial.recipe, trial.learning_rate)
    tried = [t for t in phase.of_kind("move") if t.trial.start == trial.start]
    here = [t for t in tried if t.trial.id.startswith(trial.id.removesuffix("control"))]
    done = {t.trial.move for t in tried}
    names = [n for n in (*compounds(plan, history, base, tried), *names_of(plan, history, base)) if n not in done]
    best = base_of_leader(history)
    if best.start != base.start and (len(here) >= ROUND_MOVES or not names):
        if judged_later(phase):  # who may lead, and so be where the round begins
            return MovesEnded(phase.started.phase, "the next round waits for the verdicts of this one", False)
        return _new_round(plan, history, best, left)
    if not fits(plan, history, left, trial.length):
        return _last(plan, history, "there is no room for another move", budget=True)
    if not phase.of_kind("rerun") and here and fits(plan, history, left, trial.length, EARLY_RERUN):
        return _rerun(plan, control, 1, "the control again with another seed, to see how much scores differ by chance")
    if not names:
        return _reruns(plan, history, left) or _last(plan, history, "every move that applies was tried", budget=False)
    name = names[0]
    recipe = applied(plan, history, base, name)
    assert recipe is not None, "only moves that apply are named"
    more = "this move did better than its control, though not than the best model so far, so it is taken further"
    return Proposal(moved(trial, name, recipe), more if "+" in name else "the plan names this move")


def _rerun(plan: Plan, sibling: TrialRecord, number: int, reason: str) -> Proposal:
    trial = sibling.trial
    return Proposal(replace(trial, id=f"{trial.id}-seed-{number}", kind="rerun", seed=plan.seed + number), reason)


def _reruns(plan: Plan, history: History, left: Amount | None) -> Proposal | None:
    """Once every move was tried: the one that brought most over its control, and that control, with other seeds."""
    if judged_later(history.phase):
        return None  # which may have helped more
    best = paid_most(history.phase)
    if best is None or best.verdict is None or best.verdict.control is None or best.trial.length is None:
        return None
    if not fits(plan, history, left, best.trial.length):
        return None
    done = set(history.phase.trials)
    for number in range(1, RERUNS + 1):
        for record in (history.trial(best.verdict.control), best):
            proposal = _rerun(
                plan, record, number, f"again with another seed, to see whether {best.trial.move} helps in general"
            )
            if proposal.trial.id not in done:
                return proposal
    return None


def _last(plan: Plan, history: History, reason: str, *, budget: bool) -> Proposal | MovesEnded:
    """Before the moves end, averages of what was cooled down are tried, if they are named."""
    index = history.phase.started.phase
    wanted = AVERAGE in plan.moves_of(index) and scoring_fits(plan, history) and not history.phase.under_way
    return (average(history) if wanted else None) or MovesEnded(index, reason, budget)
