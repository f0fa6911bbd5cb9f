"""How much training is left to a phase, and how long its windows are.

All of it is computed from the journal: the clock is a number of seconds that stands there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from multistep.core.choice.moves import RESTART
from multistep.core.evidence.stability import MIN_STABLE_POINTS
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.units import Amount, Unit
from multistep.errors import PlanError

CURVE_SHARE = 0.05  # of the time may go to the looks that draw the validation curve
# Of the time, where the data is read so often or oftener: a look an epoch, if that takes more than the share above.
# With a twentieth, a minute of little text on a slow core had five looks, and ended at a worse place than 20 s.
REPEATED_SHARE, REPEATED = 0.12, 4.0
# Of the steps so far, after which such data is looked at again, where windows by the phase's length would be longer.
# Ten minutes of little text on a fast core had windows of 2.3 epochs; the first look came at step 219, the curve had
# turned at about 155, and the run ended 0.17 nats a token behind one of three minutes.
LOOK_AGAIN = 1 / 8
CURVE_POINTS = 100  # windows of a phase whose length is known, where looks are cheap enough
SIBLING_POINTS = 8  # windows of a sibling, whose curve decides nothing
RESTART_POINTS = 24  # of a restart, which is left where it overfits, too: a guess
EARLY_PART = 0.15  # of its phase, within which a trunk gets the looks that a curve needs, even where looks are dear,
LONG = 12  # if it has room for so many windows
# Times the cooldown that ends with the budget: with more left than that, no clock ends a trunk. At half or twice, runs
# lose 1.4 or 3.3 tolerances on average: the dearest of all constants (bench/moved.py).
CLOCK_SLACK = 1.1
LEAST_STEPS = 40  # a shorter run or sibling shows nothing: at half of it, they are weighed that end within noise
STABLE_COOLDOWN = 0.25  # steps of cooldown per step of a trunk that its curve ended; half or twice cost 0.2 at worst
# The same where it overfitted: the best place is early, so there is time. On little text, from two places and with two
# seeds each, 0.5 was better than 0.25 by 1 to 2.5 tolerances, and 1.0 no better than 0.5 by more than half of one.
OVERFITTED_COOLDOWN = 0.5
PROBE_STEPS = 200  # a shorter probe says little about a rate
PROBE_SHARE = 0.05  # of the training time, for all probes together
PROBE_FACTORS = (0.5, 1.0, 2.0)  # of the preset's rate
FIRST_WINDOW = 12  # steps from whose time the others are planned; they count as training
FIRST_SHARE, LEAST_FIRST = 1 / 8, 2  # of the steps that are expected, where the time holds fewer than a hundred
SAVE_COST = 50  # a trial is saved again once training since took so many times a save's seconds: 2% of the time at most
CLOSING_SAVES = 2  # at the end: of the last cooldown, and of the export, which takes about as long
CLOSING_SECONDS = 2.5  # export, result and report, and what is shown of a small model
DEAR = 0.1  # of the budget: scoring that is guessed to take more is measured before anything depends on it
LATE_SECONDS, LATE_SHARE = 5.0, 0.03  # a run may end so much after its budget, whichever is more


@dataclass(frozen=True)
class Allowance:
    """`steps_left` of the phase at the present speed (None: open), `exact` if no clock was asked.

    `unmeasured` while the clock limits the phase and the speed is not known yet.
    """

    steps_left: int | None
    window_steps: int
    exact: bool = True
    unmeasured: bool = False


def weighs(plan: Plan, index: int, recipe: Recipe) -> bool:
    """Whether what a phase does with its time is weighed: a budget is given, and neither moves, length nor schedule."""
    unfixed = _open(plan, index) and plan.moves_of(index) == "auto"
    return plan.budget is not None and unfixed and recipe.schedule == "constant"


def has_share(plan: Plan, index: int) -> bool:
    """Whether a phase without a length of its own has a part of the budget, of which later phases have the rest."""
    return plan.budget is not None and index + 1 < plan.phase_count and _open(plan, index)


def batch_size(phase: PhaseRecord) -> int:
    size = phase.started.recipe.batch_size
    assert size is not None, "a resolved recipe has a batch size"
    return size


def steps_in(amount: Amount, phase: PhaseRecord) -> int | None:
    """The steps in an amount of steps, epochs or tokens, at least one; None for seconds."""
    facts = phase.started.facts
    match amount.unit:
        case Unit.STEPS:
            steps = amount.value
        case Unit.EPOCHS:
            steps = amount.value * facts.train_examples / batch_size(phase)
        case Unit.TOKENS:
            steps = amount.value / (batch_size(phase) * facts.tokens_per_example)
        case Unit.SECONDS:
            return None
    return max(1, round(steps))


def seconds_per_step(phase: PhaseRecord) -> float | None:
    """The plain run's recent speed: the windows that make up the last tenth of its training, at least two.

    Other attempts have recipes or networks of their own, whose steps take other times. The very first window is left
    out once there are others: it pays for what happens only once.
    """
    plain = [t for t in phase.trials.values() if t.trial.kind in ("trunk", "probe", "control") and not t.trial.length]
    done = [r for t in plain for r in t.done if r.progress]
    if not done:
        return None
    if len(done) > 1:
        done = done[1:]
    recent: list[tuple[int, float]] = []
    total = sum(r.window.steps for r in done)
    for record in reversed(done):
        recent.append((record.window.steps, record.train_seconds))
        if len(recent) >= 2 and sum(steps for steps, _ in recent) >= 0.1 * total:
            break
    return sum(seconds for _, seconds in recent) / max(1, sum(steps for steps, _ in recent))


def evaluation_seconds(phase: PhaseRecord, tokens: int) -> float:
    """What scoring so many tokens takes: as seen in this phase, or half of a training step's share.

    A third would do for most models; with thousands of tokens to choose from it is nearly two thirds.
    """
    facts = phase.started.facts
    whole = [t.full_seconds for t in phase.trials.values() if t.full]
    if whole and facts.validation_tokens:
        # A whole split may be dearer than a look at each of its examples: speech is searched then, not only heard.
        return tokens * sum(whole) / len(whole) / facts.validation_tokens
    seen = _looks(phase)
    if seen and facts.sample_tokens:
        return tokens * sum(seen) / len(seen) / facts.sample_tokens
    per_step = seconds_per_step(phase) or 0.0
    return tokens * per_step / (2 * batch_size(phase) * facts.tokens_per_example)


def _looks(phase: PhaseRecord) -> list[float]:
    """The seconds of each look at the sample so far."""
    return [r.evaluate_seconds for t in phase.trials.values() for r in t.windows if r.evaluation]


def look_seconds(phase: PhaseRecord) -> float:
    """What a look at the sample takes: as seen, or as scoring so many tokens would."""
    seen = _looks(phase)
    return sum(seen) / len(seen) if seen else evaluation_seconds(phase, phase.started.facts.sample_tokens)


def guard_seconds(phase: PhaseRecord) -> float:
    """What scoring the guard's sample takes, as seen at the phase's start and after it; 0 without a guard."""
    seen = [t.guard_seconds for t in phase.trials.values() if t.guard]
    return sum(seen) / len(seen) if seen else 0.0


def reserve_seconds(plan: Plan, history: History) -> float:
    """What must be left for the end of the run: both splits scored in full, the guard, and the closing work."""
    phase = history.phase
    facts = phase.started.facts
    later = plan.phase_count - phase.started.phase - 1
    tested = 1 + bool(phase.of_kind("base"))  # the model before training is scored on the test split, too
    tokens = facts.validation_tokens
    if later == 0:
        tokens += tested * facts.test_tokens + facts.closing_tokens
    closing = CLOSING_SECONDS + CLOSING_SAVES * save_seconds(history) if later == 0 else 0.0
    return evaluation_seconds(phase, tokens) + guard_seconds(phase) + closing


def save_seconds(history: History) -> float:
    """What saving a checkpoint took so far, each; 0 before the first."""
    saves = sum(len(t.checkpoints) for p in history.phases for t in p.trials.values())
    return history.took.get("save", 0.0) / max(1, saves)


def scoring_is_dear(plan: Plan, history: History) -> bool:
    """Whether a large part of the budget is kept for scoring, and what that takes is still a guess."""
    budget, phase = plan.budget, history.phase
    if budget is None or budget.unit is not Unit.SECONDS or any(t.full or t.curve for t in phase.trials.values()):
        return False
    return reserve_seconds(plan, history) > DEAR * budget.value


def seconds_left(plan: Plan, history: History) -> float | None:
    """Training seconds left to the phase that is going on; None without a limit in time.

    Phases without a length of their own share evenly what is left of the budget when the others have theirs.
    """
    phase = history.phase
    index = phase.started.phase
    limits: list[float] = []
    if plan.budget and plan.budget.unit is Unit.SECONDS:
        left = plan.budget.value - history.seconds - reserve_seconds(plan, history)
        if _open(plan, index):
            spent = history.seconds - phase.start_seconds
            left = (left + spent - _promised(plan, history, Unit.SECONDS)) / _sharing(plan, index) - spent
        limits.append(left)
    until = plan.phase(index).until
    if isinstance(until, Amount) and until.unit is Unit.SECONDS:
        limits.append(until.value - (history.seconds - phase.start_seconds))
    return min(limits) if limits else None


def require_time(plan: Plan, history: History) -> None:
    """Raises PlanError if, after one of the first two windows, the budget cannot pay one evaluation any more.

    The very first window pays for what happens only once, so it is believed only where half of what it foretells would
    be too much. A little late is not too late.
    """
    budget = plan.budget
    windows = [r for p in history.phases for t in p.trials.values() for r in t.done]
    if budget is None or budget.unit is not Unit.SECONDS or not 1 <= len(windows) <= 2:
        return
    needed = history.seconds + reserve_seconds(plan, history)
    believed = needed if len(windows) == 2 else history.seconds + reserve_seconds(plan, history) / 2
    if budget.value + max(LATE_SECONDS, LATE_SHARE * budget.value) < believed:
        steps = sum(r.window.steps for r in windows)
        raise PlanError(
            f"budget is {budget}; on this machine {steps} steps and one evaluation of this data "
            f"take {needed:.0f}s with starting and finishing: give it at least {math.ceil(2 * needed)}s"
        )


def _open(plan: Plan, index: int) -> bool:
    return not isinstance(plan.phase(index).until, Amount)


def _sharing(plan: Plan, index: int) -> int:
    return max(1, sum(_open(plan, i) for i in range(index, plan.phase_count)))


def _promised(plan: Plan, history: History, unit: Unit) -> float:
    """What the phases after this one were given of their own, in one unit: what is told in another one as if they had
    this phase's speed and data, since theirs are not known yet.
    """
    phase = history.phase
    later = range(phase.started.phase + 1, plan.phase_count)
    amounts = [until for i in later if isinstance(until := plan.phase(i).until, Amount)]
    found = sum(_in_unit(a, unit, phase) for a in amounts)
    if unit is Unit.SECONDS and (others := sum(a.unit is not unit for a in amounts)):
        # A time of their own holds their scores, too; of steps these come on top.
        facts = phase.started.facts
        found += others * evaluation_seconds(phase, facts.validation_tokens)
        if not _open(plan, plan.phase_count - 1):
            found += evaluation_seconds(phase, facts.test_tokens + facts.closing_tokens) + CLOSING_SECONDS
    return found


def _in_unit(amount: Amount, unit: Unit, phase: PhaseRecord) -> float:
    if amount.unit is unit:
        return amount.value
    a_step = seconds_per_step(phase) or 0.0
    steps = steps_in(amount, phase)
    if steps is None:  # told in time, which says something once a step was taken
        steps = round(amount.value / a_step) if a_step else 0
    match unit:
        case Unit.SECONDS:
            return steps * a_step * (1.0 + 1.0 / SAVE_COST) / (1.0 - CURVE_SHARE)
        case Unit.STEPS:
            return float(steps)
        case Unit.EPOCHS:
            return steps * batch_size(phase) / phase.started.facts.train_examples
        case Unit.TOKENS:
            return float(steps * batch_size(phase) * phase.started.facts.tokens_per_example)


def _spent_before(history: History, unit: Unit) -> float:
    """Steps, epochs or tokens that earlier phases took of the budget."""
    total = 0.0
    for phase in history.phases:
        records = [t for t in phase.trials.values() if phase is not history.phase]
        progress = [r.progress for t in records for r in t.done if r.progress]
        match unit:
            case Unit.STEPS:
                total += sum(p.steps for p in progress)
            case Unit.EPOCHS:
                total += sum(p.examples for p in progress) / phase.started.facts.train_examples
            case Unit.TOKENS:
                total += sum(p.tokens for p in progress)
    return total


def taken_steps(phase: PhaseRecord) -> int:
    """All steps that were taken in a phase, by whichever trial, and those that are promised to trials under way."""
    taken = sum(r.progress.steps for t in phase.trials.values() for r in t.done if r.progress)
    return taken + sum(_still_promised(t) for t in phase.under_way)


def _still_promised(trial: TrialRecord) -> int:
    """Of a length in steps, what is not taken yet."""
    length = trial.trial.length
    if length is None or length.unit is not Unit.STEPS:
        return 0
    return max(0, round(length.value) - (trial.step - trial.first_step))


def fixed_steps(plan: Plan, history: History, aside: int = 0) -> int | None:
    """The phase's length where it is given as steps, epochs or tokens, by the phase or by the budget.

    `aside` are steps of the phase that a trial does not build on: the budget pays for them, the phase's own length
    says nothing of them.
    """
    phase = history.phase
    index = phase.started.phase
    limits: list[int] = []
    until = plan.phase(index).until
    if isinstance(until, Amount) and (steps := steps_in(until, phase)):
        limits.append(steps)
    if plan.budget and plan.budget.unit is not Unit.SECONDS:
        unit = plan.budget.unit
        left = plan.budget.value - _spent_before(history, unit)
        if _open(plan, index):
            left = (left - _promised(plan, history, unit)) / _sharing(plan, index)
        limits.append(max(1, (steps_in(Amount(left, unit), phase) or 1 if left > 0 else 1) - aside))
    return min(limits) if limits else None


def allowance(plan: Plan, history: History, trial: TrialRecord) -> Allowance:
    """What is left to the phase from this trial's position on, and how long the next window should be."""
    if trial.trial.length is not None:
        return _of_length(history.phase, trial, trial.trial.length)
    phase = history.phase
    speed = seconds_per_step(phase)
    total = fixed_steps(plan, history, aside=max(0, taken_steps(phase) - trial.step))
    left = None if total is None else max(0, total - trial.step)
    seconds = seconds_left(plan, history)
    if seconds is not None:
        if speed is None:
            # One short window tells the speed.
            first = first_window(phase) if left is None else min(first_window(phase), left)
            return Allowance(first, first, exact=False, unmeasured=True)
        by_clock = max(0, math.floor(seconds / max(speed, 1e-9)))
        left = by_clock if left is None else min(left, by_clock)
    window = _window_steps(phase, trial, left, trial.step, CURVE_POINTS, timed=plan.timed)
    return Allowance(left, window, exact=seconds is None)


def first_window(phase: PhaseRecord) -> int:
    """Steps that tell the speed; twelve of a large model on a slow machine can take more than there is time for."""
    steps = phase.started.facts.foreseen_steps
    return FIRST_WINDOW if steps is None else max(LEAST_FIRST, min(FIRST_WINDOW, round(FIRST_SHARE * steps)))


def _of_length(phase: PhaseRecord, trial: TrialRecord, length: Amount) -> Allowance:
    """A sibling's allowance, by its own speed alone: a slower recipe gets fewer steps, not more seconds."""
    taken = trial.step - trial.first_step
    points = RESTART_POINTS if trial.trial.move == RESTART else SIBLING_POINTS
    if length.unit is Unit.STEPS:
        left = max(0, round(length.value) - taken)
        return Allowance(left, _window_steps(phase, trial, left, taken, points, timed=False))
    if not trial.done:
        first = first_window(phase)
        return Allowance(first, first, exact=False, unmeasured=True)
    known = trial.done[1:] or trial.done  # the first window pays for what happens only once
    recent = known[-3:]
    speed = sum(r.train_seconds for r in recent) / max(1, sum(r.window.steps for r in recent))
    left = max(0, math.floor((length.value - trial.seconds) / max(speed, 1e-9)))
    return Allowance(left, _window_steps(phase, trial, left, taken, points, timed=True), exact=False)


def _window_steps(
    phase: PhaseRecord, trial: TrialRecord, left: int | None, taken: int, points: int, *, timed: bool
) -> int:
    """Long enough that looks stay cheap: by what they have taken, where the clock may decide, else by the rule that
    a look costs a third of training on as many tokens.
    """
    facts = phase.started.facts
    step_tokens = batch_size(phase) * facts.tokens_per_example
    affordable = math.ceil(facts.sample_tokens / (3 * CURVE_SHARE * step_tokens))
    if timed and (looks := _looks(phase)) and (speed := seconds_per_step(phase)):
        affordable = math.ceil(sum(looks) / len(looks) / (CURVE_SHARE * speed))
    total = taken + (left or 0)
    epoch = facts.train_examples / batch_size(phase)
    by_length = max(FIRST_WINDOW, taken // points) if left is None else math.ceil((taken + left) / points)
    if trial.trial.kind in ("trunk", "control") and not facts.pretrained and total >= REPEATED * epoch:
        # What is read so often is learnt by heart sooner or later, which a few looks do not show. When, depends on the
        # data alone: however long the phase, that is not to fall between two of its windows.
        affordable = min(affordable, math.ceil(max(epoch, affordable * CURVE_SHARE / REPEATED_SHARE)))
        by_length = min(by_length, math.ceil(max(epoch, affordable, LOOK_AGAIN * taken)))
    if trial.trial.kind == "trunk" and len(trial.curve) < MIN_STABLE_POINTS and total >= LONG * affordable:
        # No curve is judged before it has ten looks. What overfits at once, as little data does, is seen this early
        # for at most a twentieth of the phase's time.
        affordable = min(affordable, math.ceil(EARLY_PART * total / MIN_STABLE_POINTS))
    return _to_outer_step(trial, max(1, affordable, by_length), None if left is None else total)


def _to_outer_step(trial: TrialRecord, steps: int, total: int | None) -> int:
    """The same, or up to the next outer step, at which processes meet anyway; unless the curve had too few looks."""
    outer = trial.trial.recipe.outer
    if outer is None:
        return steps
    whole = math.ceil((trial.step + steps) / outer.every) * outer.every - trial.step
    return whole if total is None or MIN_STABLE_POINTS * whole <= total else steps


def expected_steps(plan: Plan, history: History) -> int:
    """About how many steps the clock leaves to the phase at the present speed; 0 where no clock decides."""
    seconds, speed = seconds_left(plan, history), seconds_per_step(history.phase)
    return 0 if seconds is None or speed is None else max(0, math.floor(seconds / max(speed, 1e-9)))


def probes_pay(plan: Plan, history: History) -> bool:
    """Whether a rate that the plan leaves open can be probed over a useful horizon, asked after one window."""
    phase = history.phase
    if not phase.started.rate_open or phase.of_kind("probe") or phase.trunk is None or len(phase.trunk.done) != 1:
        return False
    if len(phase.of_kind("trunk")) > 1:
        return False  # it was taken up again, at the rate that it has
    if not _open(plan, phase.started.phase) or phase.started.recipe.optimizer == "prodigy":
        return False  # Prodigy finds its own rate
    return PROBE_SHARE * expected_steps(plan, history) / len(PROBE_FACTORS) >= PROBE_STEPS
