"""What could be done next, each with its forecast. The choice among them is made in one place, `weighing`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from multistep.core.choice.allowance import STABLE_COOLDOWN
from multistep.core.choice.forks import Fork, next_fork, plain_controls
from multistep.core.choice.moves import AVERAGE, EXTEND, MOVES, RESTART
from multistep.core.choice.outlook import Outlook, outlook
from multistep.core.choice.priors import Situation, learned, prior
from multistep.core.choice.restart import restart
from multistep.core.choice.room import (
    LEAST_STEPS,
    extra,
    fits,
    in_unit,
    plain_speed,
    remaining,
    scoring_fits,
    sibling_length,
    slack,
)
from multistep.core.choice.siblings import (
    Base,
    applied,
    average,
    base_of_leader,
    compounds,
    control_trial,
    moved,
    names_of,
    siblings_of,
)
from multistep.core.choice.trunks import trunk_trial
from multistep.core.choice.weighing import LEAST_WORTH, Choice, Option, choose
from multistep.core.evidence.expected import Gain
from multistep.core.evidence.stability import Stability
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal, Trial
from multistep.core.values.units import Amount, Unit

COOL, TRUNK = "cool down now", "trunk"
SHARES = (0.25, 0.5, 1.0)  # of what is left, that a trunk may go on for with its cooldown
ON, FORK, MODEL = "on", "fork", "model"  # kinds among the priors: going on unchanged, twice the epochs, another model
RESEED = "reseed"  # a sibling with no change but another seed
EXTEND_RATE = 0.5  # of the plateau's rate, to which an extension rises again
# What a fork of twice the epochs brings of what the last one brought, and how surely, in tolerances: gains fall.
FORK_DECAY, FORK_SPREAD = 0.5, 2.5
RIVAL_SHARE = 0.25  # of what is left: how long another model is tried first


# A running trunk ----------------------------------------------------------------------------------------


def leaves_trunk(plan: Plan, history: History, trunk: TrialRecord) -> Choice | None:
    """The choice to cool a trunk down before the clock asks for it; None where going on is worth more.

    It takes two looks that agree: a trunk can be taken up again, but what its cooldown cost is spent.
    """
    found = [_cooling(plan, history, trunk, without_last) for without_last in (0, 1)]
    if not all(choice and choice.taken and choice.taken.name == COOL for choice in found):
        return None
    return found[0]


def _cooling(plan: Plan, history: History, trunk: TrialRecord, without_last: int) -> Choice | None:
    """The trunk's own possibilities, weighed with what could still follow each."""
    seen, left = outlook(plan, history, trunk, without_last=without_last), remaining(plan, history)
    if seen is None or left is None or not seen.told:
        return None
    unit, beside = left.unit, extra(history, left.unit)
    cooldown = STABLE_COOLDOWN * trunk.step
    now = Option(COOL, seen.gain(0.0, cooldown), in_unit(history, cooldown, unit) + beside, group=TRUNK, stacks=False)
    after = Amount(max(0.0, left.value - now.cost), unit)
    recipe = replace(trunk.trial.recipe, learning_rate=trunk.trial.learning_rate)
    base = Base(None, recipe, trunk.trial.learning_rate)
    situation = situation_of(history)
    later = []
    if length := sibling_length(history, after, trained=in_unit(history, trunk.step + cooldown, unit)):
        names = names_of(plan, history, base)
        later += [Option(name, known_gain(plan, history, name), length.value + beside) for name in names]
    if situation == "overfitting" and "learning_rate" not in plan.phase(history.phase.started.phase).recipe:
        later.append(Option(RESTART, known_gain(plan, history, RESTART), after.value / 2))
    # Cooling down is worth something even where it gains nothing over going on: least is for what ends a run.
    own = [now, *_going_on(plan, history, trunk, seen, unit)]
    return choose(own, left.value, noise_of(plan, history), later=later, least=0.0)


def _going_on(plan: Plan, history: History, trunk: TrialRecord, seen: Outlook, unit: Unit) -> list[Option]:
    """A trunk's further lengths: for a part of what is left with a short cooldown, or to the end of the budget."""
    found = []
    fraction = trunk.trial.recipe.cooldown_fraction
    beside = extra(history, unit)
    for share in SHARES:
        steps = share * seen.steps_left
        if share < 1.0:
            plateau = (steps - STABLE_COOLDOWN * trunk.step) / (1.0 + STABLE_COOLDOWN)
        else:
            plateau = steps - min(steps, fraction * (trunk.step + steps))
        if plateau < 1 or steps < LEAST_STEPS:
            continue
        cost = in_unit(history, steps, unit) + (beside if share < 1.0 else 0.0)
        name = "go on to the end" if share == 1.0 else f"go on for {share:.0%} of what is left"
        found.append(Option(name, seen.gain(plateau, steps - plateau), cost, group=TRUNK, stacks=False))
    return found


# After a judged trial -----------------------------------------------------------------------------------


def weigh(plan: Plan, history: History, left: Amount) -> Choice:
    """Everything that could be done from who leads, or with the trunk, and what is taken."""
    options = [*_trunk_again(plan, history, left.unit)]
    if plan.moves_of(history.phase.started.phase) != ():
        options += [
            *_siblings(plan, history, left),
            *_extensions(plan, history, left),
            *_fresh(plan, history, left),
            *_averages(plan, history, left.unit),
        ]
    least = 0.0 if _behind_baseline(history) else LEAST_WORTH
    return choose(options, left.value + slack(plan), noise_of(plan, history), least=least)


def _trunk_again(plan: Plan, history: History, unit: Unit) -> list[Option]:
    """Taking up the trunk where it was left."""
    phase = history.phase
    trunk = phase.trunk
    if trunk is None or trunk.last_checkpoint is None or trunk.trial.recipe.schedule != "constant":
        return []
    if trunk.reading and trunk.reading.stability in (Stability.DIVERGED, Stability.OVERFITTING):
        return []
    if phase.started.facts.pretrained:
        fork = next_fork(plan, history)
        return [_fork_option(plan, history, trunk, fork, unit)] if fork else []
    seen = outlook(plan, history, trunk)
    if seen is None or not trunk.trial.recipe.cooldown_fraction or trunk.last_checkpoint.step != trunk.step:
        return []
    found = _going_on(plan, history, trunk, seen, unit)
    return [replace(o, proposal=trunk_trial(plan, phase, f"the trunk again: {o.name}", like=trunk)) for o in found]


def _fork_option(plan: Plan, history: History, trunk: TrialRecord, fork: Fork, unit: Unit) -> Option:
    """On to a fork of more epochs: what such forks bring, and what the last one brought here."""
    known = known_gain(plan, history, FORK)
    judged = plain_controls(history)
    if len(judged) > 1 and (last := gain_of(plan, history, judged[-1], over=judged[-2])) is not None:
        # After a fork that lost, more epochs lose as much again; after one that gained, they gain a part of it.
        seen = Gain(FORK_DECAY * last if last > 0 else last, FORK_SPREAD)
        weights = (known.spread**-2, seen.spread**-2)
        mean = (weights[0] * known.mean + weights[1] * seen.mean) / sum(weights)
        known = Gain(mean, sum(weights) ** -0.5)
    steps = max(0, fork.trunk_steps - trunk.step) + fork.cooldown_steps
    name = f"on to {fork.epochs:.3g} epochs"
    cost = in_unit(history, steps, unit) + extra(history, unit)
    lead = _lead(plan, history, judged[-1]) if judged else 0.0
    # What is left was measured by the clock; a last fork that takes all of it fits by definition.
    left = remaining(plan, history)
    cost = min(cost, left.value) if left and cost <= 1.1 * left.value else cost
    gain = Gain(known.mean - lead, known.spread)
    return Option(name, gain, cost, trunk_trial(plan, history.phase, name, like=trunk), TRUNK, stacks=False)


def _siblings(plan: Plan, history: History, left: Amount) -> list[Option]:
    """One change each from the leader's plateau, and going on from there with none."""
    phase, index = history.phase, history.phase.started.phase
    base = base_of_leader(history)
    if base.start is None:
        return []  # nothing was saved before its cooldown
    earlier = siblings_of(phase, base.start)
    same = [t.trial.length for t in earlier if t.trial.length and t.trial.length.unit is left.unit]
    length = same[-1] if same and fits(plan, history, left, same[-1]) else sibling_length(history, left)
    if length is None:
        return []
    tried = siblings_of(phase, base.start, length)
    forks = list(dict.fromkeys((t.trial.start, t.trial.length) for t in _all_siblings(history)))
    number = forks.index((base.start, length)) + 1 if (base.start, length) in forks else len(forks) + 1
    control = control_trial(plan, index, number, base, length)
    cost = length.value + extra(history, left.unit)
    found = []
    done = {t.trial.move for t in tried}
    if None not in done and not _is_trunks(phase, base.start):
        gain = learned(known_gain(plan, history, ON), _seen(plan, history, None))
        reason = f"from {_place(history)} with no change, for {length}"
        found.append(Option("go on unchanged", gain, cost, Proposal(control, reason)))
    for name in names_of(plan, history, base):
        if name not in done and (recipe := applied(plan, history, base, name)):
            gain = learned(known_gain(plan, history, name), _seen(plan, history, name))
            proposal = Proposal(moved(control, name, recipe), f"{_why(plan, history, name)} ({MOVES[name].source})")
            found.append(Option(name, gain, cost, proposal))
    for name in compounds(plan, history, base, [t for t in tried if t.trial.kind == "move"]):
        if name not in done and (recipe := applied(plan, history, base, name)):
            first = next(t for t in tried if t.trial.move == name.split("+")[0])
            gain = _another_dose(plan, history, first, tried, known_gain(plan, history, name.split("+")[-1]))
            reason = "better than its siblings, but no match for the leader: further in that direction"
            proposal = Proposal(moved(control, name, recipe), reason)
            found.append(Option(name, gain, cost, proposal))
    seeds = sum(t.trial.move == RESEED for t in tried)
    again = replace(moved(control, RESEED, base.recipe), id=f"{index}.round-{number}.{RESEED}-{seeds + 1}")
    proposal = Proposal(replace(again, seed=plan.seed + seeds + 1), "the same with another seed: luck is a bet, too")
    gain = learned(known_gain(plan, history, RESEED), _seen(plan, history, RESEED))
    found.append(Option(RESEED, gain, cost, proposal))
    return found


def _is_trunks(phase: PhaseRecord, checkpoint: str | None) -> bool:
    """Whether a checkpoint is the trunk's last one: from there the trunk itself can go on unchanged."""
    last = phase.trunk.last_checkpoint if phase.trunk else None
    return last is not None and last.id == checkpoint


def _another_dose(plan: Plan, history: History, first: TrialRecord, tried: Sequence[TrialRecord], known: Gain) -> Gain:
    """What lies as far again in a direction: behind who leads by what the first dose is, less what it brought."""
    unit = tolerance_of(plan, history)
    level = history.expected.get(first.trial.id, 0.0)
    beside = [history.expected[t.trial.id] for t in tried if t.trial.id in history.expected]
    brought = level - statistics.median(beside)
    return Gain((level - _leader_level(history) + brought) / unit, known.spread)


def _extensions(plan: Plan, history: History, left: Amount) -> list[Option]:
    """On from the cooled-down leader for what is left, or a part of it: any time is long enough."""
    phase, index = history.phase, history.phase.started.phase
    assert history.leader is not None
    record = phase.trials[history.leader.trial]
    base = base_of_leader(history)
    fixed = {"learning_rate", "cooldown_fraction"} & set(plan.phase(index).recipe)
    if fixed or base.recipe.schedule != "constant" or not base.recipe.cooldown_fraction:
        return []
    start = history.leader.checkpoint
    if start is None or any(t.trial.start == start and t.trial.move == EXTEND for t in phase.of_kind("move")):
        return []
    beside = extra(history, left.unit)
    whole = left.value - beside
    lengths = [whole, *([length.value] if (length := sibling_length(history, left)) else [])]
    speed = plain_speed(phase) if left.unit is Unit.SECONDS else 1.0
    gain = learned(known_gain(plan, history, EXTEND), _seen(plan, history, EXTEND))
    rate = EXTEND_RATE * base.rate
    recipe = replace(base.recipe, learning_rate=rate, cooldown_fraction=1.0)
    found = []
    for value in dict.fromkeys(lengths):
        if value / max(speed, 1e-9) < LEAST_STEPS:
            continue
        length = Amount(round(value, 2) if left.unit is Unit.SECONDS else float(int(value)), left.unit)
        number = sum(t.trial.move == EXTEND for t in phase.of_kind("move")) + 1
        trial = Trial(
            f"{index}.{EXTEND}-{number}",
            index,
            "move",
            start,
            recipe,
            plan.seed,
            rate,
            length=length,
            move=EXTEND,
            carry="weights" if record.trial.kind == "average" else "all",
        )
        reason = f"on from {_place(history)} for {length}, the rate raised to a half again and back to zero"
        found.append(Option(EXTEND, gain, value + beside, Proposal(trial, reason), EXTEND))
    return found


def _fresh(plan: Plan, history: History, left: Amount) -> list[Option]:
    """From the beginning: at a lower rate, or with another model."""
    phase, index = history.phase, history.phase.started.phase
    found = []
    if proposal := restart(plan, history, left):
        length = proposal.trial.length
        assert length is not None, "a restart has a length"
        found.append(
            Option(
                RESTART, known_gain(plan, history, RESTART), length.value + extra(history, left.unit), proposal, RESTART
            )
        )
    if phase.started.start is not None or phase.started.facts.pretrained:
        return found
    value = max(RIVAL_SHARE * left.value, in_unit(history, LEAST_STEPS, left.unit))
    length = Amount(round(value, 2) if left.unit is Unit.SECONDS else float(int(value)), left.unit)
    for recipe in phase.started.facts.rivals:
        name = f"{MODEL}-{recipe.model}"
        if any(t.trial.move == name for t in phase.of_kind("move")):
            continue
        assert recipe.learning_rate is not None, "a rival's recipe is complete"
        trial = Trial(
            f"{index}.{name}",
            index,
            "move",
            None,
            recipe,
            plan.seed,
            recipe.learning_rate,
            length=length,
            move=name,
            carry="weights",
        )
        gain = learned(known_gain(plan, history, MODEL), [])
        reason = f"another model from the beginning, for {length}"
        found.append(Option(name, gain, value + extra(history, left.unit), Proposal(trial, reason)))
    return found


def _averages(plan: Plan, history: History, unit: Unit) -> list[Option]:
    if not scoring_fits(plan, history) or (proposal := average(history)) is None:
        return []
    gain = learned(known_gain(plan, history, AVERAGE), [])
    return [Option(AVERAGE, gain, extra(history, unit), proposal)]


# What is known of the run -------------------------------------------------------------------------------


def situation_of(history: History) -> Situation:
    """What the plain run's curves came to."""
    phase = history.phase
    if phase.started.facts.pretrained:
        return "pretrained"
    expected = history.expected
    restarts = [t for t in phase.of_kind("move") if t.trial.move == RESTART and t.verdict and not t.verdict.failed]
    if any(expected.get(t.trial.id, -math.inf) > expected.get(t.over or "", math.inf) for t in restarts):
        return "answered"
    plain = [*phase.of_kind("trunk"), *(t for t in phase.of_kind("control") if t.trial.length is None)]
    if any(t.reading and Stability.OVERFITTING in (t.reading.stability, t.reading.loss) for t in plain):
        return "overfitting"
    trunk = phase.trunk
    improving = trunk is not None and trunk.reading is not None and trunk.reading.stability is Stability.IMPROVING
    return "improving" if improving else "plateau"


def known_gain(plan: Plan, history: History, kind: str) -> Gain:
    """What attempts of a kind brought in recorded runs, in this situation and on this kind of task."""
    return prior(kind, situation_of(history), plan.phase(history.phase.started.phase).task or plan.task)


def noise_of(plan: Plan, history: History) -> float:
    """The standard error of judging an attempt, in tolerances: as the last verdict had it, all evidence counted.

    Worked back from how much the verdict narrowed what had been expected; 0 while nothing was judged.
    """
    for record in reversed(list(history.phase.trials.values())):
        verdict = record.verdict
        if verdict is None or verdict.spread is None or verdict.standard_error is None:
            continue
        unit = tolerance_of(plan, history)
        if (before := record.forecast) and 0.0 < verdict.spread < before.spread:
            return verdict.spread * before.spread / math.sqrt(before.spread**2 - verdict.spread**2) / unit
        return verdict.standard_error / unit if math.isfinite(verdict.standard_error) else 0.0
    return 0.0


def gain_of(plan: Plan, history: History, record: TrialRecord, *, over: TrialRecord) -> float | None:
    """What a judged trial is expected to be better than another, in tolerances."""
    expected = history.expected
    if record.trial.id not in expected or over.trial.id not in expected:
        return None
    return (expected[record.trial.id] - expected[over.trial.id]) / tolerance_of(plan, history)


def _seen(plan: Plan, history: History, move: str | None) -> list[float]:
    """What this move has brought from other forks over who led then; of its opposite that lost, half of that."""
    opposite = MOVES[move].opposite if move and move in MOVES else None
    found = []
    for record in _all_siblings(history):
        if record.over is None or record.over not in history.expected:
            continue
        gain = gain_of(plan, history, record, over=history.trial(record.over))
        if gain is not None and record.trial.move == move:
            found.append(gain)
        elif gain is not None and opposite and record.trial.move == opposite and gain < 0:
            found.append(-gain / 2)
    return found


def _all_siblings(history: History) -> list[TrialRecord]:
    records = history.phase.trials.values()
    return [t for t in records if t.trial.kind in ("control", "move") and t.trial.length and t.trial.start is not None]


def _lead(plan: Plan, history: History, record: TrialRecord) -> float:
    """By how much who leads is expected to be better than a trial, in tolerances."""
    return (_leader_level(history) - history.expected.get(record.trial.id, 0.0)) / tolerance_of(plan, history)


def _leader_level(history: History) -> float:
    return history.expected.get(history.leader.trial, 0.0) if history.leader else 0.0


def tolerance_of(plan: Plan, history: History) -> float:
    """What gains are counted in: the plan's tolerance, or the metric's at the leader's score."""
    if plan.tolerance:
        return plan.tolerance
    metric = metric_of(history.phase.started)
    interval = history.leader.interval if history.leader else None
    return metric.tolerance(interval.score) if interval else 1.0


def _behind_baseline(history: History) -> bool:
    baseline = next((b.interval.score for b in history.baselines if b.split == "validation"), None)
    interval = history.leader.interval if history.leader else None
    if baseline is None or interval is None:
        return False
    return metric_of(history.phase.started).improvement(baseline, interval.score) > 0


def _place(history: History) -> str:
    assert history.leader is not None
    return history.leader.trial


def _why(plan: Plan, history: History, name: str) -> str:
    words = {
        "overfitting": "the plain run overfitted",
        "answered": "the plain run overfitted, which the restart has answered",
        "improving": "the plain run was still improving",
        "pretrained": "the weights were trained before",
        "plateau": "the plain run came to a plateau",
    }[situation_of(history)]
    return f"{words}{'; it was tried from another fork' if _seen(plan, history, name) else ''}"
