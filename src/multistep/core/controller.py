"""What to do next, and what to think of what was done: pure functions of the plan and the history.

The plain run: a trunk at constant learning rate, left when it is stable, overfitting or diverged or when
what is left equals the cooldown; then the control, which cools down to zero and is evaluated in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from multistep.core.allowance import PROBE_FACTORS, PROBE_STEPS, STABLE_COOLDOWN, allowance, fixed_steps
from multistep.core.compare import Comparison, compare
from multistep.core.events import CheckpointSaved, Evaluated, StabilityRead, VerdictGiven
from multistep.core.history import History, PhaseRecord, TrialRecord
from multistep.core.metric import Evaluation, Metric, metric_named
from multistep.core.plan import Plan
from multistep.core.stability import Stability, read_curve
from multistep.core.trial import Decision, Trial
from multistep.core.units import Amount
from multistep.core.windows import cooldown_progress, left_by_curve

LEAST_WINDOWS = 10  # below, the run is the plain run alone and no curve is judged
RESTARTS = 2  # times a diverged trunk is begun again, each at a third of the rate


@dataclass(frozen=True)
class Proposal:
    trial: Trial
    reason: str


def propose(plan: Plan, history: History) -> Proposal | None:
    """The next trial of the phase that is going on, or None when the phase is done."""
    phase = history.phase
    trunk = phase.trunk
    if (control := phase.control) and control.verdict:
        return _second_control(plan, history, control)
    if trunk is None:
        return _trunk(plan, phase, "the phase's recipe", start=phase.started.start)
    if probes := phase.of_kind("probe"):
        return _after_probes(plan, history, probes, trunk)
    if trunk.for_probes:
        return _probe(plan, phase, 0)
    return _after_trunk(plan, history, trunk)


def _after_trunk(plan: Plan, history: History, trunk: TrialRecord) -> Proposal | None:
    phase = history.phase
    shown = left_by_curve(plan, trunk)
    reason = trunk.reading.reason if trunk.reading else ""
    best = best_checkpoint(phase)
    match shown:
        case Stability.DIVERGED if sum(not t.for_probes for t in phase.of_kind("trunk")) <= RESTARTS:
            reason = f"diverged ({reason}); again from {_place(best)} at a third of the rate"
            start = best.id if best else phase.started.start
            return _trunk(plan, phase, reason, start=start, rate=trunk.trial.learning_rate / 3)
        case Stability.DIVERGED if best is None:
            return None  # nothing was ever good: the phase has failed
        case Stability.DIVERGED:
            return _control(plan, history, trunk, best, f"diverged again ({reason}); cooling down {_place(best)}")
        case Stability.OVERFITTING:
            return _control(plan, history, trunk, best, f"{reason}; back to {_place(best)}")
        case Stability.STABLE | Stability.UNDECIDED:
            return _control(plan, history, trunk, _head(trunk), reason)
        case _:
            return _control(plan, history, trunk, _head(trunk), "what is left equals the cooldown")


def _head(trunk: TrialRecord) -> CheckpointSaved | None:
    return trunk.checkpoints[-1] if trunk.checkpoints else None


def _place(checkpoint: CheckpointSaved | None) -> str:
    return f"step {checkpoint.step}" if checkpoint else "the beginning"


def _trunk(plan: Plan, phase: PhaseRecord, reason: str, *, start: str | None, rate: float | None = None) -> Proposal:
    number = len(phase.of_kind("trunk"))
    recipe = phase.started.recipe
    assert recipe.learning_rate is not None, "a resolved recipe has a learning rate"
    name = f"{phase.started.phase}.trunk" + (f"-{number + 1}" if number else "")
    trial = Trial(name, phase.started.phase, "trunk", start, recipe, plan.seed, rate or recipe.learning_rate)
    return Proposal(trial, reason)


def _control(plan: Plan, history: History, trunk: TrialRecord, start: CheckpointSaved | None, reason: str) -> Proposal:
    phase = history.phase
    step = start.step if start else 0
    left = allowance(plan, history, replace(trunk, windows=(), first_step=step)).steps_left
    if phase.started.recipe.cooldown_fraction == 0:
        cooldown = 0
    elif left is None or left_by_curve(plan, trunk):
        # The curve, not the clock, ended the trunk: what is left over is given back.
        wanted = max(1, round(STABLE_COOLDOWN * max(step, 1)))
        cooldown = wanted if left is None else min(wanted, left)
    else:
        cooldown = left
    index = phase.started.phase
    fork = start.id if start else phase.started.start
    rate = trunk.trial.learning_rate
    trial = Trial(f"{index}.control", index, "control", fork, trunk.trial.recipe, plan.seed, rate, cooldown)
    return Proposal(trial, reason)


def _second_control(plan: Plan, history: History, control: TrialRecord) -> Proposal | None:
    """After a cooldown that overfitted or diverged: back to the best checkpoint.

    From before overfitting the rate goes to zero faster; what diverged is evaluated as it was.
    """
    phase = history.phase
    best = best_checkpoint(phase)
    if best is None or best.step >= control.step or len(phase.of_kind("control")) > 1:
        return None
    origin = history.trial(best.trial)
    rate = origin.trial.learning_rate * (1.0 - cooldown_progress(origin, best.step))
    left = allowance(plan, history, replace(control, windows=(), first_step=best.step)).steps_left
    if control.verdict and control.verdict.decision == "failed":
        cooldown, reason = 0, f"the cooldown diverged; {_place(best)} as it was"
    elif left_by_curve(plan, control) is Stability.OVERFITTING and rate > 0 and left != 0:
        wanted = max(1, round(STABLE_COOLDOWN * best.step))
        cooldown = wanted if left is None else min(wanted, left)
        found = control.reading.reason if control.reading else "overfitting"
        reason = f"{found}; back to {_place(best)} and a shorter cooldown"
    else:
        return None
    index = phase.started.phase
    name = f"{index}.control-2"
    trial = Trial(name, index, "control", best.id, origin.trial.recipe, plan.seed, rate, cooldown)
    return Proposal(trial, reason)


# Learning-rate probes -------------------------------------------------------------------------------


def _probe(plan: Plan, phase: PhaseRecord, number: int, steps: int | None = None) -> Proposal:
    recipe = phase.started.recipe
    assert recipe.learning_rate is not None
    rate = recipe.learning_rate * PROBE_FACTORS[number]
    index = phase.started.phase
    trial = Trial(
        f"{index}.probe-{number + 1}",
        index,
        "probe",
        phase.started.start,
        recipe,
        plan.seed,
        rate,
        steps or PROBE_STEPS,
    )
    return Proposal(trial, f"is {rate:.3g} a better learning rate?")


def _after_probes(plan: Plan, history: History, probes: tuple[TrialRecord, ...], trunk: TrialRecord) -> Proposal | None:
    phase = history.phase
    if len(probes) < len(PROBE_FACTORS):
        return _probe(plan, phase, len(probes), probes[0].trial.cooldown_steps)
    if len(phase.of_kind("trunk")) == 1:
        rate, reason = chosen_rate(metric_named(phase.started.metric), probes)
        return _trunk(plan, phase, reason, rate=rate, start=phase.started.start)
    return _after_trunk(plan, history, trunk)


def chosen_rate(metric: Metric, probes: tuple[TrialRecord, ...]) -> tuple[float, str]:
    """The largest rate that does not lose beyond noise: short probes prefer rates that are too small.

    Noise is taken as the metric's tolerance: probes share weights, order and examples.
    Source: arXiv 1803.02021.
    """
    looks = [(p.trial.learning_rate, p.curve[-1].interval) for p in probes if p.curve]
    finite = [(rate, interval) for rate, interval in looks if math.isfinite(interval.score)]
    if not finite:
        lowest = min(p.trial.learning_rate for p in probes)
        return lowest / 3, "every probe diverged; a third of the lowest rate"
    best = finite[0][1]
    for _, interval in finite:
        if metric.improvement(interval.score, best.score) > 0:
            best = interval
    slack = metric.tolerance(best.score)
    good = [rate for rate, i in finite if metric.improvement(i.score, best.score) >= -slack]
    listed = ", ".join(f"{rate:.3g}: {i.score:.4f}" for rate, i in finite)
    return max(good), f"learning rate {max(good):.3g}, the largest that did not lose ({listed})"


# Judgements -----------------------------------------------------------------------------------------


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
    if last.evaluation is None:
        return None
    if not math.isfinite(last.evaluation.interval.score):
        return _diverged(trial, "the validation score is not finite")
    phase = history.phase
    parts = [trial] if trial.trial.kind == "trunk" or phase.trunk is None else [phase.trunk, trial]
    curve = [look for part in parts for look in part.curve if part is trial or look.step <= trial.first_step]
    left = allowance(plan, history, trial).steps_left
    if len(curve) < 5 or (left is not None and (trial.step + left) / _spacing(curve) < LEAST_WINDOWS):
        return None
    metric = metric_named(phase.started.metric)
    tolerance = plan.tolerance or metric.tolerance(curve[-1].interval.score)
    reading = read_curve(
        [look.step for look in curve],
        [look.interval.score for look in curve],
        horizon_steps=float(trial.step if left is None else max(1, left)),
        tolerance=tolerance,
        maximize=metric.goal == "maximize",
        train_losses=_train_losses(parts, len(curve)),
    )
    forecast = reading.forecast
    return StabilityRead(
        name,
        trial.step,
        reading.stability,
        forecast.expected if forecast else math.nan,
        forecast.high if forecast else math.nan,
        tolerance,
        reading.reason,
    )


def _train_losses(parts: Sequence[TrialRecord], points: int) -> list[float] | None:
    """The training losses of the windows that the looks ended; None where they do not pair up."""
    losses = [r.progress.loss for part in parts for r in part.done if r.evaluation and r.progress]
    return losses if len(losses) == points else None


def _spacing(curve: Sequence[Evaluated]) -> float:
    return (curve[-1].step - curve[0].step) / max(1, len(curve) - 1)


def _diverged(trial: TrialRecord, reason: str) -> StabilityRead:
    return StabilityRead(trial.trial.id, trial.step, Stability.DIVERGED, math.nan, math.nan, math.nan, reason)


def best_checkpoint(phase: PhaseRecord) -> CheckpointSaved | None:
    """The phase's saved checkpoint whose look was best; None if none was saved while all was well."""
    metric = metric_named(phase.started.metric)
    best: tuple[float, CheckpointSaved] | None = None
    for record in (*phase.of_kind("trunk"), *phase.of_kind("control")):
        scores = {look.step: look.interval.score for look in record.curve}
        for saved in record.checkpoints:
            score = scores.get(saved.step, math.nan)
            if math.isfinite(score) and (best is None or metric.improvement(score, best[0]) > 0):
                best = (score, saved)
    return best[1] if best else None


def decide(
    history: History, name: str, *, checkpoint: str | None, new: Evaluation | None, rival: Evaluation | None
) -> VerdictGiven:
    """The verdict about a cooled-down trial: `new` is its evaluation, `rival` the incumbent's (None: none).

    Within a phase a second attempt must be significantly better. A phase that the plan asked for is kept
    unless it is worse than the incumbent: nothing was chosen among attempts, so there is no luck to guard
    against. The interval is reported with either.
    """
    trial = history.trial(name)
    metric = metric_named(history.phase.started.metric)
    if new is None or not math.isfinite(metric.score(new)):
        return VerdictGiven(name, "failed", "the score is not finite", None, None)
    interval = metric.interval(new)
    if rival is None:
        return VerdictGiven(name, "keep", "the first that was evaluated", checkpoint, interval)
    found = compare(metric, new, rival)
    incumbent = history.incumbent
    same_phase = incumbent is not None and incumbent.trial in history.phase.trials
    keep = found.significant if same_phase else found.improvement >= 0
    decision: Decision = "keep" if keep else "reject"
    return VerdictGiven(
        name,
        decision,
        f"{_words(found)} than the incumbent ({trial.trial.kind} of phase {trial.trial.phase + 1})",
        checkpoint,
        interval,
        found.improvement,
        found.low,
        found.high,
    )


def stopped(plan: Plan, history: History) -> str:
    """Why the phase that is going on came to its end: budget, length, stable, overfitting or diverged."""
    phase = history.phase
    trunk, control = phase.trunk, phase.control
    if control is None or (control.verdict and control.verdict.decision == "failed"):
        return "diverged"
    if trunk and (shown := left_by_curve(plan, trunk)):
        return shown.value
    given = fixed_steps(plan, history)
    reached = given is not None and control.step >= given
    return "length" if reached and isinstance(plan.phase(phase.started.phase).until, Amount) else "budget"


def _words(found: Comparison) -> str:
    side = "better" if found.improvement >= 0 else "worse"
    sure = "" if (found.low > 0 or found.high < 0) else ", within noise,"
    return f"{abs(found.improvement):.4f} [{found.low:+.4f}, {found.high:+.4f}]{sure} {side}"
