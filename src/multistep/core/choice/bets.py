"""Attempts beside the trunk as candidates: from the leader, from its end, from the beginning, and averages."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from multistep.core.choice.between import between
from multistep.core.choice.forks import plain_controls
from multistep.core.choice.guards import holds
from multistep.core.choice.known import all_siblings, known_gain, leader_level, seen, situation_of, tolerance_of
from multistep.core.choice.lanes import line_goes_on
from multistep.core.choice.moves import AVERAGE, EXTEND, MOVES, RESTART
from multistep.core.choice.priors import learned
from multistep.core.choice.restart import restart
from multistep.core.choice.retained import overfitted, trained
from multistep.core.choice.room import (
    LEAST_STEPS,
    extra,
    fits,
    in_unit,
    leader_cost,
    plain_speed,
    scoring_fits,
    sibling_length,
)
from multistep.core.choice.siblings import (
    applied,
    as_far_as_leader,
    average,
    base_of_leader,
    compounds,
    control_trial,
    moved,
    names_of,
    siblings_of,
)
from multistep.core.choice.weighing import Option
from multistep.core.evidence.expected import Gain
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Proposal, Trial
from multistep.core.values.units import Amount, Unit

ADAPTER_ON, ADAPTER_OFF = "adapter-on", "adapter-off"
ON, MODEL = "on", "model"  # kinds among the priors: going on unchanged, another model
BETWEEN = "between"  # what leads and what forgets
RESEED = "reseed"  # a sibling with no change but another seed
GIVEN_UP = 2  # siblings of a fork that failed, after which none is tried any more
EXTEND_RATE = 0.5  # of the plateau's rate, to which an extension rises again
SAME_LENGTH = 0.01  # of an extension's length: one that differs by no more is the same candidate twice
# How long another model is tried first: of what is left, and at least of what the leader took to train. In less it
# shows nothing: three minutes of texts once held rivals of 13 steps, which lost by 48 points. Not varied.
RIVAL_SHARE = 0.25
AS_GOOD = Gain(0.0, 9.0)  # tolerances: of another model that the user named; as spread as those of recorded runs


def sibling_options(plan: Plan, history: History, left: Amount) -> list[Option]:
    """One change each from the leader's plateau, and going on from there with none."""
    phase, index = history.phase, history.phase.started.phase
    base = base_of_leader(history)
    if base.start is None:
        return []  # nothing was saved before its cooldown
    earlier = siblings_of(phase, base.start)
    same = [t.trial.length for t in earlier if t.trial.length and t.trial.length.unit is left.unit]
    length = same[-1] if same and fits(plan, history, left, same[-1]) else _new_length(history, left)
    if length is None:
        return []
    if forgot := [t.trial.length.value for t in earlier if t.trial.length and not holds(t)]:
        # What forgets is gone on from more gently: for half as long as whatever did.
        length = replace(length, value=min(length.value, min(forgot) / 2))
        if length.value < in_unit(history, LEAST_STEPS, left.unit):
            return []
    tried = siblings_of(phase, base.start, length)
    rounds = (t.trial for t in all_siblings(history) if t.trial.move != EXTEND)
    forks = list(dict.fromkeys((trial.start, trial.length) for trial in rounds))
    number = forks.index((base.start, length)) + 1 if (base.start, length) in forks else len(forks) + 1
    control = control_trial(plan, index, number, base, length)
    cost = length.value + extra(history, left.unit)
    if [t.verdict.failed for t in tried if t.verdict].count(True) >= GIVEN_UP:
        return []  # whatever is changed, what comes behind this fork diverges
    found = []
    done = {t.trial.move for t in tried}
    if None not in done and not _goes_on(history, base.start) and not line_goes_on(phase):
        gain = learned(known_gain(plan, history, ON), seen(history, None))
        reason = f"training goes on from {_fork(history)} for {length} with nothing changed, to compare changes with"
        found.append(Option("go on unchanged", gain, cost, Proposal(control, reason)))
    for name in names_of(plan, history, base):
        if name not in done and (recipe := applied(plan, history, base, name)):
            gain = learned(known_gain(plan, history, name), seen(history, name))
            proposal = Proposal(moved(control, name, recipe), f"{_why(history, name)} ({MOVES[name].source})")
            found.append(Option(name, gain, cost, proposal))
    for name in compounds(plan, history, base, [t for t in tried if t.trial.kind == "move"]):
        if name not in done and (recipe := applied(plan, history, base, name)):
            first = next(t for t in tried if t.trial.move == name.split("+")[0])
            gain = _another_dose(history, first, tried, known_gain(plan, history, name.split("+")[-1]))
            reason = (
                "this change did better than the others from the same checkpoint, though not than the best model so "
                "far, so it is taken further"
            )
            proposal = Proposal(moved(control, name, recipe), reason)
            found.append(Option(name, gain, cost, proposal))
    if line_goes_on(phase):
        return found  # another seed of what the plain run leaves behind would tell nothing
    seeds = sum(t.trial.move == RESEED for t in tried)
    again = replace(moved(control, RESEED, base.recipe), id=f"{index}.round-{number}.{RESEED}-{seeds + 1}")
    proposal = Proposal(
        replace(again, seed=plan.seed + seeds + 1),
        "the same training with another random seed, which may come out better by chance",
    )
    gain = learned(known_gain(plan, history, RESEED), seen(history, RESEED))
    found.append(Option(RESEED, gain, cost, proposal))
    return found


def _new_length(history: History, left: Amount) -> Amount | None:
    """The length of siblings of a new fork; where the plain run overfitted, no more than the leader took from there."""
    length = sibling_length(history, left)
    if length is None or situation_of(history) not in ("overfitting", "answered"):
        return length
    return replace(length, value=min(length.value, as_far_as_leader(history, left.unit)))


def _goes_on(history: History, checkpoint: str | None) -> bool:
    """Whether the trunk itself can go on from a checkpoint, or did and is known to be behind who leads: it overfitted,
    or what was cooled down further on is judged. To go on unchanged would be the same once more.
    """
    trunks = history.phase.of_kind("trunk")
    if trunks and trunks[-1].last_checkpoint and trunks[-1].last_checkpoint.id == checkpoint:
        return True
    steps = {saved.id: saved.step for trunk in trunks for saved in trunk.checkpoints}
    if checkpoint not in steps:
        return False
    cooled = [steps.get(t.trial.start or "", 0) for t in plain_controls(history)]
    return max([*cooled, *(t.step for t in trunks if overfitted(history.phase, t))], default=0) > steps[checkpoint]


def _another_dose(history: History, first: TrialRecord, tried: Sequence[TrialRecord], known: Gain) -> Gain:
    """What lies as far again in a direction: behind who leads by what the first dose is, less what it brought."""
    unit = tolerance_of(history)
    level = history.expected.get(first.trial.id, 0.0)
    beside = [history.expected[t.trial.id] for t in tried if t.trial.id in history.expected]
    brought = level - statistics.median(beside)
    return Gain((level - leader_level(history) + brought) / unit, known.spread)


def extensions(plan: Plan, history: History, left: Amount) -> list[Option]:
    """On from the cooled-down leader for what is left, or a part of it: any time is long enough."""
    phase, index = history.phase, history.phase.started.phase
    assert history.leader is not None
    record = phase.trials[history.leader.trial]
    base = base_of_leader(history)
    fixed = {"learning_rate", "cooldown_fraction"} & set(plan.phase(index).recipe)
    if line_goes_on(phase):
        return []  # the plain run itself does what this would
    if fixed or base.recipe.schedule != "constant" or not base.recipe.cooldown_fraction:
        return []
    start = history.leader.checkpoint
    if start is None or any(t.trial.start == start and t.trial.move == EXTEND for t in phase.of_kind("move")):
        return []
    beside = extra(history, left.unit)
    whole = left.value - beside
    shorter = sibling_length(history, left)
    lengths = [whole]
    if shorter and abs(shorter.value - whole) > SAME_LENGTH * whole:
        lengths.append(shorter.value)
    speed = plain_speed(phase) if left.unit is Unit.SECONDS else 1.0
    gain = learned(known_gain(plan, history, EXTEND), seen(history, EXTEND))
    rate = EXTEND_RATE * base.rate
    recipe = replace(base.recipe, learning_rate=rate, cooldown_fraction=1.0)
    found = []
    for value in lengths:
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
            carry="weights" if record.trial.kind in ("average", "base") else "all",
        )
        reason = (
            f"training goes on from {_place(history)} for {length}: the learning rate rises to half of what it was and "
            "falls to zero again"
        )
        found.append(Option(EXTEND, gain, value + beside, Proposal(trial, reason), EXTEND))
    return found


def fresh_starts(plan: Plan, history: History, left: Amount) -> list[Option]:
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
    if phase.started.start is not None:
        return found
    if plan.budget and plan.budget.unit in (Unit.EPOCHS, Unit.TOKENS):
        return found  # a rival has a batch of its own, and equal steps would not be equal examples
    raced, shortest = _race_length(history, left), in_unit(history, LEAST_STEPS, left.unit)
    # Of models that the user named nothing is known, but that each is worth a try.
    known = AS_GOOD if plan.model.candidates else known_gain(plan, history, MODEL)
    for recipe in phase.started.facts.rivals:
        name = _rival(recipe, phase.started.recipe)
        # How long a step of another model takes is not known from this one's, which may be a thousand times dearer.
        unlike = phase.started.facts.pretrained and recipe.model != phase.started.recipe.model
        value = raced if unlike and left.unit is Unit.SECONDS else max(raced, shortest)
        length = Amount(round(value, 2) if left.unit is Unit.SECONDS else float(int(value)), left.unit)
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
        gain = learned(known if name.startswith(MODEL) else known_gain(plan, history, name), [])
        of_adapters = {
            ADAPTER_ON: "an adapter is trained instead of all weights",
            ADAPTER_OFF: "all weights are trained instead of an adapter",
        }
        reason = f"{of_adapters.get(name, 'another model is trained')}, from the beginning and for {length}"
        found.append(Option(name, gain, value + extra(history, left.unit), Proposal(trial, reason)))
    return found


def _rival(recipe: Recipe, own: Recipe) -> str:
    """What a rival is: another model, or the same one with an adapter or without."""
    if recipe.model != own.model or recipe.adapter == own.adapter:
        return f"{MODEL}-{recipe.model}"
    return ADAPTER_OFF if recipe.adapter == "none" else ADAPTER_ON


def _race_length(history: History, left: Amount) -> float:
    """How long another model is tried: as long as the first short fork took, where there is one to be raced with."""
    first = plain_controls(history)
    if not history.phase.started.facts.pretrained or not first:
        return RIVAL_SHARE * max(left.value, leader_cost(history, left.unit))
    return min(left.value / 2, in_unit(history, first[0].step, left.unit))


def averages(plan: Plan, history: History, unit: Unit) -> list[Option]:
    """Means of checkpoints: of the best, and of what leads and what is better but forgets."""
    if not scoring_fits(plan, history) or history.phase.under_way:
        return []  # what is still under way may be among the best
    found = []
    if proposal := average(history):
        found.append(Option(AVERAGE, known_gain(plan, history, AVERAGE), extra(history, unit), proposal))
    if halfway := between(history):
        found.append(Option(BETWEEN, halfway[1], extra(history, unit), halfway[0]))
    return found


def _place(history: History) -> str:
    assert history.leader is not None
    return history.leader.trial


def _fork(history: History) -> str:
    """Where siblings begin: not at the leader's end, but before the cooldown of what it was made of."""
    assert history.leader is not None
    record = trained(history.phase, history.phase.trials[history.leader.trial])
    cools = record.trial.kind != "base" and record.trial.recipe.cooldown_fraction > 0
    return f"before the cooldown of {record.trial.id}" if cools else record.trial.id


def _why(history: History, name: str) -> str:
    words = {
        "overfitting": "the plain run overfitted, and this change may help",
        "answered": "a restart at a lower learning rate came out better, and this change may bring more",
        "improving": "the plain run was still improving, and this change may bring more",
        "pretrained": "the model was pretrained, and this change may tune it better",
        "plateau": "the plain run no longer improved, and this change may bring more",
    }[situation_of(history)]
    tried = any(record.trial.move == name and record.verdict for record in all_siblings(history))
    return f"{words}{'; it was tried from another checkpoint before' if tried else ''}"
