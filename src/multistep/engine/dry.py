"""A dry run: everything up to the first step. Reads the data, builds the model, times a few steps, leaves no file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from multistep.core.choice.allowance import CLOSING_SECONDS, CURVE_SHARE
from multistep.core.values.plan import Plan
from multistep.core.values.understood import Understood
from multistep.core.values.units import Unit
from multistep.engine.judged import metric_name
from multistep.engine.learner import Learner, Readiness, Workshop

TIMED_SECONDS = 3.0  # that timing may take, apart from its last step or look
MOST_STEPS = 20
SCORED_FIRST = ("preference",)  # whose whole data is scored before the first step, which is dear


@dataclass(frozen=True)
class Pace:
    """What was timed: seconds of a step and of a look at the validation sample, and what fits into a time budget.

    `steps` and `epochs` are those that the budget holds, about, with a twentieth of it for looks; None where the budget
    is not told in time.
    """

    step_seconds: float
    look_seconds: float
    examples_per_second: float
    steps: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class DryPhase:
    name: str
    task: str
    metric: str
    understood: Understood
    pace: Pace | None


def dry_run(
    plan: Plan,
    workshop: Workshop,
    *,
    spent: Callable[[], float],
    now: Callable[[], float] = time.monotonic,
) -> list[DryPhase]:
    """Open every phase of a plan and time the first one. `spent` tells how much of the budget is gone already.

    Raises PlanError or DataError as a run would before its first step.
    """
    found = []
    for index in range(plan.phase_count):
        learner, ready = workshop.open(plan, index, lambda: False)
        phase = plan.phase(index)
        # Of later phases nothing is timed: they begin with what the one before has trained.
        pace = _timed(plan, learner, ready, spent, now) if index == 0 and phase.task not in SCORED_FIRST else None
        found.append(DryPhase(phase.name, str(phase.task), metric_name(phase, ready), ready.facts.understood, pace))
    return found


def _timed(
    plan: Plan, learner: Learner, ready: Readiness, spent: Callable[[], float], now: Callable[[], float]
) -> Pace:
    """The first step is left out of the mean: it pays for what happens only once."""
    facts, recipe = ready.facts, ready.recipe
    assert recipe.batch_size is not None, "every preset has one"
    resolution = recipe.resolution[-1] if recipe.resolution else None
    rate = recipe.learning_rate or 1e-4  # what is learnt is thrown away
    learner.initial(recipe, plan.seed)
    if todo := learner.prepare({}, None):
        todo()
    learner.advance([rate], resolution=resolution)
    began, steps = now(), 0
    while steps < MOST_STEPS and (steps == 0 or now() - began < TIMED_SECONDS):
        learner.advance([rate], resolution=resolution)
        steps += 1
    step = max((now() - began) / steps, 1e-6)
    began = now()
    learner.evaluate("validation", sample=True)
    look = now() - began
    pace = Pace(step, look, recipe.batch_size / step)
    if plan.budget is None or plan.budget.unit is not Unit.SECONDS or plan.phase_count > 1:
        return pace
    scored = look * (facts.validation_tokens + facts.test_tokens) / max(1, facts.sample_tokens)
    left = plan.budget.value - spent() - scored - CLOSING_SECONDS
    held = max(0, int((1 - CURVE_SHARE) * left / step))
    return replace(pace, steps=held, epochs=held * recipe.batch_size / facts.train_examples)
