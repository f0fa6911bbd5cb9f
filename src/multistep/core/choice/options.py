"""What could be done next, each with its forecast. The choice among them is made in one place, `weighing`."""

from __future__ import annotations

from dataclasses import replace

from multistep.core.choice.allowance import CLOCK_SLACK, STABLE_COOLDOWN
from multistep.core.choice.bets import averages, extensions, fresh_starts, sibling_options
from multistep.core.choice.forks import Fork, next_fork, plain_controls
from multistep.core.choice.guards import trunk_forgets
from multistep.core.choice.known import (
    behind_baseline,
    gain_of,
    known_gain,
    lead_over,
    noise_of,
    situation_of,
    tolerance_of,
)
from multistep.core.choice.lanes import awaited, line_goes_on
from multistep.core.choice.moves import RESTART
from multistep.core.choice.outlook import Outlook, outlook
from multistep.core.choice.retained import (
    best_checkpoint,
    best_saved,
    cooled_already,
    cooled_for,
    look_gain,
    shown,
    turned,
)
from multistep.core.choice.room import (
    LEAST_STEPS,
    extra,
    in_unit,
    remaining,
    sibling_length,
    slack,
)
from multistep.core.choice.siblings import (
    Base,
    names_of,
)
from multistep.core.choice.trunks import trunk_trial
from multistep.core.choice.weighing import LEAST_WORTH, Choice, Option, choose
from multistep.core.evidence.expected import Gain
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import CheckpointSaved, Evaluated
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal, Trial, TrialKind
from multistep.core.values.units import Amount, Unit

COOL, TRUNK = "cool down now", "trunk"
SHARES = (0.25, 0.5, 1.0)  # of what is left, that a trunk may go on for with its cooldown
FORK = "fork"  # its kind among the priors: on to twice the epochs
# What a fork of twice the epochs brings of what the last one brought, and how surely, in tolerances: gains fall.
FORK_DECAY, FORK_SPREAD = 0.5, 2.5


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
    return choose(own, left.value, noise_of(history), later=later, least=0.0)


def _going_on(plan: Plan, history: History, trunk: TrialRecord, seen: Outlook, unit: Unit) -> list[Option]:
    """A trunk's further lengths: for a part of what is left with a short cooldown, or to the end of the budget."""
    found = []
    fraction = trunk.trial.recipe.cooldown_fraction
    beside = extra(history, unit)
    left = remaining(plan, history)
    whole = in_unit(history, seen.steps_left, unit)
    # All that is left fits by definition, whatever the speed of late was.
    scale = min(1.0, left.value / whole) if left and whole > 0 else 1.0
    for share in SHARES:
        steps = share * seen.steps_left
        if share < 1.0:
            plateau = (steps - STABLE_COOLDOWN * trunk.step) / (1.0 + STABLE_COOLDOWN)
        else:
            plateau = steps - min(steps, fraction * (trunk.step + steps))
        if plateau < 1 or steps < LEAST_STEPS:
            continue
        cost = scale * in_unit(history, steps, unit) + (beside if share < 1.0 else 0.0)
        name = "go on to the end" if share == 1.0 else f"go on for {share:.0%} of what is left"
        found.append(Option(name, seen.gain(plateau, steps - plateau), cost, group=TRUNK, stacks=False))
    return found


def on_with_the_trunk(plan: Plan, history: History, left: Amount) -> Proposal | None:
    """The trunk again, where nothing else can be weighed; None where it has come to its end."""
    choice = choose(trunk_again(plan, history, left.unit), left.value, noise_of(history), least=0.0)
    if choice.taken is None or choice.taken.proposal is None:
        return None
    return replace(choice.taken.proposal, weighed=choice.weighed(tolerance_of(history)))


# After a judged trial -----------------------------------------------------------------------------------


def weigh(plan: Plan, history: History, left: Amount) -> Choice:
    """Everything that could be done from who leads, or with the trunk, and what is taken."""
    options = [] if line_goes_on(history.phase) else _on_the_line(plan, history, left)
    if plan.moves_of(history.phase.started.phase) != ():
        options += [
            *sibling_options(plan, history, left),
            *extensions(plan, history, left),
            *fresh_starts(plan, history, left),
            *of_turned(plan, history, left),
            *averages(plan, history, left.unit),
        ]
    least = 0.0 if behind_baseline(history) else LEAST_WORTH
    return choose(options, left.value + slack(plan), noise_of(history), least=least, awaited=awaited(history))


def _on_the_line(plan: Plan, history: History, left: Amount) -> list[Option]:
    return [*trunk_again(plan, history, left.unit), *_best_look(plan, history, left)]


def trunk_again(plan: Plan, history: History, unit: Unit) -> list[Option]:
    """Taking up the trunk where it was left."""
    phase = history.phase
    trunk = phase.trunk
    if trunk_forgets(phase):
        return []
    if trunk is None or trunk.last_checkpoint is None or trunk.trial.recipe.schedule != "constant":
        return []
    if shown(phase, trunk) in (Stability.DIVERGED, Stability.OVERFITTING):
        return []
    if phase.started.facts.pretrained:
        fork = next_fork(plan, history)
        return [_fork_option(plan, history, trunk, fork, unit)] if fork else []
    seen = outlook(plan, history, trunk)
    fraction = trunk.trial.recipe.cooldown_fraction
    if seen is None or not fraction or trunk.last_checkpoint.step != trunk.step:
        return []
    if seen.steps_left <= CLOCK_SLACK * fraction * (trunk.step + seen.steps_left):
        return []  # it would be cooled down at once, as it was
    found = _going_on(plan, history, trunk, seen, unit)
    # No length is kept: a trunk's looks ask again how long it goes on.
    reason = "the trunk is taken up again, at first to {}, which is asked anew at each look"
    return [replace(o, proposal=trunk_trial(plan, phase, reason.format(o.name), like=trunk)) for o in found]


def _best_look(plan: Plan, history: History, left: Amount) -> list[Option]:
    """Cooling the trunk down from its best look, where that is not the end that was cooled down: after a divergence."""
    phase, index = history.phase, history.phase.started.phase
    best = best_checkpoint(phase)
    if best is None or history.leader is None or cooled_for(phase, best) or phase.started.facts.pretrained:
        return []
    look, cooled = _look_at(history, best), _looks_cooled(history)
    if not cooled:
        return []  # with nothing to compare it with, nobody can say that it was better
    step, over = max(reversed(cooled), key=lambda pair: look_gain(phase, pair[1], look))
    if look_gain(phase, look, over) <= 0:
        return []
    number = len(phase.of_kind("control")) + 1
    metric = metric_of(phase.started)
    better = metric.improvement(look.interval.score, over.interval.score) > 0
    how = "scored better" if better else "was better by its loss, though not by its score,"
    than = f"step {step:,}" if over.step == step else f"step {over.step:,}, the last look before step {step:,}"
    fate = "cooled down" if history.trial(best.trial).trial.recipe.cooldown_fraction else "judged"
    reason = f"step {best.step:,} {how} on the sample of validation than {than}, which was {fate}"
    # What its cooldown will add is not counted, and makes up for the sample being small.
    interval = history.leader.interval
    if interval is None:
        return []
    gain = metric.improvement(look.interval.score, interval.score) / tolerance_of(history)
    option = _cooled_from(plan, history, best, gain, left, f"{index}.control-{number}", None, reason)
    as_it_is = option.proposal is not None and option.proposal.trial.cooldown_steps == 0
    # A recipe without a cooldown has its steps judged as they are; one with a cooldown needs room for it.
    return [] if as_it_is and fate == "cooled down" else [option]


def _looks_cooled(history: History) -> list[tuple[int, Evaluated]]:
    """The trunk's steps that the plain run's cooldowns began with, each with the last look at it or before it."""
    phase, found = history.phase, []
    saved = {c.id: c for t in phase.of_kind("trunk") for c in t.checkpoints}
    for control in plain_controls(history):
        at = start = saved.get(control.trial.start or "")
        while at is not None:
            origin = history.trial(at.trial)
            looks = [look for look in origin.curve if look.step <= at.step]
            if looks and start is not None:
                found.append((start.step, looks[-1]))
                break
            at = saved.get(origin.trial.start or "")
    return found


def of_turned(plan: Plan, history: History, left: Amount) -> list[Option]:
    """Cooling a restart down from its best look, where it overfitted, too."""
    phase, index = history.phase, history.phase.started.phase
    found = []
    for record in turned(phase):
        best = best_saved(phase, [record])
        if best is None or history.leader is None or cooled_already(phase, best) or not record.verdict:
            continue
        number = sum(t.trial.move == RESTART for t in phase.of_kind("move")) + 1
        how = f"the cooldown starts from step {best.step:,}, where it was best"
        if not _cooldown(history, best, left):
            how = f"step {best.step:,}, where it was best, is judged as it is"
        reason = f"the restart overfitted, too, so {how}"
        name, gain = f"{index}.{RESTART}-{number}", _before_cooldowns(history, _look_at(history, best))
        found.append(_cooled_from(plan, history, best, gain, left, name, RESTART, reason))
    return found


def _cooled_from(
    plan: Plan,
    history: History,
    best: CheckpointSaved,
    gain: float,
    left: Amount,
    name: str,
    move: str | None,
    reason: str,
) -> Option:
    """A cooldown from a checkpoint with a look, of the plain run or of a move; `gain` is expected, in tolerances."""
    phase, look = history.phase, _look_at(history, best)
    origin = history.trial(best.trial)
    cooldown = _cooldown(history, best, left)
    spread = abs(look.interval.high - look.interval.low) / 4 / tolerance_of(history)
    kind: TrialKind = "move" if move else "control"
    rate, recipe = origin.trial.learning_rate, origin.trial.recipe
    trial = Trial(name, phase.started.phase, kind, best.id, recipe, plan.seed, rate, cooldown, move=move)
    cost = cooldown * in_unit(history, 1.0, left.unit) + extra(history, left.unit)
    option = f"cool {'the restart ' if move else ''}down from step {best.step:,}"
    if not cooldown:
        option = f"judge step {best.step:,} {'of the restart ' if move else ''}as it is"
    return Option(option, Gain(gain, spread), cost, Proposal(trial, reason), TRUNK, stacks=False)


def _cooldown(history: History, best: CheckpointSaved, left: Amount) -> int:
    """The steps of a cooldown from a checkpoint that fit into what is left; none where its recipe has no cooldown."""
    if history.trial(best.trial).trial.recipe.cooldown_fraction == 0:
        return 0
    room = max(0.0, left.value - extra(history, left.unit)) / max(in_unit(history, 1.0, left.unit), 1e-9)
    return int(min(STABLE_COOLDOWN * best.step, room))


def _look_at(history: History, checkpoint: CheckpointSaved) -> Evaluated:
    return next(look for look in history.trial(checkpoint.trial).curve if look.step == checkpoint.step)


def _before_cooldowns(history: History, look: Evaluated) -> float:
    """By how much a look is better than what leads, in tolerances: than the look that the best cooldown of the plain
    run began with, as far as that can be told, less what has come to lead since.
    """
    phase = history.phase
    looks = {f"{t.trial.id}@{e.step}": e for t in phase.of_kind("trunk") for e in t.curve}
    plain = [t for t in plain_controls(history) if t.trial.start in looks and t.trial.id in history.expected]
    if not plain:
        return -lead_over(history, plain_controls(history)[0])
    control = max(plain, key=lambda t: history.expected[t.trial.id])
    return look_gain(phase, look, looks[control.trial.start or ""]) - lead_over(history, control)


def _fork_option(plan: Plan, history: History, trunk: TrialRecord, fork: Fork, unit: Unit) -> Option:
    """On to a fork of more epochs: what such forks bring, and what the last one brought here."""
    known = known_gain(plan, history, FORK)
    judged = plain_controls(history)
    if len(judged) > 1 and (last := gain_of(history, judged[-1], over=judged[-2])) is not None:
        # After a fork that lost, more epochs lose as much again; after one that gained, they gain a part of it.
        seen = Gain(FORK_DECAY * last if last > 0 else last, FORK_SPREAD)
        weights = (known.spread**-2, seen.spread**-2)
        mean = (weights[0] * known.mean + weights[1] * seen.mean) / sum(weights)
        known = Gain(mean, sum(weights) ** -0.5)
    steps = max(0, fork.trunk_steps - trunk.step) + fork.cooldown_steps
    name = f"go on to {fork.epochs:.3g} epochs"
    cost = in_unit(history, steps, unit) + extra(history, unit)
    lead = lead_over(history, judged[-1]) if judged else 0.0
    # What is left was measured by the clock; a last fork that takes all of it fits by definition.
    left = remaining(plan, history)
    cost = min(cost, left.value) if left and cost <= 1.1 * left.value else cost
    gain = Gain(known.mean - lead, known.spread)
    return Option(
        name,
        gain,
        cost,
        trunk_trial(plan, history.phase, f"training goes on to {fork.epochs:.3g} epochs in all", like=trunk),
        TRUNK,
        stacks=False,
    )
