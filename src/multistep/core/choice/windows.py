"""The next window of a trial: how many steps, at which learning rates, and whether to look afterwards."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from multistep.core.choice.allowance import (
    Allowance,
    allowance,
    first_window,
    look_seconds,
    probes_pay,
    scoring_is_dear,
    seconds_per_step,
    weighs,
)
from multistep.core.choice.forks import Fork, next_fork, others
from multistep.core.choice.options import leaves_trunk
from multistep.core.evidence.stability import MIN_STABLE_POINTS, Stability
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Segment
from multistep.core.values.trial import Window
from multistep.core.values.units import Amount

FINAL_STEPS = 24  # a window so short is not divided again
MOST_OF_PHASE = 0.05  # of a trunk's phase, that a window may take: what a kill costs at most; a guess
LOOK_STEPS = 3  # of a window that is there for the look after it
WHOLE = ("one-cycle", "multi-step")  # schedules that mean nothing unless they are finished
WARMUP_OF_FORK = 4  # of the steps to the first fork, at most: a sixteenth of four epochs
NEW_WARMUP = 10  # steps, at least, of an optimizer that begins anew
ONE_CYCLE_WARMUP = 0.3  # of the length (arXiv 1708.07120)
MILESTONES = (0.5, 0.75)  # of the length: where multi-step divides the rate by ten (arXiv 1512.03385)


def left_by_curve(plan: Plan, record: TrialRecord) -> Stability | None:
    """What the curve of a trunk or a cooldown shows, if that is a reason to leave it.

    A length that the plan gives is kept whatever the curve shows, unless the run diverged. A stable trunk is
    left, but a cooldown is there to be finished.
    """
    if record.reading is None:
        return None
    reasons = {Stability.DIVERGED}
    if not isinstance(plan.phase(record.trial.phase).until, Amount) and record.trial.recipe.schedule not in WHOLE:
        reasons |= {Stability.OVERFITTING}
        # Where what follows is weighed, a plateau is left when that is worth more, not when it is proven.
        if record.trial.kind == "trunk" and not weighs(plan, record.trial.phase, record.trial.recipe):
            reasons |= {Stability.STABLE}
    if record.reading.stability in reasons:
        return record.reading.stability
    return Stability.UNDECIDED if _hopeless(plan, record) else None


def _hopeless(plan: Plan, record: TrialRecord) -> bool:
    """Whether a trunk without an end has long been expected to bring nothing, though noise forbids certainty.

    Without it, such a run would go on for ever: the reading of each look in the last third of the trunk, at
    least ten of them, must expect less than the tolerance.
    """
    phase = plan.phase(record.trial.phase)
    if plan.budget is not None or isinstance(phase.until, Amount) or record.trial.kind != "trunk":
        return False
    recent = [r for r in record.readings if r.step >= record.step * 2 / 3]
    return len(recent) >= MIN_STABLE_POINTS and all(r.expected < r.tolerance for r in recent)


def next_window(plan: Plan, history: History, name: str) -> Window | None:
    """The next window of a trial, or None when the trial is over."""
    trial = history.trial(name)
    window = _next_window(plan, history, trial)
    if window is None or not (sizes := trial.trial.recipe.resolution):
        return window
    return replace(window, resolution=_resolution(sizes, trial, allowance(plan, history, trial)))


def _resolution(sizes: tuple[int, ...], trial: TrialRecord, left: Allowance) -> int:
    """The size that a trunk has reached; what follows a trunk is trained at the last."""
    if trial.trial.kind != "trunk" or (left.steps_left is None and not left.unmeasured):
        return sizes[-1]
    total = max(1, trial.step + (left.steps_left or 0))
    passed = 0.0 if left.unmeasured else trial.step / total / max(1e-9, 1.0 - trial.trial.recipe.cooldown_fraction)
    growing = sizes[:-1] if trial.trial.recipe.cooldown_fraction else sizes
    return growing[min(len(growing) - 1, int(passed * len(growing)))] if growing else sizes[-1]


def _next_window(plan: Plan, history: History, trial: TrialRecord) -> Window | None:
    last = trial.done[-1].progress if trial.done else None
    if last is not None and not last.finite:
        return None
    if trial.trial.kind in ("base", "average"):
        return None
    left = allowance(plan, history, trial)
    if trial.trial.kind == "trunk":
        return _trunk_window(plan, history, trial, left)
    if left_by_curve(plan, trial):
        return None
    if trial.trial.length is not None:
        return _sibling_window(trial, left)
    return _cooldown_window(trial, left)


def _trunk_window(plan: Plan, history: History, trial: TrialRecord, left: Allowance) -> Window | None:
    recipe = trial.trial.recipe
    if left_by_curve(plan, trial):
        return None
    if not history.phase.of_kind("probe") and probes_pay(plan, history):
        return None
    if recipe.schedule == "one-cycle":
        return _one_cycle_window(trial, left)
    looked_at = bool(trial.done) and trial.done[-1].evaluation is not None
    weighed = (
        weighs(plan, history.phase.started.phase, recipe) and not history.phase.started.facts.pretrained
    )  # whose forks are fixed
    if looked_at and weighed and leaves_trunk(plan, history, trial):
        return None
    steps, until_cooldown = left.window_steps, 0
    # What scoring costs is known from a look alone, and what is reserved for the end of the run depends on it.
    unseen = not left.exact and not left.unmeasured and scoring_is_dear(plan, history)
    warmup, dense = recipe.warmup_steps or 0, False
    if (fork := next_fork(plan, history)) is not None:
        # Ten looks at least on the way to the first fork, after the window that none follows. The others are told by
        # their verdicts, and looks at little data cost more than training on it. Where the clock comes before the first
        # fork, a look could change nothing but the time that is left.
        within = left.steps_left is None or left.unmeasured or trial.step + left.steps_left >= fork.steps
        dense = fork.pretrained and within and _bears_looks(plan, history.phase, fork)
        if fork.first and dense:
            steps = max(1, min(steps, fork.trunk_steps // 11))
        if trial.step >= fork.trunk_steps:
            return None
        steps = min(steps, fork.trunk_steps - trial.step)
        if fork.pretrained:
            warmup = min(warmup, max(1, fork.steps // WARMUP_OF_FORK))  # the cooldown begins at the full rate
    if left.steps_left is not None:
        total = trial.step + left.steps_left
        if not left.unmeasured:  # a length too short for its warm-up gets a shorter one
            warmup = min(warmup, max(1, total // 10))
        # Before the speed is known, the first window is all that is granted, and none of it is cooldown.
        cooldown = 0 if left.unmeasured else min(round(total * recipe.cooldown_fraction), max(0, total - warmup))
        until_cooldown = left.steps_left - cooldown
        # A measured speed is not exact to a fiftieth: rather begin the cooldown than train a few steps more.
        if until_cooldown <= (0 if left.exact else total // 50):
            if not unseen:
                return None
            until_cooldown = LOOK_STEPS
        # Rather one longer window than one and a crumb.
        steps = until_cooldown if until_cooldown < 1.5 * steps and fork is None else min(steps, until_cooldown)
    if not left.exact:
        # A speed that was seen over a few steps is not trusted with many more than those.
        first = first_window(history.phase)
        steps = min(steps, first if left.unmeasured else max(first, 2 * trial.step))
        if left.steps_left is not None and not left.unmeasured:
            # Where looks are dear they are far between, and a kill must not cost all that lies between two of them.
            steps = min(steps, max(first, math.ceil(MOST_OF_PHASE * (trial.step + left.steps_left))))
    looked = trial.curve[-1].step if trial.curve else trial.first_step
    enough = trial.step + steps - looked >= left.window_steps
    at_fork = fork is not None and (dense or trial.step + steps >= fork.trunk_steps)
    look = left.exact or (not left.unmeasured and (at_fork or enough))
    look |= unseen or (
        left.steps_left is not None and steps == until_cooldown and not left.unmeasured and not trial.curve
    )
    segments = _warm_segments(trial, steps, warmup)
    if recipe.schedule == "multi-step" and left.steps_left is not None and not left.unmeasured:
        segments = _stepped(segments, trial.step, trial.step + left.steps_left)
    return Window(trial.trial.id, segments, look)


def _bears_looks(plan: Plan, phase: PhaseRecord, fork: Fork) -> bool:
    """Whether ten looks on the way to a fork take a bearable part of its time; with a large model one may take more
    than all the steps between.
    """
    speed = seconds_per_step(phase)
    if not plan.timed or speed is None:
        return True
    if others(phase):
        return False  # their forks tell them apart, and have to fit in, too
    return MIN_STABLE_POINTS * look_seconds(phase) <= fork.steps * speed


def _one_cycle_window(trial: TrialRecord, left: Allowance) -> Window | None:
    """The rise of a cycle whose fall is the control's cooldown; without a length there is none to divide."""
    done = trial.done[-1].window.segments[-1].progress_to if trial.done else 0.0
    peak, steps = trial.trial.learning_rate, left.window_steps
    if left.unmeasured:
        return Window(trial.trial.id, (Segment(steps, "warmup", peak, 0.0, 0.05),), look=False)
    total = trial.step + (left.steps_left or 10 * steps)
    remaining = round(ONE_CYCLE_WARMUP * total) - trial.step
    if done >= 1.0 or left.steps_left == 0:
        return None
    remaining = max(1, remaining)
    steps = remaining if remaining < 1.5 * steps else steps
    reached = 1.0 if steps == remaining else done + (1.0 - done) * steps / remaining
    return Window(trial.trial.id, (Segment(steps, "warmup", peak, done, reached),), look=True)


def _stepped(segments: tuple[Segment, ...], step: int, total: int) -> tuple[Segment, ...]:
    """Constant stretches divided where the rate is divided by ten."""
    found: list[Segment] = []
    for segment in segments:
        end = step + segment.steps
        edges = [step, *(e for m in MILESTONES if step < (e := round(m * total)) < end), end]
        if segment.shape != "constant":
            edges = [step, end]
        for start, stop in itertools.pairwise(edges):
            passed = sum(start >= round(m * total) for m in MILESTONES)
            found.append(replace(segment, steps=stop - start, peak=segment.peak * 0.1**passed))
        step = end
    return tuple(found)


def _sibling_window(trial: TrialRecord, left: Allowance) -> Window | None:
    """Of a trial with a length of its own: the plateau, then the cooldown to zero, ending with the length."""
    recipe, taken = trial.trial.recipe, trial.step - trial.first_step
    done = cooldown_progress(trial, trial.step)
    assert left.steps_left is not None, "a sibling has a length"
    if done >= 1.0 or (left.steps_left == 0 and (recipe.cooldown_fraction == 0 or taken == 0)):
        return None
    if done > 0.0:
        return _fall(trial, left, left.steps_left)
    total = taken + left.steps_left
    warmup = 0
    if trial.trial.carry == "weights":
        # The base may have gone on from a trunk and so have none; a new optimizer needs one.
        warmup = max(recipe.warmup_steps or 0, NEW_WARMUP)
        warmup = warmup if left.unmeasured else min(warmup, max(1, total // 10))
    cooldown = 0 if left.unmeasured else min(round(total * recipe.cooldown_fraction), max(1, total - warmup))
    plateau = left.steps_left - cooldown
    if plateau <= (0 if left.exact else total // 50):
        return _fall(trial, left, left.steps_left) if recipe.cooldown_fraction else None
    steps = plateau if plateau < 1.5 * left.window_steps else left.window_steps
    look = not left.unmeasured and steps >= left.window_steps
    return Window(trial.trial.id, _warm_segments(trial, steps, warmup), look)


def _warm_segments(trial: TrialRecord, steps: int, warmup: int) -> tuple[Segment, ...]:
    """Steps at the plateau's rate, after what is left of a warm-up of so many.

    What was begun as a longer one, before the speed was known, goes on from the rate that it has reached.
    """
    last = trial.done[-1].window.segments[-1] if trial.done else None
    done = 0.0 if last is None else last.progress_to if last.shape == "warmup" else 1.0
    peak, left = trial.trial.learning_rate, round(warmup * (1.0 - done))
    warm = min(steps, left)
    segments: list[Segment] = []
    if warm:
        reached = 1.0 if warm == left else done + (1.0 - done) * warm / left
        segments.append(Segment(warm, "warmup", peak, done, reached))
    if steps > warm:
        segments.append(Segment(steps - warm, "constant", peak))
    return tuple(segments)


def _cooldown_window(trial: TrialRecord, left: Allowance) -> Window | None:
    recipe, planned = trial.trial.recipe, trial.trial.cooldown_steps
    peak = trial.trial.learning_rate
    taken = trial.step - trial.first_step
    done = cooldown_progress(trial, trial.step)
    if done >= 1.0 or planned == 0:
        return None
    is_probe = trial.trial.kind == "probe"
    warmup = min(recipe.warmup_steps or 0, planned // 4) if is_probe else 0
    if taken < warmup:
        return Window(trial.trial.id, (Segment(warmup, "warmup", peak, 0.0, 1.0),), look=False)
    if left.exact or left.steps_left is None or is_probe:
        remaining = planned - taken
    else:
        remaining = left.steps_left if trial.trial.to_the_end else min(planned - taken, left.steps_left)
    return _fall(trial, left, remaining)


def _fall(trial: TrialRecord, left: Allowance, remaining: int) -> Window:
    """The next window of a cooldown that has so many steps until rate zero, one at least."""
    done, is_probe = cooldown_progress(trial, trial.step), trial.trial.kind == "probe"
    steps = remaining = max(1, remaining)
    if remaining > 2 * left.window_steps and not is_probe:
        steps = left.window_steps
    elif not left.exact and not is_probe and remaining > FINAL_STEPS:
        # The nearer the end, the shorter the windows: the last one alone cannot be corrected by the clock.
        steps = math.ceil(remaining / 2)
    last = steps >= remaining
    progress = 1.0 if last else done + (1.0 - done) * steps / remaining
    segment = Segment(steps, trial.trial.recipe.cooldown, trial.trial.learning_rate, done, progress)
    # Who is judged is scored in full when it is over; the short windows before its end are not worth a look.
    return Window(trial.trial.id, (segment,), look=is_probe or (steps >= left.window_steps and not last))


def cooldown_progress(trial: TrialRecord, step: int) -> float:
    """How far the cooldown had come at a step of the phase: 0 at the plateau's rate, 1 at zero."""
    reached = [record.window.segments[-1] for record in trial.done if record.step <= step]
    return reached[-1].progress_to if reached and reached[-1].shape == trial.trial.recipe.cooldown else 0.0
