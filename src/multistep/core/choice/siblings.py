"""Attempts that fork from the leader, before its cooldown: one change each, for as many seconds or steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from multistep.core.choice.between import is_between
from multistep.core.choice.moves import MOVES, applicable
from multistep.core.choice.retained import before_cooldown, plateau_step, standing, trained
from multistep.core.choice.room import LEAST_STEPS, MOST_JUDGING, in_unit, scoring
from multistep.core.evidence.intervals import student_quantile
from multistep.core.evidence.metric import Interval
from multistep.core.evidence.spending import blocks_needed
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Carry, Proposal, Trial
from multistep.core.values.units import Amount, Unit

LEAST_BLOCKS = 10  # of the validation split; with fewer, no interval means anything
WORTH_SEEING = 0.01  # of the score: the difference that a validation split should show
AVERAGES = 2  # at most, of one leader
PAID = 1.0  # tolerances, that a move must be better than its siblings to be pursued
SOUP_ERRORS = 4.0  # by which the worst checkpoint of an average may be behind the best


@dataclass(frozen=True)
class Base:
    """Where siblings fork, and the recipe that they change."""

    start: str | None
    recipe: Recipe
    rate: float
    carry: Carry = "all"


def base_of_leader(history: History) -> Base:
    assert history.leader is not None
    record = trained(history.phase, history.phase.trials[history.leader.trial])
    trial = record.trial
    recipe, start = replace(trial.recipe, learning_rate=trial.learning_rate), before_cooldown(record)
    carry: Carry = "weights" if trial.kind == "base" else "all"  # an optimizer that has done nothing needs a warm-up
    if start == trial.start:
        carry = trial.carry  # nothing was saved since its move, which may have left the optimizer's state behind
    return Base(start, recipe, trial.learning_rate, carry)


def as_far_as_leader(history: History, unit: Unit) -> float:
    """Seconds or steps that the leader took from where siblings fork, and at least as many as show anything.

    Of training that overfits the leader went about as far as it can go, so what goes on for longer is worse for that.
    """
    assert history.leader is not None
    record = trained(history.phase, history.phase.trials[history.leader.trial])
    steps = record.step - plateau_step(record)
    if unit is Unit.STEPS:
        return float(max(LEAST_STEPS, steps))
    taken = record.seconds * steps / max(1, record.step - record.first_step)  # a move's steps can take longer or less
    return round(max(taken, in_unit(history, LEAST_STEPS, unit), scoring(history) / MOST_JUDGING[0]), 2)


def siblings_of(phase: PhaseRecord, start: str | None, length: Amount | None = None) -> list[TrialRecord]:
    """The moves and rounds' controls that were tried from a fork; of that length alone if one is given."""
    found = [t for t in phase.trials.values() if t.trial.kind in ("control", "move") and t.trial.length]
    same = [t for t in found if t.trial.start == start and t.trial.start is not None]
    return [t for t in same if length is None or t.trial.length == length]


def control_trial(plan: Plan, index: int, number: int, base: Base, length: Amount) -> Trial:
    """The sibling with no change, which begins a round."""
    name = f"{index}.round-{number}.control"
    return Trial(name, index, "control", base.start, base.recipe, plan.seed, base.rate, length=length, carry=base.carry)


def moved(control: Trial, name: str, recipe: Recipe) -> Trial:
    """The control's sibling under the recipe that a move makes."""
    starts_anew = _state_of(recipe) != _state_of(control.recipe)
    return replace(
        control,
        id=f"{control.id.removesuffix('control')}{name}",
        kind="move",
        move=name,
        recipe=recipe,
        learning_rate=recipe.learning_rate or control.learning_rate,
        carry="weights" if starts_anew else control.carry,
    )


def _state_of(recipe: Recipe) -> tuple[object, ...]:
    """What an optimizer's state is of: it means nothing to another optimizer, or to other weights."""
    return (recipe.optimizer, recipe.frozen, recipe.network)


def names_of(plan: Plan, history: History, base: Base) -> list[str]:
    """The moves that apply to a base; those that the plan names, in its order, or all."""
    found = applicable(base.recipe, history.phase.started.facts, given(plan, history))
    wanted = plan.moves_of(history.phase.started.phase)
    return list(found) if wanted == "auto" else [name for name in wanted if name in found]


def applied(plan: Plan, history: History, base: Base, name: str) -> Recipe | None:
    """The base's recipe after a move, or after several in a row (`dropout-up+decay-up`); None if one does not apply."""
    recipe = base.recipe
    for part in name.split("+"):
        found = applicable(recipe, history.phase.started.facts, given(plan, history))
        if part not in found:
            return None
        recipe = found[part]
    return recipe


def given(plan: Plan, history: History) -> dict[str, object]:
    """The settings that no move may change."""
    known: dict[str, object] = dict(plan.phase(history.phase.started.phase).recipe)
    if plan.budget and plan.budget.unit in (Unit.EPOCHS, Unit.TOKENS):
        # Siblings have equal steps, which are equal examples only while a step has as many.
        known |= dict.fromkeys(("batch_size", "context"), str(plan.budget))
    return known


def compounds(plan: Plan, history: History, base: Base, tried: Sequence[TrialRecord]) -> list[str]:
    """Of moves that did better than the siblings beside them and yet do not lead: further, and together.

    `tried` share a fork. What they are held against is their control or, while there is none, the middle one of them.
    """
    expected = {t.trial.move: history.expected[t.trial.id] for t in tried if t.trial.id in history.expected}
    if len(expected) < 2:
        return []
    reference = expected.get(None, statistics.median(expected.values()))
    least = PAID * (plan.tolerance or metric_of(history.phase.started).tolerance(_score(history)))
    leader = history.leader.trial if history.leader else None
    leading = next((t.trial.move for t in tried if t.trial.id == leader), None)
    paid = [(level, move) for move, level in expected.items() if move in MOVES and level - reference > least]
    best = [move for _, move in sorted(paid, reverse=True) if move and move != leading]
    if not best:
        return []
    names = [f"{best[0]}+{other}" for other in best[:2]]
    return [name for name in names if applied(plan, history, base, name)]


def _score(history: History) -> float:
    interval = history.leader.interval if history.leader else None
    return interval.score if interval else 0.0


def average(history: History) -> Proposal | None:
    """The mean of the best cooled-down checkpoints of one run (arXiv 2203.05482): of two, and of three if that led."""
    phase, index = history.phase, history.phase.started.phase
    averages = [t for t in phase.of_kind("average") if not is_between(phase, t.trial)]
    if len(averages) >= AVERAGES or (averages and not (averages[-1].verdict and averages[-1].verdict.leads)):
        return None
    judged = [t for t in standing(history) if t.trial.kind not in ("base", "average")]
    # Weights of different networks have no mean.
    soup = [t for t in judged if t.trial.recipe.network == judged[0].trial.recipe.network][: len(averages) + 2]
    known = {t.checkpoints[-1].id for t in soup}
    if len(soup) < len(averages) + 2 or any(set(a.trial.of) == known for a in averages):
        return None
    best, worst = soup[0], soup[-1]
    assert best.full is not None
    assert worst.full is not None
    behind = metric_of(phase.started).improvement(best.full.interval.score, worst.full.interval.score)
    own = [v for t in soup if (v := t.verdict) and not (v.rival and history.trial(v.rival).trial.kind == "base")]
    errors = [v.standard_error for v in own if v.standard_error is not None]
    if not errors or behind > SOUP_ERRORS * max(errors):
        return None  # the mean of a good and a bad checkpoint is not better than the good one
    trial = replace(
        best.trial,
        id=f"{index}.average-{len(averages) + 1}",
        kind="average",
        move=None,
        length=None,
        carry="weights",
        of=tuple(t.checkpoints[-1].id for t in soup),
    )
    return Proposal(trial, f"the mean of the weights of the {len(soup)} best: {', '.join(t.trial.id for t in soup)}")


def too_few(found: Interval) -> str:
    """What is said of a validation split that cannot tell anything apart: how many examples it would take.

    Estimated from the spread of this checkpoint's own score; what two checkpoints find hard alike needs fewer.
    """
    blocks = found.blocks
    error = (found.high - found.low) / 2 / student_quantile(blocks) if blocks > 1 else math.inf
    difference = WORTH_SEEING * abs(found.score)
    wanted = blocks_needed(difference, error, 0, blocks)
    many = f"about {max(wanted, LEAST_BLOCKS):,} or fewer" if wanted else "some hundreds"
    return (
        f"the validation split has {blocks} independent example{'s' if blocks != 1 else ''}, too few to tell two "
        f"checkpoints apart: it takes at least {LEAST_BLOCKS} to compare any, and {many} to see a difference of "
        f"{difference:.2g}"
    )
