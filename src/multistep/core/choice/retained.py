"""Which checkpoints of a phase matter: the best on its curve, those that trials fork from, those kept on disk."""

from __future__ import annotations

import math

from multistep.core.evidence.stability import Stability
from multistep.core.values.events import CheckpointSaved
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of

CANDIDATES = 4  # cooled-down checkpoints kept for averaging


def best_checkpoint(phase: PhaseRecord) -> CheckpointSaved | None:
    """The phase's saved checkpoint whose look was best; None if none was saved while all was well."""
    metric = metric_of(phase.started)
    best: tuple[float, CheckpointSaved] | None = None
    for record in (*phase.of_kind("trunk"), *phase.of_kind("control")):
        blown = [r.step for r in record.readings if r.stability is Stability.DIVERGED]
        scores = {look.step: look.interval.score for look in record.curve if not blown or look.step < blown[0]}
        for saved in record.checkpoints:
            score = scores.get(saved.step, math.nan)
            if math.isfinite(score) and (best is None or metric.improvement(score, best[0]) > 0):
                best = (score, saved)
    return best[1] if best else None


def plateau_step(record: TrialRecord) -> int:
    """The phase's step at which the trial's cooldown began, or has come to if it has not begun."""
    shape = record.trial.recipe.cooldown
    plateau = [r.step for r in record.done if r.window.segments[-1].shape != shape]
    return plateau[-1] if plateau else record.first_step


def before_cooldown(record: TrialRecord) -> str | None:
    """The checkpoint from which a trial's successors fork: its own before the cooldown, or where it began."""
    step = plateau_step(record)
    if step == record.first_step:
        return record.trial.start
    return next((saved.id for saved in record.checkpoints if saved.step == step), record.trial.start)


def trained(phase: PhaseRecord, record: TrialRecord) -> TrialRecord:
    """The trial whose plateau a judged one goes back to: of an average, its best member's; of a cooldown that was
    begun again within itself because it overfitted, the first one's.
    """
    while record.trial.kind == "average":
        record = next(t for t in phase.trials.values() if record.trial.of[0] in {c.id for c in t.checkpoints})
    while record.trial.length is None:
        origin = next((t for t in phase.trials.values() if record.trial.start in {c.id for c in t.checkpoints}), None)
        if origin is None or origin.trial.kind != "control":
            break
        record = origin
    return record


def candidates(phase: PhaseRecord) -> list[TrialRecord]:
    """The cooled-down trials with a finite score, best first: what may be averaged."""
    metric = metric_of(phase.started)
    judged = [
        t
        for t in phase.trials.values()
        if t.trial.kind in ("control", "move") and t.full and t.checkpoints and math.isfinite(t.full.interval.score)
    ]
    sign = 1.0 if metric.goal == "minimize" else -1.0
    return sorted(judged, key=lambda t: sign * t.full.interval.score if t.full else math.inf)


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
    if history.incumbent:
        wanted.add(history.incumbent.checkpoint)
        if history.incumbent.trial in phase.trials:
            wanted.add(before_cooldown(trained(phase, phase.trials[history.incumbent.trial])))
    if best := best_checkpoint(phase):
        wanted.add(best.id)
    records = list(phase.trials.values())
    rounds = [t for t in records if t.trial.length and t.trial.kind == "control"]
    for record in (*rounds[-1:], *records[-2:]):
        wanted |= {record.trial.start, before_cooldown(record), *record.trial.of}
        wanted |= {saved.id for saved in record.checkpoints[-2:]}
    if best_move := paid_most(phase):
        wanted.add(best_move.trial.start)
    for record in candidates(phase)[:CANDIDATES]:
        wanted |= {record.checkpoints[-1].id, before_cooldown(record)}
    return {name for name in wanted if name}
