"""result.json: what a finished run came to, for other programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multistep.core.compare import compare
from multistep.core.history import History, TrialRecord
from multistep.core.metric import Evaluation, Interval, metric_named


def result_of(history: History, read_table: Callable[[str], Evaluation]) -> dict[str, Any]:
    """The result of a finished run; keys are documented in docs/result.md."""
    assert history.finished is not None
    assert history.incumbent is not None
    metric = metric_named(history.phase.started.metric)
    winner = history.trial(history.incumbent.trial)
    control = history.phase.control
    return {
        "metric": metric.name,
        "goal": metric.goal,
        "unit": metric.unit,
        "model": "model",
        "weights_sha256": history.finished.weights,
        "parameters": history.phase.started.facts.parameters,
        "validation": _score(winner.full.interval) if winner.full else None,
        "test": _score(history.test.interval) if history.test else None,
        "scores": {
            "validation": dict(winner.full.scores) if winner.full else None,
            "test": dict(history.test.scores) if history.test else None,
        },
        "control": _score(control.full.interval) if control and control.full else None,
        "baseline": baseline_of(history, read_table),
        "seconds": {
            **{name: round(s, 3) for name, s in history.spent.items()},
            "total": round(history.seconds, 3),
        },
        "steps": history.steps,
        "examples": history.examples,
        "tokens": history.tokens,
        "looks_at_validation": history.looks,
        "kills_survived": history.kills,
        "trials": [_trial(record) for phase in history.phases for record in phase.trials.values()],
        "stopped": history.finished.stopped,
    }


def baseline_of(history: History, read_table: Callable[[str], Evaluation]) -> dict[str, Any]:
    """The baseline's scores and, where the network was scored on the same split, its paired gain over it."""
    found: dict[str, Any] = {"name": history.baselines[0].name if history.baselines else None}
    winner = history.trial(history.incumbent.trial).full if history.incumbent else None
    own = {"validation": winner, "test": history.test}
    for baseline in history.baselines:
        found[baseline.split] = {**_score(baseline.interval), "scores": dict(baseline.scores)}
        if look := own[baseline.split]:
            metric = metric_named(history.phase.started.metric)
            gain = compare(metric, read_table(look.table), read_table(baseline.table))
            found[baseline.split]["gain"] = {"improvement": gain.improvement, "low": gain.low, "high": gain.high}
    return found


def _score(interval: Interval) -> dict[str, float]:
    return {"score": interval.score, "low": interval.low, "high": interval.high, "n": interval.n}


def _trial(record: TrialRecord) -> dict[str, Any]:
    verdict = record.verdict
    return {
        "id": record.trial.id,
        "kind": record.trial.kind,
        "start": record.trial.start,
        "learning_rate": record.trial.learning_rate,
        "steps": record.step - record.first_step,
        "seconds": round(sum(r.train_seconds + r.evaluate_seconds for r in record.windows), 3),
        "reason": record.reason,
        "verdict": verdict.decision if verdict else None,
        "why": verdict.reason if verdict else None,
        "score": verdict.interval.score if verdict and verdict.interval else None,
        "improvement": verdict.improvement if verdict else None,
    }
