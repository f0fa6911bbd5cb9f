"""What to do next: pure functions of the plan and the history.

First the plain run: a trunk at constant learning rate, forked early for a first complete result; then whatever is worth
most of what could be done with the rest of the budget. All candidates stand in `options`, the choice in `weighing`.
"""

from __future__ import annotations

from multistep.core.choice.allowance import PROBE_FACTORS, has_share, steps_in
from multistep.core.choice.forks import USUAL_FORKS, next_fork, plain_controls
from multistep.core.choice.guards import trunk_forgets
from multistep.core.choice.known import tolerance_of
from multistep.core.choice.options import of_turned, on_with_the_trunk, weigh
from multistep.core.choice.plain import after_trunk, begun_again
from multistep.core.choice.probing import chosen_rate, probe
from multistep.core.choice.room import least_room, remaining
from multistep.core.choice.rounds import next_in_round
from multistep.core.choice.siblings import LEAST_BLOCKS, too_few
from multistep.core.choice.trunks import begins_known, trunk_trial, untouched
from multistep.core.choice.weighing import Choice
from multistep.core.choice.windows import left_by_curve
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import MovesEnded
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal, Weighed
from multistep.core.values.units import Amount, Unit

STOP = Weighed("stop, and give the rest back", 0.0, 0.0, 0.0, 0.0, chosen=True)


def propose(plan: Plan, history: History) -> Proposal | MovesEnded | None:
    """The next trial of the phase that is going on, why no move is tried any more, or None: the phase is done."""
    phase = history.phase
    trunk = phase.trunk
    if (control := phase.control) and control.verdict and not _began_after(phase, trunk, control):
        return begun_again(plan, history, control) or after_judged(plan, history)
    if trunk is None and begins_known(phase):
        return untouched(plan, phase)
    if trunk is None:
        return trunk_trial(
            plan, phase, "every run begins with training at a constant learning rate", start=phase.started.start
        )
    if probes := phase.of_kind("probe"):
        return _after_probes(plan, history, probes, trunk)
    if trunk.for_probes:
        return probe(plan, history, 0)
    return after_trunk(plan, history, trunk) or _covered(plan, history, trunk)


def _covered(plan: Plan, history: History, trunk: TrialRecord) -> Proposal | MovesEnded | None:
    """Where a trunk overfitted after a fork that was cooled down from its best checkpoint: on from what was judged."""
    overfits = left_by_curve(plan, trunk) is Stability.OVERFITTING
    return after_judged(plan, history) if overfits and history.leader else None


def _began_after(phase: PhaseRecord, trunk: TrialRecord | None, control: TrialRecord) -> bool:
    """Whether a trunk goes on behind a cooled-down fork of it."""
    order = list(phase.trials)
    return trunk is not None and order.index(trunk.trial.id) > order.index(control.trial.id)


def after_judged(plan: Plan, history: History) -> Proposal | MovesEnded | None:
    """What is worth most now that something is judged; why nothing is; None where the plan leaves nothing to choose."""
    phase = history.phase
    index = phase.started.phase
    wanted = plan.moves_of(index)
    if phase.moves_ended or isinstance(plan.phase(index).until, Amount) or history.leader is None:
        return None
    if wanted == () and not phase.started.facts.pretrained:
        return None
    left = remaining(plan, history)
    if (left is None or wanted not in ("auto", ())) and (fork := _usual_fork(plan, history)):
        return fork
    if left is None and wanted in ("auto", ()):
        return None  # nobody said how long to go on
    if history.leader.trial not in phase.trials:
        if left is not None and (again := on_with_the_trunk(plan, history, left)):
            return again
        reason = "nothing in this phase is better than what the phase before it ended with, so it is not gone on with"
        return MovesEnded(index, reason, budget=False)
    judged = phase.trials[history.leader.trial].full
    if wanted != () and judged and judged.interval.blocks < LEAST_BLOCKS:
        if left is not None and (again := on_with_the_trunk(plan, history, left)):
            return again
        return MovesEnded(index, too_few(judged.interval), budget=False)
    if wanted not in ("auto", ()):
        turned = [o.proposal for o in of_turned(plan, history, left) if o.cost <= left.value] if left else []
        return next(filter(None, turned), None) or next_in_round(plan, history, left)
    assert left is not None
    choice = weigh(plan, history, left)
    tolerance = tolerance_of(history)
    if choice.taken and choice.taken.proposal:
        proposal = choice.taken.proposal
        return Proposal(proposal.trial, proposal.reason, choice.weighed(tolerance))
    return None if wanted == () else _ended(plan, history, choice, left, tolerance)


def _usual_fork(plan: Plan, history: History) -> Proposal | None:
    """On to the next of the usual forks of pretrained weights, where nothing is weighed; None after the last."""
    phase, trunk = history.phase, history.phase.trunk
    if not phase.started.facts.pretrained or trunk is None or phase.of_kind("move"):
        return None
    if len(plain_controls(history)) >= USUAL_FORKS or left_by_curve(plan, trunk) or trunk_forgets(phase):
        return None
    fork = next_fork(plan, history)
    return (
        trunk_trial(plan, phase, f"training goes on to {fork.epochs:.3g} epochs in all", like=trunk) if fork else None
    )


def _ended(plan: Plan, history: History, choice: Choice, left: Amount, tolerance: float) -> MovesEnded:
    index, unit = history.phase.started.phase, "s" if left.unit is Unit.SECONDS else " steps"
    share = "this phase's share of the budget"
    many = f"{max(0.0, left.value):.0f}{unit}" + (f" of {share}" if has_share(plan, index) else "")
    weighed = choice.weighed(tolerance)
    costs = [o.cost for o in choice.options]
    if left.value < 1:
        return MovesEnded(index, f"{share if has_share(plan, index) else 'the budget'} is used up", True, weighed)
    if not costs and left.value >= least_room(history, left.unit, 1):
        return MovesEnded(index, f"nothing is left to try in the {many} that are left", False, (*weighed, STOP))
    if not costs or min(costs) > left.value:
        shortest = f", and the shortest needs {min(costs):.0f}{unit}" if costs else ""
        return MovesEnded(index, f"there is no room for another attempt: {many} are left{shortest}", True, weighed)
    return MovesEnded(
        index,
        f"nothing that could be tried in the {many} that are left is expected to improve the score",
        False,
        (*weighed, STOP),
    )


def _after_probes(
    plan: Plan, history: History, probes: tuple[TrialRecord, ...], trunk: TrialRecord
) -> Proposal | MovesEnded | None:
    phase = history.phase
    if len(probes) < len(PROBE_FACTORS):
        return probe(plan, history, len(probes))
    if len(phase.of_kind("trunk")) == 1:
        preset = phase.started.recipe.learning_rate
        assert preset is not None, "a resolved recipe has a learning rate"
        rate, reason = chosen_rate(metric_of(phase.started), preset, probes, plan.tolerance)
        return trunk_trial(plan, phase, reason, rate=rate, start=phase.started.start)
    return after_trunk(plan, history, trunk) or _covered(plan, history, trunk)


def stopped(plan: Plan, history: History) -> str:
    """Why the phase that is going on came to its end: budget, length (its own, or its share of a budget that later
    phases go on with), stable, overfitting, diverged, usual (pretrained weights had their usual epochs, and nobody
    named an end), or moves: every one that applies was tried, and what is left of the budget is given back.
    """
    phase = history.phase
    trunk, control = phase.trunk, phase.control
    judged = [t for t in phase.of_kind("control") if t.verdict and not t.verdict.failed]
    if control is None or not judged:
        return "diverged"
    spent = "length" if has_share(plan, phase.started.phase) else "budget"
    if phase.moves_ended and phase.moves_ended.budget and phase.of_kind("move"):
        return spent
    if trunk and (shown := left_by_curve(plan, trunk)):
        return shown.value
    if phase.moves_ended and not phase.moves_ended.budget and phase.of_kind("move"):
        return "moves"
    until = plan.phase(phase.started.phase).until
    if not isinstance(until, Amount):
        return spent if plan.budget is not None else "usual"
    steps = steps_in(until, phase)
    if steps is None:  # in time, whose last window cannot end on the second
        reached = plan.budget is None or history.seconds - phase.start_seconds >= 0.95 * until.value
    else:
        reached = control.step >= steps
    return "length" if reached else "budget"
