"""Which checkpoints of a phase matter: the best on its curve, those that trials fork from, those kept on disk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

from multistep.core.choice.guards import holds
from multistep.core.choice.moves import EXTEND, RESTART
from multistep.core.choice.priors import link_of
from multistep.core.evidence.metric import OF_LOSS, beside
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import CheckpointSaved, Evaluated
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of

STANDING = 5  # judged checkpoints that are kept on disk
AS_FAR = 0.9  # of the steps to the best look
FAR_BEHIND = 5.0  # tolerances by which a last look is worse than the best one: far beyond the noise of a loss
ABOVE_NOISE = 2.0  # times the largest rise from one look to the next while it fell, which is about two deviations
FAR_BACK = 2.0  # times as many steps as one from which a cooldown may begin instead


def best_checkpoint(phase: PhaseRecord, *kinds: str) -> CheckpointSaved | None:
    """The saved checkpoint of trunks, or of trials of these kinds, whose look was best; None if there is none."""
    return best_saved(phase, [t for kind in kinds or ("trunk",) for t in phase.of_kind(kind)])


def best_saved(phase: PhaseRecord, records: Iterable[TrialRecord]) -> CheckpointSaved | None:
    """The saved checkpoint of some trials whose look was best, by the metric and its loss.

    None if none was saved while all was well.
    """
    best: tuple[float, CheckpointSaved] | None = None
    for value, saved in _valued(phase, records):
        if best is None or value > best[0]:
            best = value, saved
    return best[1] if best else None


def turning_line(phase: PhaseRecord) -> list[CheckpointSaved]:
    """The trunk's best checkpoint, and before it those that were the best of their time and are not too far back.

    Where training from nothing overfitted, a cooldown begins at one of them, so they stay on disk. A large pretrained
    model is not kept several times over.
    """
    line: list[CheckpointSaved] = []
    best = -math.inf
    for value, saved in _valued(phase, phase.of_kind("trunk")):
        if value > best:
            rate = phase.trials[saved.trial].trial.learning_rate
            before = [s for s in line if saved.step / FAR_BACK <= s.step < saved.step]
            same = [s for s in before if phase.trials[s.trial].trial.learning_rate == rate]
            best, line = value, [*([] if phase.started.facts.pretrained else same), saved]
    return line


def _valued(phase: PhaseRecord, records: Iterable[TrialRecord]) -> Iterator[tuple[float, CheckpointSaved]]:
    """The saved checkpoints that were looked at while all was well, each with its gain over the first of them."""
    reference: Evaluated | None = None
    for record in records:
        blown = [r.step for r in record.readings if r.stability is Stability.DIVERGED]
        looks = {look.step: look for look in record.curve if not blown or look.step < blown[0]}
        for saved in record.checkpoints:
            look = looks.get(saved.step)
            if look is not None and math.isfinite(look.interval.score):
                reference = reference or look
                yield look_gain(phase, look, reference), saved


def cooled_already(phase: PhaseRecord, checkpoint: CheckpointSaved | None) -> bool:
    """Whether a judged cooldown began at this checkpoint: of the plain run, or of a restart that overfitted."""
    judged = [t.trial for kind in ("control", "move") for t in phase.of_kind(kind) if t.verdict]
    return checkpoint is not None and checkpoint.id in [trial.start for trial in judged if trial.length is None]


def cooled_for(phase: PhaseRecord, best: CheckpointSaved | None) -> bool:
    """Whether a judged cooldown of the plain run began at the trunk's best checkpoint, or before it to end as far on:
    a cooldown goes on by half of its steps.
    """
    if best is None or cooled_already(phase, best):
        return best is not None
    line = {saved.id for saved in turning_line(phase)}
    plain = [t for t in phase.of_kind("control") if t.verdict and t.trial.length is None and t.trial.start in line]
    return any(t.first_step + (t.trial.cooldown_steps or 0) / 2 >= AS_FAR * best.step for t in plain)


def far_behind(phase: PhaseRecord, trunk: TrialRecord) -> tuple[float, int] | None:
    """By how much a trunk's last look is worse than the best one, and at which step that was: where it is far worse,
    and the loss itself decides, in whatever unit, which says so without much noise. Of a curve with few looks nothing
    else tells that it overfits. None where it is not.
    """
    metric, best = metric_of(phase.started), best_checkpoint(phase)
    looks = [(t.trial.id, look) for t in phase.of_kind("trunk") for look in t.curve]
    at_best = next((look for name, look in looks if best and (name, look.step) == (best.trial, best.step)), None)
    if metric.name not in OF_LOSS or phase.started.facts.pretrained or at_best is None or not trunk.curve:
        return None
    last = trunk.curve[-1]
    if last.step <= at_best.step:
        return None
    by = metric.improvement(at_best.interval.score, last.interval.score)
    falling = [look.interval.score for _, look in looks if look.step <= at_best.step]
    rises = [metric.improvement(before, after) for before, after in itertools.pairwise(falling)]
    enough = max(FAR_BEHIND * metric.tolerance(last.interval.score), ABOVE_NOISE * max(rises, default=0.0))
    return (abs(by), at_best.step) if by >= enough else None


def shown(phase: PhaseRecord, record: TrialRecord) -> Stability | None:
    """What a trial's curve showed last; of a trunk that is cooled down from before its end, since that lies far behind
    its best look, that it overfitted.
    """
    if record.trial.kind == "trunk" and record.ended and sent_back(phase, record) and far_behind(phase, record):
        return Stability.OVERFITTING
    return record.reading.stability if record.reading else None


def sent_back(phase: PhaseRecord, trunk: TrialRecord) -> TrialRecord | None:
    """The first cooldown of the plain run after a trunk, where it begins before that trunk's end; else None."""
    names = list(phase.trials)
    after = (phase.trials[name] for name in names[names.index(trunk.trial.id) + 1 :])
    first = next((t for t in after if t.trial.kind == "control" and t.trial.length is None), None)
    return first if first and first.first_step < trunk.step else None


def overfitted(phase: PhaseRecord, record: TrialRecord) -> bool:
    """Whether a trunk or a cooldown overfits, by its score or by its loss."""
    by_loss = record.reading.loss if record.reading else None
    return Stability.OVERFITTING in (shown(phase, record), by_loss)


def turned(phase: PhaseRecord) -> list[TrialRecord]:
    """The restarts that were left since they overfitted, too."""
    found = [t for t in phase.of_kind("move") if t.trial.move == RESTART and t.trial.length]
    return [t for t in found if t.reading and t.reading.stability is Stability.OVERFITTING]


def look_gain(phase: PhaseRecord, look: Evaluated, over: Evaluated) -> float:
    """By how much one look at the fixed sample is better than another, in tolerances of the metric.

    Of a metric that is not the loss, half by what it says itself and half by what its loss does, which tells
    checkpoints apart long before the metric can.
    """
    metric = metric_of(phase.started)
    score, reference = look.interval.score, over.interval.score
    own = metric.improvement(score, reference) / metric.tolerance(reference)
    loss = beside(metric, look.scores)
    losses = [e.scores.get(loss.name, math.nan) for e in (look, over)] if loss else []
    if loss is None or not all(map(math.isfinite, losses)):
        return own
    link = link_of(metric.name, loss.name)
    implied = link.correlation / link.ratio * loss.improvement(*losses) / loss.tolerance(losses[1])
    return 0.5 * (own + implied)


def plateau_step(record: TrialRecord) -> int:
    """The phase's step at which the trial's cooldown began, or has come to if it has not begun."""
    shape = record.trial.recipe.cooldown
    plateau = [r.step for r in record.done if r.window.segments[-1].shape != shape]
    return plateau[-1] if plateau else record.first_step


def before_cooldown(record: TrialRecord) -> str | None:
    """The checkpoint from which a trial's successors fork: its own before the cooldown, or where it began."""
    if record.trial.kind == "base" and record.checkpoints:
        return record.checkpoints[-1].id
    step = plateau_step(record)
    if step == record.first_step:
        return record.trial.start
    return next((saved.id for saved in record.checkpoints if saved.step == step), record.trial.start)


def trained(phase: PhaseRecord, record: TrialRecord) -> TrialRecord:
    """The trial whose plateau a judged one goes back to: of an average, its best member's; of what was extended, that
    one's; of a cooldown that was begun again within itself because it overfitted, the first one's.
    """
    while record.trial.kind == "average" or record.trial.move == EXTEND:
        made_of = record.trial.of[0] if record.trial.kind == "average" else record.trial.start
        record = next(t for t in phase.trials.values() if made_of in {c.id for c in t.checkpoints})
    while record.trial.length is None:
        origin = next((t for t in phase.trials.values() if record.trial.start in {c.id for c in t.checkpoints}), None)
        if origin is None or origin.trial.kind != "control":
            break
        record = origin
    return record


def standing(history: History) -> list[TrialRecord]:
    """The judged trials of the phase that may still lead or be averaged, the highest expected score first.

    After each verdict the best few stayed, with their checkpoints; whoever left does not come back, whatever is thought
    of it later. Who forgets what the phase's guard keeps never stood.
    """
    phase, stay = history.phase, list[str]()
    for record in phase.trials.values():
        if record.verdict and not record.verdict.failed and holds(record) and record.checkpoints:
            levels = record.verdict.expected
            ranked = [(levels.get(name, -math.inf), name) for name in (*stay, record.trial.id)]
            stay = [name for _, name in sorted(ranked, key=lambda pair: -pair[0])[:STANDING]]
    return [phase.trials[name] for name in stay]


def least_forgetful(phase: PhaseRecord) -> TrialRecord | None:
    """Of the judged trials that forget what the phase's guard keeps, the one that forgets least."""
    found = [(t.verdict.worse, t) for t in phase.trials.values() if t.verdict and t.checkpoints and not holds(t)]
    known = [(worse, t) for worse, t in found if worse is not None and math.isfinite(worse)]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def paid_most(phase: PhaseRecord) -> TrialRecord | None:
    """The move that brought most over its control, of those that brought something beyond noise."""
    paid = [(t.verdict.gain, t) for t in phase.of_kind("move") if t.verdict and t.verdict.gain and _sure(t)]
    return max(paid, key=lambda pair: pair[0])[1] if paid else None


def _sure(record: TrialRecord) -> bool:
    return record.verdict is not None and (record.verdict.gain_low or 0.0) > 0


def needed(history: History) -> set[str]:
    """The checkpoints that a rollback, a sibling, an average, a later phase or a resumed run can still ask for."""
    phase = history.phase
    wanted = {phase.started.start, *(p.finished.head for p in history.phases if p.finished)}
    wanted |= {saved.id for record in phase.of_kind("base") for saved in record.checkpoints}
    if history.leader:
        wanted.add(history.leader.checkpoint)
        if history.leader.trial in phase.trials:
            wanted.add(before_cooldown(trained(phase, phase.trials[history.leader.trial])))
    bests = [*turning_line(phase), best_checkpoint(phase, "trunk", "control")]
    bests += [best_saved(phase, [t]) for t in phase.of_kind("move") if t.trial.move == RESTART]
    wanted |= {best.id for best in bests if best}
    if phase.trunk and phase.trunk.last_checkpoint:
        wanted.add(phase.trunk.last_checkpoint.id)  # it may go on
    records = list(phase.trials.values())
    for record in phase.under_way:
        wanted |= {record.trial.start, before_cooldown(record), *record.trial.of}
        wanted |= {saved.id for saved in record.checkpoints[-2:]}
    rounds = [t for t in records if t.trial.length and t.trial.kind == "control"]
    for record in (*rounds[-1:], *records[-2:]):
        wanted |= {record.trial.start, before_cooldown(record), *record.trial.of}
        wanted |= {saved.id for saved in record.checkpoints[-2:]}
    if forgetful := least_forgetful(phase):
        wanted.add(forgetful.checkpoints[-1].id)  # for means with what leads
    if best_move := paid_most(phase):
        wanted.add(best_move.trial.start)
    for record in standing(history):
        wanted |= {record.checkpoints[-1].id, before_cooldown(trained(phase, record))}
    return {name for name in wanted if name}
