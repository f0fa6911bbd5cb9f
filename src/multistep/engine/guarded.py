"""What phases with a guard were not to forget, and what came of it: for result.json and for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from multistep.core.choice.guards import at_most_worse, holds
from multistep.core.evidence.scores import form_of, metric_words
from multistep.core.values.history import PhaseRecord, TrialRecord
from multistep.core.values.judging import guard_metric_of


def guard_of(phase: PhaseRecord) -> dict[str, Any] | None:
    """What a phase was not to forget, what the checkpoint that it ended with makes of it, and the sentence about that.

    None of a phase without a guard, and of one that has not scored its start yet.
    """
    guard, base = phase.started.guard, phase.base
    if guard is None or base is None or base.guard is None:
        return None
    before = base.guard.interval.score
    allowed = at_most_worse(guard, before)
    head = phase.finished.head if phase.finished else None
    ended = next((t for t in phase.trials.values() if head in {c.id for c in t.checkpoints}), None)
    forgot = [t.trial.id for t in phase.trials.values() if not holds(t)]
    judged = sum(t.guard is not None for t in phase.trials.values()) - 1
    after = ended.guard.interval.score if ended and ended.guard else None
    metric = guard_metric_of(guard)
    form = form_of(metric)
    of, unit = metric_words(metric.name), f" {form.unit}" if form.unit else ""
    said = f"Guard of {phase.started.name}: the {of} on {guard.data} was {form.of(before)}{unit} before the phase"
    if after is not None:
        said += f" and is {form.of(after)} with the model that it ended with" if ended is not base else ""
    said += f"; at most {form.size(allowed)} worse is allowed"
    if judged > 0:
        said += f", and {len(forgot)} of {judged} attempts forgot more" if forgot else ", and no attempt forgot more"
    if ended is base:
        said += ". Nothing that was tried was better, so the run goes on from the model that the phase began with"
    return {
        "phase": phase.started.phase,
        **asdict(guard),
        "at_most_worse": allowed,
        "before": before,
        "after": after,
        "forgot": forgot,
        "sentence": f"{said}.",
    }


def guard_entry(record: TrialRecord) -> dict[str, Any] | None:
    """The score on what must not be forgotten, and by how much it is worse than before the phase; of the start, 0."""
    if record.guard is None:
        return None
    verdict, worse = record.verdict, None
    if verdict and verdict.worse is not None:
        worse = {"score": verdict.worse, "low": verdict.worse_low, "high": verdict.worse_high}
    return {
        **asdict(record.guard.interval),
        "worse": worse,
        "at_most_worse": verdict.at_most_worse if verdict else None,
        "forgets": verdict.forgets if verdict else None,
    }
