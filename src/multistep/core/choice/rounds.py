"""Rounds of siblings: one change each from one fork, against one control, with what the plain run did not need.

A round forks where the incumbent's cooldown began. First comes the control, which goes on with no change, then
moves one by one, each for as many seconds (or steps) as the control had. When a few moves were tried and one was
kept, the next round forks from that one's plateau. Nothing here trains: it is folded from the history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from multistep.core.choice.moves import AVERAGE, applicable
from multistep.core.choice.priority import in_order, shown, why
from multistep.core.choice.restart import restart
from multistep.core.choice.retained import before_cooldown, candidates, paid_most, trained
from multistep.core.choice.room import (
    AVERAGES,
    fits,
    least_room,
    remaining,
    rounds_of,
    scoring_fits,
    sibling_length,
)
from multistep.core.evidence.intervals import student_quantile
from multistep.core.evidence.metric import Interval
from multistep.core.evidence.spending import blocks_needed
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import MovesEnded
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Proposal, Trial
from multistep.core.values.units import Amount, Unit

LEAST_BLOCKS = 10  # of the validation split; with fewer, no interval means anything
WORTH_SEEING = 0.01  # of the score: the difference that a validation split should show
ROUND_MOVES = 3  # tried from one fork before the next round begins at what was kept
RERUNS = 3  # of the control and of what helped most, once every move was tried
EARLY_RERUN = 5  # siblings that must still fit for a first look at the noise between seeds
SOUP_ERRORS = 4.0  # by which the worst checkpoint of an average may be behind the best


@dataclass(frozen=True)
class Base:
    """Where the siblings of a round fork, and the recipe that they change."""

    start: str | None
    recipe: Recipe
    rate: float


def next_in_round(plan: Plan, history: History) -> Proposal | MovesEnded | None:
    """The next sibling, average or rerun; why there is none; None where the plan wants no moves."""
    phase = history.phase
    index = phase.started.phase
    wanted = plan.moves_of(index)
    if phase.moves_ended or wanted == () or isinstance(plan.phase(index).until, Amount):
        return None
    if plan.budget is None and wanted == "auto":
        return None  # nobody said how long to go on
    if history.incumbent is None:
        return None
    if history.incumbent.trial not in phase.trials:
        reason = "the phase did not come up to the one before it, so there is nothing to go on from"
        return MovesEnded(index, reason, budget=False)
    left = remaining(plan, history)
    incumbent = phase.trials[history.incumbent.trial].full
    if incumbent and incumbent.interval.blocks < LEAST_BLOCKS:
        return MovesEnded(index, too_few(incumbent.interval), budget=False)
    if shown(phase) is Stability.OVERFITTING and (found := restart(plan, history, left)):
        return found
    if not rounds_of(phase):
        return _new_round(plan, history, _base_of_incumbent(history), left)
    return _in_round(plan, history, rounds_of(phase)[-1], left)


def too_few(found: Interval) -> str:
    """What is said of a validation split that cannot tell anything apart: how many examples it would take.

    Estimated from the spread of this checkpoint's own score; what two checkpoints find hard alike needs fewer.
    """
    blocks = found.blocks
    error = (found.high - found.low) / 2 / student_quantile(blocks) if blocks > 1 else math.inf
    difference = WORTH_SEEING * abs(found.score)
    wanted = blocks_needed(difference, error, 0, blocks)
    many = f"about {max(wanted, LEAST_BLOCKS)}, or fewer," if wanted else "some hundreds"
    return (
        f"the validation split has {blocks} independent example{'s' if blocks != 1 else ''}, too few to tell two "
        f"checkpoints apart; a verdict takes at least {LEAST_BLOCKS}, and {many} see a difference of {difference:.2g}"
    )


# Rounds --------------------------------------------------------------------------------------------------


def _siblings(phase: PhaseRecord, control: TrialRecord) -> list[TrialRecord]:
    """The moves that were tried from a round's fork, in any round."""
    return [t for t in phase.of_kind("move") if t.trial.start == control.trial.start]


def _base_of_incumbent(history: History) -> Base:
    assert history.incumbent is not None
    record = trained(history.phase, history.phase.trials[history.incumbent.trial])
    trial = record.trial
    return Base(before_cooldown(record), replace(trial.recipe, learning_rate=trial.learning_rate), trial.learning_rate)


def _new_round(plan: Plan, history: History, base: Base, left: Amount | None) -> Proposal | MovesEnded:
    phase = history.phase
    length = sibling_length(history, left)
    index = phase.started.phase
    if length is None:
        assert left is not None
        unit = "s" if left.unit is Unit.SECONDS else " steps"
        reason = (
            f"no room for a move and its control: {max(0.0, left.value):.0f}{unit} are left, "
            f"{math.ceil(least_room(history, left.unit))}{unit} are needed"
        )
        return _last(plan, history, reason, budget=True)
    if not _names(plan, history, base):
        reason = "no further move applies to this model, task and recipe"
        return _reruns(plan, history, left) or _last(plan, history, reason, budget=False)
    number = len(rounds_of(phase)) + 1
    alone = not fits(plan, history, left, length, 2)
    name = f"{index}.round-{number}.control"
    trial = Trial(name, index, "control", base.start, base.recipe, plan.seed, base.rate, length=length)
    what = "for what is left" if alone else "that moves are compared with"
    return Proposal(trial, f"round {number}: the same recipe for {length}, {what}")


def _in_round(plan: Plan, history: History, control: TrialRecord, left: Amount | None) -> Proposal | MovesEnded:
    phase = history.phase
    trial = control.trial
    assert trial.length is not None
    base = Base(trial.start, trial.recipe, trial.learning_rate)
    tried = _siblings(phase, control)
    here = [t for t in tried if t.trial.id.startswith(trial.id.removesuffix("control"))]
    done = {t.trial.move for t in tried}
    names = [n for n in (*_compounds(plan, history, base, tried), *_names(plan, history, base)) if n not in done]
    best = _base_of_incumbent(history)
    if best.start != base.start and (len(here) >= ROUND_MOVES or not names):
        return _new_round(plan, history, best, left)
    if not fits(plan, history, left, trial.length):
        return _last(plan, history, "no room for another move", budget=True)
    if not phase.of_kind("rerun") and here and fits(plan, history, left, trial.length, EARLY_RERUN):
        return _rerun(plan, control, 1, "the control with another seed: how much is noise between seeds?")
    if not names:
        return _reruns(plan, history, left) or _last(plan, history, "every move that applies was tried", budget=False)
    name = names[0]
    recipe = _apply(plan, history, base, name)
    assert recipe is not None, "only moves that apply are named"
    return Proposal(_move(control, name, recipe), why(history.phase, name))


def _move(control: TrialRecord, name: str, recipe: Recipe) -> Trial:
    trial = control.trial
    starts_anew = recipe.optimizer != trial.recipe.optimizer or recipe.frozen != trial.recipe.frozen
    return replace(
        trial,
        id=f"{trial.id.removesuffix('control')}{name}",
        kind="move",
        move=name,
        recipe=recipe,
        learning_rate=recipe.learning_rate or trial.learning_rate,
        carry="weights" if starts_anew else "all",
    )


def _rerun(plan: Plan, sibling: TrialRecord, number: int, reason: str) -> Proposal:
    trial = sibling.trial
    return Proposal(replace(trial, id=f"{trial.id}-seed-{number}", kind="rerun", seed=plan.seed + number), reason)


def _reruns(plan: Plan, history: History, left: Amount | None) -> Proposal | None:
    """Once every move was tried: the one that brought most over its control, and that control, with other seeds."""
    best = paid_most(history.phase)
    if best is None or best.verdict is None or best.verdict.control is None or best.trial.length is None:
        return None
    if not fits(plan, history, left, best.trial.length):
        return None
    done = set(history.phase.trials)
    for number in range(1, RERUNS + 1):
        for record in (history.trial(best.verdict.control), best):
            proposal = _rerun(plan, record, number, f"again with another seed: does {best.trial.move} help in general?")
            if proposal.trial.id not in done:
                return proposal
    return None


def _last(plan: Plan, history: History, reason: str, *, budget: bool) -> Proposal | MovesEnded:
    """Before the moves end, averages of what was cooled down from one fork are tried (arXiv 2203.05482)."""
    phase, index = history.phase, history.phase.started.phase
    ended = MovesEnded(index, reason, budget)
    averages = phase.of_kind("average")
    wanted = plan.moves_of(index)
    if (wanted != "auto" and AVERAGE not in wanted) or len(averages) >= AVERAGES or not scoring_fits(plan, history):
        return ended
    if averages and (averages[-1].verdict is None or averages[-1].verdict.decision != "keep"):
        return ended
    metric = metric_of(phase.started)
    ranked = [t for t in candidates(phase) if t.verdict and t.verdict.decision != "failed"]
    soup = ranked[: len(averages) + 2]
    assert history.incumbent is not None
    known = {t.checkpoints[-1].id for t in soup}
    if len(soup) < len(averages) + 2 or any(set(a.trial.of) == known for a in averages):
        return ended
    best, worst = soup[0], soup[-1]
    assert best.full is not None
    assert worst.full is not None
    behind = metric.improvement(best.full.interval.score, worst.full.interval.score)
    errors = [v.standard_error for t in soup if (v := t.verdict) and v.standard_error is not None]
    if not errors or behind > SOUP_ERRORS * max(errors):
        return ended  # the mean of a good and a bad checkpoint is not better than the good one
    trial = replace(
        best.trial,
        id=f"{index}.average-{len(averages) + 1}",
        kind="average",
        move=None,
        length=None,
        carry="weights",
        of=tuple(t.checkpoints[-1].id for t in soup),
    )
    return Proposal(trial, f"the mean of the {len(soup)} best: {', '.join(t.trial.id for t in soup)}")


# Which first ---------------------------------------------------------------------------------------------


def _given(plan: Plan, history: History) -> dict[str, object]:
    given: dict[str, object] = dict(plan.phase(history.phase.started.phase).recipe)
    if plan.budget and plan.budget.unit in (Unit.EPOCHS, Unit.TOKENS):
        # Siblings have equal steps, which are equal examples only while a step has as many.
        given |= dict.fromkeys(("batch_size", "context"), str(plan.budget))
    return given


def _names(plan: Plan, history: History, base: Base) -> list[str]:
    """The moves that apply to a base, in the order in which they are tried: as named, or by what the curves say."""
    phase = history.phase
    found = applicable(base.recipe, phase.started.facts, _given(plan, history))
    wanted = plan.moves_of(phase.started.phase)
    if wanted != "auto":
        return [name for name in wanted if name in found]
    return in_order(phase, found)


def _apply(plan: Plan, history: History, base: Base, name: str) -> Recipe | None:
    """The base's recipe after a move, or after several in a row (`dropout-up+decay-up`); None if one does not apply."""
    recipe = base.recipe
    for part in name.split("+"):
        found = applicable(recipe, history.phase.started.facts, _given(plan, history))
        if part not in found:
            return None
        recipe = found[part]
    return recipe


def _compounds(plan: Plan, history: History, base: Base, tried: Sequence[TrialRecord]) -> list[str]:
    """Of moves that were better than their control and yet no match for the incumbent: further, and together."""
    paid = [
        (verdict.gain, t.trial.move)
        for t in tried
        if (verdict := t.verdict) and verdict.decision == "reject" and t.trial.move and "+" not in t.trial.move
        if verdict.gain is not None and (verdict.gain_low or 0.0) > 0
    ]
    best = [move for _, move in sorted(paid, reverse=True)]
    if not best:
        return []
    names = [f"{best[0]}+{other}" for other in best[:2]]
    return [name for name in names if _apply(plan, history, base, name)]
