"""The plain run: a trunk, left when it diverges or overfits, when that is worth most or time asks; then cooled down."""

from __future__ import annotations

import math
from dataclasses import replace

from multistep.core.choice.allowance import (
    CLOCK_SLACK,
    OVERFITTED_COOLDOWN,
    STABLE_COOLDOWN,
    allowance,
    batch_size,
    has_share,
    weighs,
)
from multistep.core.choice.forks import next_fork
from multistep.core.choice.known import noise_of, tolerance_of
from multistep.core.choice.lanes import on_the_line
from multistep.core.choice.options import leaves_trunk
from multistep.core.choice.outlook import BEGINNING, outlook
from multistep.core.choice.retained import best_checkpoint, cooled_already, cooled_for, far_behind, turning_line
from multistep.core.choice.room import extra, in_unit, remaining
from multistep.core.choice.trunks import trunk_trial
from multistep.core.choice.weighing import Choice, Option
from multistep.core.choice.windows import cooldown_progress, left_by_curve
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import CheckpointSaved
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import rate_share
from multistep.core.values.trial import Proposal, Trial, Weighed
from multistep.core.values.units import Amount, Unit

WAY_THERE = 2 / 3  # to the best look of an overfitted trunk: where a cooldown begins that is half of all steps
RESTARTS = 2  # times a diverged trunk is begun again, each at a third of the rate
# Times shorter than a cooldown that diverged is the next one. With 2, one run of seven lost 8 tolerances.
SHORT_OF_DIVERGED = 3
FORK_REACHED = 0.9  # of its steps: where it lies is told by a clock, anew in each window; at 0.45 all is the same
PLATEAU_FACTOR, LEAST_PLATEAU_RATE = 0.3, 0.01  # of on-plateau: each lowering, and the share at which it ends


def after_trunk(plan: Plan, history: History, trunk: TrialRecord) -> Proposal | None:
    phase = history.phase
    shown = left_by_curve(plan, trunk)
    reason = trunk.reading.reason if trunk.reading else ""
    best = best_checkpoint(phase)
    rate = trunk.trial.learning_rate
    match shown:
        case Stability.DIVERGED if _diverged(phase) <= RESTARTS:
            start = best.id if best else phase.started.start
            skip = _past_the_window(phase, trunk, best)
            reason = (
                f"training diverged ({reason}), so it begins again from {_place(best)} at a third of the learning rate "
                "and passes over the data that it diverged on"
            )
            return trunk_trial(plan, phase, reason, start=start, rate=rate / 3, skip=skip)
        case Stability.DIVERGED if best is None:
            return None  # nothing was ever good: the phase has failed
        case Stability.DIVERGED:
            skip = _past_the_window(phase, trunk, best)
            again = f"training diverged again ({reason}), so the learning rate goes to zero from {_place(best)} on"
            return _control(plan, history, trunk, best, again, skip=skip)
        case Stability.OVERFITTING if cooled_for(phase, best):
            return None
        case Stability.OVERFITTING:
            before, cooldown, place = _before_it_overfitted(phase, trunk, best)
            said = f"{reason}, so the cooldown starts from {place}"
            return _control(plan, history, trunk, before, said, cooldown=cooldown)
        case Stability.STABLE | Stability.UNDECIDED if _on_plateau(phase, trunk):
            lower = f"{reason}; so the learning rate goes down to {PLATEAU_FACTOR * rate:.3g}"
            return trunk_trial(plan, phase, lower, start=_head(trunk), rate=PLATEAU_FACTOR * rate, warmup=False)
        case Stability.STABLE | Stability.UNDECIDED:
            return _control(plan, history, trunk, trunk.last_checkpoint, reason)
    if (fork := next_fork(plan, history)) and trunk.step >= FORK_REACHED * fork.trunk_steps:
        epochs = f"after {fork.epochs:.3g} epoch{'s' if fork.epochs != 1 else ''}, the cooldown included"
        reason = f"a {'' if fork.pretrained else 'first '}complete result {epochs}"
        return _control(plan, history, trunk, trunk.last_checkpoint, reason, cooldown=fork.cooldown_steps)
    if not cooled_for(phase, best) and (past := far_behind(phase, trunk)):
        before, cooldown, place = _before_it_overfitted(phase, trunk, best)
        said = f"the last look was worse by {past[0]:.3g} than that at step {past[1]:,}"
        return _control(plan, history, trunk, before, f"{said}, so the cooldown starts from {place}", cooldown=cooldown)
    left = allowance(plan, history, trunk).steps_left
    share = trunk.trial.recipe.cooldown_fraction
    if (
        weighs(plan, phase.started.phase, phase.started.recipe)
        and left is not None
        and left > CLOCK_SLACK * share * (trunk.step + left)
    ):
        # The clock asked for nothing yet, so going on was weighed and found worth less than what could follow.
        choice = leaves_trunk(plan, history, trunk)
        reason = "other attempts are now expected to bring more than going on at a constant learning rate"
        weighed = choice.weighed(tolerance_of(history)) if choice else ()
        found = _control(plan, history, trunk, trunk.last_checkpoint, reason, short=True)
        return replace(found, weighed=weighed)
    index = phase.started.phase
    whole = "this phase" if has_share(plan, index) or isinstance(plan.phase(index).until, Amount) else "the budget"
    reason = f"what is left of {whole} is just enough for the cooldown"
    proposal = _control(plan, history, trunk, trunk.last_checkpoint, reason)
    return replace(proposal, weighed=_to_the_end(plan, history, trunk, proposal.trial))


def _to_the_end(plan: Plan, history: History, trunk: TrialRecord, trial: Trial) -> tuple[Weighed, ...]:
    """What is expected of a cooldown that the clock asked for: nothing stood beside it, but a verdict asks."""
    seen = outlook(plan, history, trunk)
    if history.leader is None or history.untrained_leads or seen is None:
        return ()
    gain = seen.gain(0.0, trial.cooldown_steps) if seen.told else BEGINNING
    left = remaining(plan, history)
    unit = left.unit if left else Unit.STEPS
    only = Option("cool down to the end", gain, in_unit(history, trial.cooldown_steps, unit) + extra(history, unit))
    return Choice(only, (only,), noise_of(history)).weighed(tolerance_of(history))


def _before_it_overfitted(
    phase: PhaseRecord, origin: TrialRecord, best: CheckpointSaved | None
) -> tuple[CheckpointSaved | None, int, str]:
    """Where the cooldown of a trunk that overfitted begins, for how many steps, and that in words.

    A cooldown to zero moves on by half as much as so many steps at the full rate. So one from the best look itself ends
    where the model knows too much by heart: it rather begins two thirds of the way there and ends about as far on.
    """
    line = [s for s in turning_line(phase) if s.step and not cooled_already(phase, s)]
    if best is None or not line or line[-1].id != best.id or origin.trial.recipe.cooldown_fraction == 0:
        return best, max(1, round(OVERFITTED_COOLDOWN * (best.step if best else 1))), _place(best)
    start = min(line, key=lambda s: abs(math.log(s.step / (WAY_THERE * best.step))))
    cooldown = max(1, round(max(OVERFITTED_COOLDOWN * start.step, 2 * (best.step - start.step))))
    if start is best:
        return best, cooldown, _place(best)
    return start, cooldown, f"{_place(start)} and ends about as far on as {_place(best)}, where it was best"


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
    return f"step {checkpoint.step:,}" if checkpoint else "the beginning"


def _control(
    plan: Plan,
    history: History,
    trunk: TrialRecord,
    start: CheckpointSaved | None,
    reason: str,
    *,
    cooldown: int | None = None,
    short: bool = False,
    skip: int = 0,
) -> Proposal:
    """The cooldown from a checkpoint of the trunk: `short` where the clock did not ask for it, else to the end."""
    phase = history.phase
    step = start.step if start else 0
    left = allowance(plan, history, replace(trunk, windows=(), first_step=step)).steps_left
    to_the_end = False
    if trunk.trial.recipe.cooldown_fraction == 0:
        cooldown = 0
    elif cooldown is not None:
        cooldown = cooldown if left is None else min(cooldown, left)
    elif short or left is None or left_by_curve(plan, trunk):
        # Not the clock ended the trunk: what is left over goes to other attempts, or is given back.
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


def begun_again(plan: Plan, history: History, control: TrialRecord) -> Proposal | None:
    """After a cooldown that overfitted or diverged: back to the best checkpoint.

    From before overfitting or divergence the rate goes to zero faster; what fails on that way too is evaluated as it
    was.
    """
    phase = history.phase
    plain = _since_the_trunk(phase)
    best = best_checkpoint(phase, "trunk", "control")
    again = len(plain) in (2, 3) and all(
        left_by_curve(plan, t) in (Stability.OVERFITTING, Stability.DIVERGED) for t in plain[:-1]
    )
    if best is None or best.step >= control.step or not (len(plain) == 1 or again) or _moved_on(phase):
        return None
    origin = history.trial(best.trial)
    rate = origin.trial.learning_rate * rate_share(origin.trial.recipe.cooldown, cooldown_progress(origin, best.step))
    left = allowance(plan, history, replace(control, windows=(), first_step=best.step)).steps_left
    found = control.reading.reason if control.reading else "the cooldown overfitted"
    overfits = left_by_curve(plan, control) is Stability.OVERFITTING and left != 0
    failed = control.verdict is not None and control.verdict.failed
    # It held for so long; a third of that brings most of what a cooldown does.
    short = (control.step - best.step) // SHORT_OF_DIVERGED
    if (failed or (overfits and again)) and len(plain) < 3 and short > 0 and rate > 0:
        cooldown = short if left is None else min(short, left)
        reason = f"{'the cooldown diverged' if failed else found}, so a shorter one starts from {_place(best)}"
    elif failed or (overfits and again):
        why = "the cooldown diverged" if failed else found
        cooldown, reason = 0, f"{why}, so the model of {_place(best)} is judged as it is"
    elif overfits and rate > 0:
        wanted, place = max(1, round(STABLE_COOLDOWN * best.step)), _place(best)
        if origin.trial.kind == "trunk":  # in a cooldown the rate has fallen already, and less is left to be done
            start, wanted, place = _before_it_overfitted(phase, origin, best)
            best = start or best
            left = allowance(plan, history, replace(control, windows=(), first_step=best.step)).steps_left
        cooldown = wanted if left is None else min(wanted, left)
        reason = f"{found}, so a shorter cooldown starts from {place}"
    else:
        return None
    index = phase.started.phase
    name = f"{index}.control-{len(phase.of_kind('control')) + 1}"
    # What the first one passed over, after a divergence, is passed over again.
    skip = control.trial.skip_examples if best.id == control.trial.start else 0
    trial = Trial(name, index, "control", best.id, origin.trial.recipe, plan.seed, rate, cooldown, skip_examples=skip)
    return Proposal(trial, reason)


def _moved_on(phase: PhaseRecord) -> bool:
    """Whether moves were tried since the plain run came to its end; those beside it are another matter."""
    return any(not any(on_the_line(phase.trials[name].trial) for name in t.beside) for t in phase.of_kind("move"))


def _since_the_trunk(phase: PhaseRecord) -> list[TrialRecord]:
    """The plain run's cooldowns from the trunk that was proposed last."""
    trials = list(phase.trials.values())
    last = max((i for i, t in enumerate(trials) if t.trial.kind == "trunk"), default=0)
    return [t for t in trials[last:] if t.trial.kind == "control" and t.trial.length is None]
