"""Where a trunk is forked before its end: cooled down and judged, while the trunk can go on.

From nothing: once, early, so that there is a complete result long before the budget ends, and one to fall back to where
a text is read until it is known by heart. From pretrained weights there is hardly a trunk: forks at 1, 2 and 4 epochs,
and twice as many again while that is worth most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from multistep.core.choice.allowance import (
    LEAST_STEPS,
    allowance,
    batch_size,
    evaluation_seconds,
    expected_steps,
    fixed_steps,
    weighs,
)
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.units import Amount, Unit

USUAL_FORKS = 3  # at 1, 2 and 4 epochs: those that are made where nothing is weighed
RACED_SHARE = 0.5  # of a phase goes to the first forks of all its models, if several are raced
LEAST_GROWTH = 1.5  # from one fork to the next, where the clock leaves no time for twice as many epochs
# Of the phase's steps: where the first result from nothing is forked, to be there within a tenth. At half, runs lose
# 2.6 tolerances on average; at twice 0.1, and it comes too late.
EARLY_SHARE = 0.06
EARLY_COOLDOWN = 1 / 3  # of those steps; at half or twice, runs lose 0.7 tolerances at worst
EARLY_COST = 0.03  # of the budget may go to scoring an early result
# A trunk that reads its data less often than this does not overfit, and its last checkpoint is its best: there the
# early result would cost a thirtieth of the time and bring nothing.
EARLY_EPOCHS = 1.5


@dataclass(frozen=True)
class Fork:
    """A fork after `epochs` in all: the trunk is left at `trunk_steps` and cooled down for `cooldown_steps`."""

    epochs: float
    trunk_steps: int
    cooldown_steps: int
    first: bool
    pretrained: bool

    @property
    def steps(self) -> int:
        return self.trunk_steps + self.cooldown_steps


def next_fork(plan: Plan, history: History) -> Fork | None:
    """The fork that the phase's trunk comes to next; None where it has none, or has its length given."""
    phase = history.phase
    if isinstance(plan.phase(phase.started.phase).until, Amount):
        return None
    return _of_epochs(history, plan) if phase.started.facts.pretrained else _early(plan, history)


def plain_controls(history: History) -> list[TrialRecord]:
    """The judged cooldowns of the plain run, in order: those that changed nothing."""
    return [t for t in history.phase.of_kind("control") if t.trial.length is None and t.verdict is not None]


def _of_epochs(history: History, plan: Plan) -> Fork | None:
    phase = history.phase
    trunks = {c.id for t in phase.of_kind("trunk") for c in t.checkpoints}
    judged = [t for t in plain_controls(history) if t.trial.start in trunks]  # not what was begun again in a cooldown
    per_epoch = phase.started.facts.train_examples / batch_size(phase)
    epochs = 2.0 ** len(judged) * min(1.0, _race_steps(plan, history) / per_epoch)
    total = max(2, round(epochs * per_epoch))
    left = allowance(plan, history, phase.trunk).steps_left if judged and phase.trunk else None
    if left is not None and phase.trunk and phase.trunk.step + left < total:
        # Rather a shorter fork than none, if it is clearly longer than the last.
        total = phase.trunk.step + left
        epochs, last = total / per_epoch, epochs / 2
        if epochs < LEAST_GROWTH * last:
            return None
    cooldown = min(total - 1, round(total * phase.started.recipe.cooldown_fraction))
    return Fork(epochs, total - cooldown, cooldown, first=not judged, pretrained=True)


def _race_steps(plan: Plan, history: History) -> float:
    """The longest that a first fork may be where other models are to be raced with it; unbounded where none is.

    All of them together have half of the phase. A clock is asked once, at the trunk's end: what a first fork was long
    is known from then on.
    """
    phase, rivals = history.phase, others(history.phase)
    if not rivals or plan.budget is None or not weighs(plan, phase.started.phase, phase.started.recipe):
        return math.inf
    if judged := plain_controls(history):
        return float(judged[0].step)
    if (whole := fixed_steps(plan, history)) is None:
        whole = (phase.trunk.step if phase.trunk else 0) + expected_steps(plan, history)
    # Of the dearest model few steps fit, and half of them are its own at most.
    return max(min(float(LEAST_STEPS), RACED_SHARE * whole), RACED_SHARE * whole / (1 + rivals)) if whole else math.inf


def others(phase: PhaseRecord) -> int:
    """How many other models are to be raced with the phase's own; the same one trained otherwise can wait."""
    return sum(rival.model != phase.started.recipe.model for rival in phase.started.facts.rivals)


def _early(plan: Plan, history: History) -> Fork | None:
    phase = history.phase
    trunk, facts, recipe = phase.trunk, phase.started.facts, phase.started.recipe
    if trunk is None or phase.of_kind("control") or not weighs(plan, phase.started.phase, phase.started.recipe):
        return None  # what an early result is compared with later is weighed, or nobody goes on from it
    if not recipe.cooldown_fraction or len(recipe.resolution) > 1:
        return None
    if plan.budget is None or len(phase.of_kind("trunk")) > 1 + bool(phase.of_kind("probe")):
        return None
    by_clock = trunk.step + expected_steps(plan, history)
    total = by_clock if plan.budget.unit is Unit.SECONDS else fixed_steps(plan, history) or 0
    steps = round(EARLY_SHARE * total)
    cooldown = round(EARLY_COOLDOWN * steps)
    if steps + cooldown < LEAST_STEPS or total * batch_size(phase) < EARLY_EPOCHS * facts.train_examples:
        return None
    if plan.budget.unit is Unit.SECONDS:
        scoring = evaluation_seconds(phase, facts.validation_tokens)
        if scoring > EARLY_COST * plan.budget.value:
            return None
    epochs = (steps + cooldown) * batch_size(phase) / facts.train_examples
    return Fork(epochs, steps, cooldown, first=True, pretrained=False)
