"""What is known of a run when something is chosen: its situation, how noisy judging is, what attempts have brought."""

from __future__ import annotations

import math

from multistep.core.choice.moves import MOVES, RESTART
from multistep.core.choice.priors import Situation, prior
from multistep.core.choice.retained import overfitted
from multistep.core.evidence.expected import Gain, Origin
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import VerdictGiven
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan

FAILED = -20.0  # tolerances: what a trial that diverged counts as, where what its kind brings is learnt


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
    if any(overfitted(phase, t) for t in plain):
        return "overfitting"
    trunk = phase.trunk
    improving = trunk is not None and trunk.reading is not None and trunk.reading.stability is Stability.IMPROVING
    return "improving" if improving else "plateau"


def known_gain(plan: Plan, history: History, kind: str) -> Gain:
    """What attempts of a kind brought in recorded runs, in this situation and on this kind of task."""
    return prior(kind, situation_of(history), plan.phase(history.phase.started.phase).task or plan.task)


def noise_of(history: History) -> float:
    """The standard error of judging an attempt, in tolerances: as the last verdict had it, all evidence counted.

    Worked back from how much the verdict narrowed what had been expected; 0 while nothing was judged.
    """
    for record in reversed(list(history.phase.trials.values())):
        verdict = record.verdict
        if verdict is None or verdict.spread is None or verdict.standard_error is None:
            continue
        unit = tolerance_of(history)
        if not math.isfinite(verdict.standard_error) or _over_untouched(history, verdict):
            continue
        noise = verdict.standard_error
        before = verdict.presumed or (record.forecast.spread if record.forecast else 0.0)
        if 0.0 < verdict.spread < before:
            narrowed = math.sqrt(before**2 - verdict.spread**2)
            noise = min(noise, verdict.spread * before / narrowed)
        return noise / unit
    return 0.0


def _over_untouched(history: History, verdict: VerdictGiven) -> bool:
    """Whether a verdict compares with the model before training, from which any training differs by far more than two
    attempts do.
    """
    return verdict.rival is not None and history.trial(verdict.rival).trial.kind == "base"


def gain_of(history: History, record: TrialRecord, *, over: TrialRecord) -> float | None:
    """What a judged trial is expected to be better than another, in tolerances."""
    expected = history.expected
    if record.trial.id not in expected or over.trial.id not in expected:
        return None
    return (expected[record.trial.id] - expected[over.trial.id]) / tolerance_of(history)


def seen(history: History, move: str | None) -> list[float]:
    """What this move has brought from other forks over who led then; of its opposite that lost, half of that."""
    opposite = MOVES[move].opposite if move and move in MOVES else None
    found = []
    for record in all_siblings(history):
        if record.over is None or record.over not in history.expected:
            continue
        failed = record.verdict is not None and record.verdict.failed
        gain = FAILED if failed else gain_of(history, record, over=history.trial(record.over))
        if gain is not None and record.trial.move == move:
            found.append(gain)
        elif gain is not None and opposite and record.trial.move == opposite and gain < 0:
            found.append(-gain / 2)
    return found


def origin_of(record: TrialRecord) -> Origin | None:
    """What a sibling has in common with others; None of what is no sibling."""
    trial = record.trial
    if trial.kind not in ("control", "move") or not trial.length or trial.start is None:
        return None
    kind = (trial.move or "on").split("+")[-1]  # of a compound the last change is the one that is tried
    return Origin(trial.start, kind, MOVES[kind].opposite if kind in MOVES else None)


def all_siblings(history: History) -> list[TrialRecord]:
    return [record for record in history.phase.trials.values() if origin_of(record)]


def lead_over(history: History, record: TrialRecord) -> float:
    """By how much who leads is expected to be better than a trial, in tolerances."""
    return (leader_level(history) - history.expected.get(record.trial.id, 0.0)) / tolerance_of(history)


def leader_level(history: History) -> float:
    return history.expected.get(history.leader.trial, 0.0) if history.leader else 0.0


def tolerance_of(history: History) -> float:
    """What gains are counted in: the metric's own tolerance, since what is known of other runs is told in that.

    A plan's tolerance says what is worth waiting for, and nothing of how large gains are.
    """
    metric = metric_of(history.phase.started)
    interval = history.leader.interval if history.leader else None
    return metric.tolerance(interval.score) if interval else 1.0


def behind_baseline(history: History) -> bool:
    """Or no better than the model was before training: then nothing that has any value is given back."""
    if history.untrained_leads:
        return True
    baseline = next((b.interval.score for b in history.baselines if b.split == "validation"), None)
    interval = history.leader.interval if history.leader else None
    if baseline is None or interval is None:
        return False
    return metric_of(history.phase.started).improvement(baseline, interval.score) > 0
