"""What a trial's curve shows after each look: pure functions of the plan and the history."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from multistep.core.choice.allowance import allowance, weighs
from multistep.core.choice.forks import USUAL_FORKS
from multistep.core.choice.moves import RESTART
from multistep.core.choice.retained import look_gain
from multistep.core.evidence.metric import OF_LOSS, Metric, beside
from multistep.core.evidence.scores import difference_words, form_of, metric_words
from multistep.core.evidence.stability import MIN_POINTS, MIN_STABLE_POINTS, Reading, Stability, read_curve
from multistep.core.values.events import Evaluated, StabilityRead
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan

LEAP = 3.0  # tolerances by which a cooldown gets worse from one look to the next, and is not believed to get better
# A restart is taken to overfit when so many looks in a row, from so many times the steps of its best one on, are worse
# by as much: guesses.
TURNED_LOOKS, TURNED_LATE = 2, 1.5
# Of the way from the first looks to the baseline: a metric that has come less far has not begun to move. A guess.
NOT_BEGUN = 0.25
FEW = 3  # looks that are averaged at either end
EXPLODED = 2.0  # times the recent training loss, and above all that the trial has seen
LOST = 0.1  # at least, of what training has brought: near zero twice the loss is nothing. A guess.


def read_stability(plan: Plan, history: History, name: str) -> StabilityRead | None:
    """What the validation curve shows after its newest look; None where nothing can be judged yet.

    The horizon is what is left of the phase, or as long again as it has lasted where no end is given. A
    cooldown is read together with the trunk it came from: it may overfit, too.
    """
    trial = history.trial(name)
    if trial.trial.kind == "probe" or not trial.done:
        return None
    last = trial.done[-1]
    assert last.progress is not None
    if not last.progress.finite:
        return _diverged(trial, "the training loss is not finite")
    if (loss := _exploded(history.phase, trial)) is not None:
        return _diverged(trial, f"the training loss exploded to {loss:.4g}")
    if last.evaluation is None:
        return None
    if not math.isfinite(last.evaluation.interval.score):
        return _diverged(trial, "the validation score is not finite")
    phase = history.phase
    if trial.trial.length is not None:
        # A sibling runs its length, that all may be compared; a restart is there to be the better trunk.
        return _turned(plan, phase, trial) if trial.trial.move == RESTART else None
    parts = lineage(phase, trial)
    curve = [look for part in parts for look in part.curve]
    left = allowance(plan, history, trial).steps_left
    if left is not None and len(trial.trial.recipe.resolution) > 1 and trial.trial.kind == "trunk":
        return None  # scored at another size than it is trained at, a curve jumps; without an end, no trunk grows
    if trial.trial.kind == "trunk" and (rise := _worse_than_begun(phase, trial)):
        by = difference_words(metric_of(phase.started), rise)
        return _diverged(trial, f"it is {by} worse than where it began again")
    another = left is None or left >= 2 * allowance(plan, history, trial).window_steps
    if failing := _failing_cooldown(plan, phase, trial, curve, another=another):
        rise, reason = failing
        tolerance = plan.tolerance or metric_of(phase.started).tolerance(curve[-1].interval.score)
        return StabilityRead(name, trial.step, Stability.OVERFITTING, -rise, -rise, tolerance, reason)
    if len(curve) < MIN_POINTS or (left is not None and (trial.step + left) / spacing(curve) < MIN_STABLE_POINTS):
        return None
    metric = metric_of(phase.started)
    tolerance = plan.tolerance or metric.tolerance(curve[-1].interval.score)
    horizon = float(trial.step if left is None else max(1, left))
    train = _train_losses(parts, len(curve))
    reading = read_curve(
        [look.step for look in curve],
        [look.interval.score for look in curve],
        horizon_steps=horizon,
        tolerance=tolerance,
        maximize=metric.goal == "maximize",
        train_losses=train,
        form=form_of(metric),
    )
    forecast, stability, reason = reading.forecast, reading.stability, reading.reason
    other = beside(metric, curve[-1].scores)
    of_loss = _loss_reading(other, curve, horizon, train) if other else None
    if other and of_loss and of_loss.stability is Stability.OVERFITTING:
        # Accuracy may still gain for epochs after that: what it is worth to go on is weighed, not forbidden.
        reason += f"; {of_loss.reason}"
    if of_loss and of_loss.stability is Stability.IMPROVING and stability is Stability.STABLE:
        # Who knows nothing yet is wrong about everything for a while, and flat: speech above all.
        stability, reason = Stability.UNDECIDED, f"{reason}; the loss still falls, so this is no plateau yet"
    if stability is Stability.STABLE and (why := _no_plateau(plan, history, curve)):
        # Nothing is forecast either: a run without an end would be left for a forecast that expects nothing.
        forecast, stability, reason = None, Stability.UNDECIDED, f"{reason}; {why}, so this is no plateau yet"
    return StabilityRead(
        name,
        trial.step,
        stability,
        forecast.expected if forecast else math.nan,
        forecast.high if forecast else math.nan,
        tolerance,
        reason,
        of_loss.stability if of_loss else None,
    )


def _no_plateau(plan: Plan, history: History, curve: Sequence[Evaluated]) -> str:
    """Why a flat curve is none; empty where it may be."""
    phase = history.phase
    if not_begun(history, curve):
        return "the score has come next to nothing of the way to the baseline"
    whole = [t for t in phase.of_kind("control") if t.trial.length is None]
    weighed = weighs(plan, phase.started.phase, phase.started.recipe)
    if phase.started.facts.pretrained and not weighed and len(whole) < USUAL_FORKS and plan.budget is None:
        return "pretrained weights are given their usual epochs"
    return ""


def not_begun(history: History, curve: Sequence[Evaluated]) -> bool:
    """Whether the metric has come next to nothing of the way from where it began to the baseline.

    What has not begun is flat, and no plateau: a model that is trained by CTC says nothing at all for a while, and
    another answers with the commonest class, before what they learn shows all at once.
    """
    metric = metric_of(history.phase.started)
    baseline = next((b.interval.score for b in history.baselines if b.split == "validation"), None)
    scores = [look.interval.score for look in curve]
    if baseline is None or not all(map(math.isfinite, scores)):
        return False
    few = min(FEW, max(1, len(scores) // 2))
    begin, now = statistics.fmean(scores[:few]), statistics.fmean(scores[-few:])
    way = metric.improvement(baseline, begin)
    return way > 0 and metric.improvement(now, begin) < NOT_BEGUN * way


def _turned(plan: Plan, phase: PhaseRecord, trial: TrialRecord) -> StabilityRead | None:
    """That a restart overfits, too: its last looks, long after its best one, are worse than that by the metric and its
    loss together, and by the loss alone, which has less noise.

    In its cooldown it is left alone: what gets worse there has little left to lose.
    """
    curve = trial.curve
    if not curve or trial.done[-1].window.segments[-1].shape == trial.trial.recipe.cooldown:
        return None
    best = curve[0]
    for look in curve[1:]:
        best = look if look_gain(phase, look, best) > 0 else best
    late = [look for look in curve[-TURNED_LOOKS:] if look.step >= TURNED_LATE * best.step]
    if len(late) < TURNED_LOOKS or not all(_clearly_worse(phase, look, best) for look in late):
        return None
    metric = metric_of(phase.started)
    tolerance = plan.tolerance or metric.tolerance(best.interval.score)
    fall = look_gain(phase, late[-1], best) * tolerance
    reason = f"the restart was best at step {best.step:,} and has been getting worse since"
    return StabilityRead(trial.trial.id, trial.step, Stability.OVERFITTING, fall, fall, tolerance, reason)


def _clearly_worse(phase: PhaseRecord, look: Evaluated, best: Evaluated) -> bool:
    metric = metric_of(phase.started)
    loss = beside(metric, look.scores)
    if loss and all(math.isfinite(e.scores.get(loss.name, math.nan)) for e in (look, best)):
        before = best.scores[loss.name]
        if loss.improvement(look.scores[loss.name], before) > -LEAP * loss.tolerance(before):
            return False
    return look_gain(phase, look, best) <= -LEAP


def _failing_cooldown(
    plan: Plan, phase: PhaseRecord, trial: TrialRecord, curve: Sequence[Evaluated], *, another: bool
) -> tuple[float, str] | None:
    """By how much a cooldown got worse, and how that shows; None if it does not.

    While the rate falls a loss has less and less noise and every reason to fall, so that two looks tell, however few a
    short run has. Other metrics of a sample rise and fall by chance. `another` look will come.
    """
    metric = metric_of(phase.started)
    if trial.trial.kind != "control" or metric.name not in OF_LOSS or len(trial.curve) < 2 or len(curve) < 3:
        return None
    tolerance = plan.tolerance or metric.tolerance(curve[-3].interval.score)
    name = f"the validation {metric_words(metric.name)}"
    if rise := _rising(metric, tolerance, [look.interval.score for look in curve[-3:]], len(trial.curve), another):
        return rise, f"{name} got worse by {difference_words(metric, rise)} in the last evaluations of the cooldown"
    before, late = curve[: len(curve) - len(trial.curve)], curve[-2:]
    if not before:
        return None
    # Nothing rises any more, but nothing has come of it either: both looks are worse than what it began with, and far
    # worse than the best look before.
    best = before[0]
    for look in before[1:]:
        best = look if metric.improvement(look.interval.score, best.interval.score) > 0 else best
    begun = statistics.fmean(look.interval.score for look in before[-2:])
    since = min(metric.improvement(begun, look.interval.score) for look in late)
    fall = min(metric.improvement(best.interval.score, look.interval.score) for look in late)
    if since <= tolerance or fall <= LEAP * tolerance:
        return None
    by = difference_words(metric, fall)
    return fall, f"{name} is {by} worse than at step {best.step:,}, and the cooldown brings nothing"


def _rising(metric: Metric, tolerance: float, scores: Sequence[float], looks: int, another: bool) -> float:
    """By how much the last three scores got worse, if by two rises of more than the tolerance or one of several.

    A leap may be a spike: where another look will come, it has to be still there then. `looks` are the cooldown's own.
    """
    first, last = (metric.improvement(old, new) for old, new in itertools.pairwise(scores))
    if last > LEAP * tolerance and not another:
        return last
    stays = looks > 2 and first > LEAP * tolerance and first + last > first / 2
    return first + last if stays or min(first, last) > tolerance else 0.0


def _worse_than_begun(phase: PhaseRecord, trial: TrialRecord) -> float:
    """By how much a trunk that was begun again at a lower rate is worse than where it began, if it still is at its
    second look or a later one; else 0.

    A lower rate makes a look better at once. Such a trunk has a curve of its own, in which what is bad from its first
    look on is a level like any other.
    """
    start = phase.checkpoint(trial.trial.start) if trial.trial.start else None
    before = phase.trials[start.trial] if start else None
    if start is None or before is None or before.trial.learning_rate <= trial.trial.learning_rate:
        return 0.0
    metric = metric_of(phase.started)
    look = next((e for e in before.curve if e.step == start.step), None)
    if look is None or before.trial.kind != "trunk" or len(trial.curve) < 2:
        return 0.0
    by = [metric.improvement(look.interval.score, new.interval.score) for new in trial.curve[-2:]]
    return by[-1] if min(by) > LEAP * metric.tolerance(look.interval.score) else 0.0


def _loss_reading(
    loss: Metric, curve: Sequence[Evaluated], horizon: float, train: Sequence[float] | None
) -> Reading | None:
    """What the validation loss shows where another metric decides; None where it is not known."""
    losses = [look.scores.get(loss.name, math.nan) for look in curve]
    if not all(map(math.isfinite, losses)):
        return None
    tolerance = loss.tolerance(losses[-1])
    steps = [look.step for look in curve]
    return read_curve(steps, losses, horizon_steps=horizon, tolerance=tolerance, train_losses=train, form=form_of(loss))


def lineage(phase: PhaseRecord, trial: TrialRecord) -> list[TrialRecord]:
    """The trial after the trunks that it goes on from, each with its windows up to the fork alone.

    A trunk that was begun again at another rate draws a curve of its own.
    """
    parts = [trial]
    for record in reversed(phase.of_kind("trunk")):
        first = parts[0]
        if first.trial.start not in {saved.id for saved in record.checkpoints}:
            continue
        if first.trial.kind == "trunk" and first.trial.learning_rate != record.trial.learning_rate:
            break
        parts.insert(0, replace(record, windows=tuple(w for w in record.windows if w.step <= first.first_step)))
    return parts


def _exploded(phase: PhaseRecord, trial: TrialRecord) -> float | None:
    """The last window's training loss if it left all that was seen before; None if it did not."""
    losses = [r.progress.loss for r in trial.done if r.progress]
    if len(losses) < 4:
        return None
    recent, last = statistics.median(losses[-9:-1]), losses[-1]
    first = (r.progress.loss for t in phase.of_kind("trunk") for r in t.done if r.progress and r.progress.finite)
    began = next(first, losses[0])
    least = max(EXPLODED * recent, *losses[:-1], recent + LOST * (began - recent))
    return last if last > least else None


def _train_losses(parts: Sequence[TrialRecord], points: int) -> list[float] | None:
    """The training losses of the windows that the looks ended; None where they do not pair up."""
    losses = [r.progress.loss for part in parts for r in part.done if r.evaluation and r.progress]
    return losses if len(losses) == points else None


def spacing(curve: Sequence[Evaluated]) -> float:
    return (curve[-1].step - curve[0].step) / max(1, len(curve) - 1)


def _diverged(trial: TrialRecord, reason: str) -> StabilityRead:
    return StabilityRead(trial.trial.id, trial.step, Stability.DIVERGED, math.nan, math.nan, math.nan, reason)
