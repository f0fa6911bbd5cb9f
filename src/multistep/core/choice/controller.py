"""What to do next: pure functions of the plan and the history.

The plain run comes first: a trunk at constant learning rate, left when it is stable, overfitting or diverged or
when what is left equals the cooldown; then the control, which cools down to zero and is evaluated in full. What
the plain run does not need goes to rounds of moves.
"""

from __future__ import annotations

from dataclasses import replace

from multistep.core.choice.allowance import (
    PROBE_FACTORS,
    STABLE_COOLDOWN,
    allowance,
    batch_size,
    steps_in,
)
from multistep.core.choice.finetune import next_fork
from multistep.core.choice.probing import chosen_rate, probe
from multistep.core.choice.retained import best_checkpoint
from multistep.core.choice.rounds import next_in_round
from multistep.core.choice.windows import cooldown_progress, left_by_curve
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import CheckpointSaved, MovesEnded
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe, rate_share
from multistep.core.values.trial import Proposal, Trial
from multistep.core.values.units import Amount

RESTARTS = 2  # times a diverged trunk is begun again, each at a third of the rate
PLATEAU_FACTOR, LEAST_PLATEAU_RATE = 0.3, 0.01  # of on-plateau: each lowering, and the share at which it ends


def propose(plan: Plan, history: History) -> Proposal | MovesEnded | None:
    """The next trial of the phase that is going on, why no move is tried any more, or None: the phase is done."""
    phase = history.phase
    trunk = phase.trunk
    if (control := phase.control) and control.verdict and not _began_after(phase, trunk, control):
        return (
            _begun_again(plan, history, control) or _after_fork(plan, history, control) or next_in_round(plan, history)
        )
    if trunk is None:
        return _trunk(plan, phase, "the phase's recipe", start=phase.started.start)
    if probes := phase.of_kind("probe"):
        return _after_probes(plan, history, probes, trunk)
    if trunk.for_probes:
        return probe(plan, history, 0)
    return _after_trunk(plan, history, trunk)


def _began_after(phase: PhaseRecord, trunk: TrialRecord | None, control: TrialRecord) -> bool:
    """Whether a trunk goes on behind a cooled-down fork of it."""
    order = list(phase.trials)
    return trunk is not None and order.index(trunk.trial.id) > order.index(control.trial.id)


def _after_trunk(plan: Plan, history: History, trunk: TrialRecord) -> Proposal | None:
    phase = history.phase
    shown = left_by_curve(plan, trunk)
    reason = trunk.reading.reason if trunk.reading else ""
    best = best_checkpoint(phase)
    rate = trunk.trial.learning_rate
    match shown:
        case Stability.DIVERGED if _diverged(phase) <= RESTARTS:
            start = best.id if best else phase.started.start
            skip = _past_the_window(phase, trunk, best)
            reason = f"diverged ({reason}); again from {_place(best)} at a third of the rate, past that window's data"
            return _trunk(plan, phase, reason, start=start, rate=rate / 3, skip=skip)
        case Stability.DIVERGED if best is None:
            return None  # nothing was ever good: the phase has failed
        case Stability.DIVERGED:
            skip = _past_the_window(phase, trunk, best)
            again = f"diverged again ({reason}); cooling down {_place(best)}"
            return _control(plan, history, trunk, best, again, skip=skip)
        case Stability.OVERFITTING:
            return _control(plan, history, trunk, best, f"{reason}; back to {_place(best)}")
        case Stability.STABLE | Stability.UNDECIDED if _on_plateau(phase, trunk):
            lower = f"{reason}; the rate goes down to {PLATEAU_FACTOR * rate:.3g}"
            return _trunk(plan, phase, lower, start=_head(trunk), rate=PLATEAU_FACTOR * rate, warmup=False)
        case Stability.STABLE | Stability.UNDECIDED:
            return _control(plan, history, trunk, trunk.last_checkpoint, reason)
    if (fork := next_fork(plan, history)) and trunk.step >= fork.trunk_steps:
        reason = f"{fork.epochs:.3g} epoch{'s' if fork.epochs > 1 else ''} with the cooldown"
        return _control(plan, history, trunk, trunk.last_checkpoint, reason, cooldown=fork.cooldown_steps)
    return _control(plan, history, trunk, trunk.last_checkpoint, "what is left equals the cooldown")


def _past_the_window(phase: PhaseRecord, trunk: TrialRecord, best: CheckpointSaved | None) -> int:
    """Examples after the checkpoint that are passed over: all that the trunk has read since, and what it itself had
    passed over before, unless the checkpoint is its own. The window that made it diverge is among them.
    """
    skipped = 0 if best and best.trial == trunk.trial.id else trunk.trial.skip_examples
    return (trunk.step - (best.step if best else 0)) * batch_size(phase) + skipped


def _diverged(phase: PhaseRecord) -> int:
    """How many of the trunks so far have diverged."""
    trunks = phase.of_kind("trunk")
    return sum(t.reading is not None and t.reading.stability is Stability.DIVERGED for t in trunks)


def _on_plateau(phase: PhaseRecord, trunk: TrialRecord) -> bool:
    first = phase.started.recipe.learning_rate or 0.0
    lowered = PLATEAU_FACTOR * trunk.trial.learning_rate
    return trunk.trial.recipe.schedule == "on-plateau" and lowered >= LEAST_PLATEAU_RATE * first


def _head(trunk: TrialRecord) -> str | None:
    return trunk.last_checkpoint.id if trunk.last_checkpoint else None


def _place(checkpoint: CheckpointSaved | None) -> str:
    return f"step {checkpoint.step}" if checkpoint else "the beginning"


def _trunk(
    plan: Plan,
    phase: PhaseRecord,
    reason: str,
    *,
    start: str | None,
    rate: float | None = None,
    skip: int = 0,
    warmup: bool = True,
) -> Proposal:
    number = len(phase.of_kind("trunk"))
    recipe = _scheduled(phase.started.recipe)
    if not warmup:
        recipe = replace(recipe, warmup_steps=0)
    assert recipe.learning_rate is not None, "a resolved recipe has a learning rate"
    name = f"{phase.started.phase}.trunk" + (f"-{number + 1}" if number else "")
    index = phase.started.phase
    peak = rate or recipe.learning_rate
    return Proposal(Trial(name, index, "trunk", start, recipe, plan.seed, peak, skip_examples=skip), reason)


def _scheduled(recipe: Recipe) -> Recipe:
    """A schedule's own cooldown: one-cycle falls as a cosine (arXiv 1708.07120), multi-step has fallen already."""
    match recipe.schedule:
        case "one-cycle":
            return replace(recipe, cooldown="cosine", cooldown_fraction=1.0)
        case "multi-step":
            return replace(recipe, cooldown_fraction=0.0)
        case _:
            return recipe


def _control(
    plan: Plan,
    history: History,
    trunk: TrialRecord,
    start: CheckpointSaved | None,
    reason: str,
    *,
    cooldown: int | None = None,
    skip: int = 0,
) -> Proposal:
    phase = history.phase
    step = start.step if start else 0
    left = allowance(plan, history, replace(trunk, windows=(), first_step=step)).steps_left
    to_the_end = False
    if trunk.trial.recipe.cooldown_fraction == 0:
        cooldown = 0
    elif cooldown is not None:
        cooldown = cooldown if left is None else min(cooldown, left)
    elif left is None or left_by_curve(plan, trunk):
        # The curve, not the clock, ended the trunk: what is left over goes to moves, or is given back.
        wanted = max(1, round(STABLE_COOLDOWN * max(step, 1)))
        cooldown = wanted if left is None else min(wanted, left)
    else:
        cooldown, to_the_end = left, True
    index = phase.started.phase
    number = len(phase.of_kind("control"))
    name = f"{index}.control" + (f"-{number + 1}" if number else "")
    fork = start.id if start else phase.started.start
    rate = trunk.trial.learning_rate
    recipe = trunk.trial.recipe
    trial = Trial(name, index, "control", fork, recipe, plan.seed, rate, cooldown, to_the_end, skip_examples=skip)
    return Proposal(trial, reason)


def _begun_again(plan: Plan, history: History, control: TrialRecord) -> Proposal | None:
    """After a cooldown that overfitted or diverged: back to the best checkpoint.

    From before overfitting the rate goes to zero faster; what diverged, or overfits on that way too, is evaluated as
    it was.
    """
    phase = history.phase
    best = best_checkpoint(phase)
    plain = [t for t in phase.of_kind("control") if t.trial.length is None]
    again = len(plain) == 2 and left_by_curve(plan, plain[0]) in (Stability.OVERFITTING, Stability.DIVERGED)
    if best is None or best.step >= control.step or not (len(plain) == 1 or again) or phase.of_kind("move"):
        return None
    origin = history.trial(best.trial)
    rate = origin.trial.learning_rate * rate_share(origin.trial.recipe.cooldown, cooldown_progress(origin, best.step))
    left = allowance(plan, history, replace(control, windows=(), first_step=best.step)).steps_left
    found = control.reading.reason if control.reading else "overfitting"
    overfits = left_by_curve(plan, control) is Stability.OVERFITTING and left != 0
    if control.verdict and control.verdict.decision == "failed":
        cooldown, reason = 0, f"the cooldown diverged; {_place(best)} as it was"
    elif overfits and again:
        cooldown, reason = 0, f"{found}; {_place(best)} as it was"
    elif overfits and rate > 0:
        wanted = max(1, round(STABLE_COOLDOWN * best.step))
        cooldown = wanted if left is None else min(wanted, left)
        reason = f"{found}; back to {_place(best)} and a shorter cooldown"
    else:
        return None
    index = phase.started.phase
    name = f"{index}.control-{len(plain) + 1}"
    trial = Trial(name, index, "control", best.id, origin.trial.recipe, plan.seed, rate, cooldown)
    return Proposal(trial, reason)


def _after_fork(plan: Plan, history: History, control: TrialRecord) -> Proposal | None:
    """Pretrained: on with the trunk to the next fork, unless it overfits, got worse, or there is none."""
    phase, fork, trunk = history.phase, next_fork(plan, history), history.phase.trunk
    if fork is None or trunk is None or phase.of_kind("move") or left_by_curve(plan, trunk):
        return None
    verdict = control.verdict
    plain = [t for t in phase.of_kind("control") if t.trial.length is None]
    if any(left_by_curve(plan, t) for t in plain) or (verdict and verdict.high is not None and verdict.high < 0):
        return None
    reason = f"on to {fork.epochs:.3g} epochs"
    rate = trunk.trial.learning_rate
    return _trunk(plan, phase, reason, start=_head(trunk), rate=rate, warmup=False)


def _after_probes(plan: Plan, history: History, probes: tuple[TrialRecord, ...], trunk: TrialRecord) -> Proposal | None:
    phase = history.phase
    if len(probes) < len(PROBE_FACTORS):
        return probe(plan, history, len(probes))
    if len(phase.of_kind("trunk")) == 1:
        preset = phase.started.recipe.learning_rate
        assert preset is not None, "a resolved recipe has a learning rate"
        rate, reason = chosen_rate(metric_of(phase.started), preset, probes, plan.tolerance)
        return _trunk(plan, phase, reason, rate=rate, start=phase.started.start)
    return _after_trunk(plan, history, trunk)


def stopped(plan: Plan, history: History) -> str:
    """Why the phase that is going on came to its end: budget, length, stable, overfitting, diverged, or moves: every
    one that applies was tried, and what is left of the budget is given back.
    """
    phase = history.phase
    trunk, control = phase.trunk, phase.control
    if control is None or (control.verdict and control.verdict.decision == "failed"):
        return "diverged"
    if phase.moves_ended and phase.moves_ended.budget and phase.of_kind("move"):
        return "budget"
    if trunk and (shown := left_by_curve(plan, trunk)):
        return shown.value
    if phase.moves_ended and not phase.moves_ended.budget and phase.of_kind("move"):
        return "moves"
    until = plan.phase(phase.started.phase).until
    if not isinstance(until, Amount):
        return "budget"
    steps = steps_in(until, phase)
    if steps is None:  # in time, whose last window cannot end on the second
        reached = plan.budget is None or history.seconds - phase.start_seconds >= 0.95 * until.value
    else:
        reached = control.step >= steps
    return "length" if reached else "budget"
