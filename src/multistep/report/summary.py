"""The run as plain data, and its answer in one sentence: what `show`, `train` and the page have in common."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from multistep.core.events import ACCOUNTS, Evaluated
from multistep.core.history import History, PhaseRecord, TrialRecord, fold
from multistep.core.metric import Goal, Interval, Metric, metric_named
from multistep.core.units import Amount, Unit
from multistep.engine.journal import read_entries
from multistep.engine.result import baseline_of
from multistep.engine.rundir import RunDirectory

Standing = Literal["beats", "unproven", "loses", "unknown"]
ALIVE_SECONDS = 10.0  # a heartbeat older than this belongs to a process that is gone


@dataclass(frozen=True)
class Answer:
    """What a run came to: the score on one split beside the baseline's, and the plain sentence about it."""

    split: str
    metric: str
    unit: str
    goal: Goal
    score: Interval
    others: Mapping[str, float]  # the task's other metrics
    baseline_name: str | None
    baseline: Interval | None
    standing: Standing
    sentence: str


def answer(record: Mapping[str, Any]) -> Answer | None:
    """The answer in a result.json or a `summary`: the test split's, else validation's; None: no score."""
    split = "test" if record.get("test") else "validation"
    if not record.get(split):
        return None
    metric = metric_named(str(record["metric"]))
    score = interval_of(record[split])
    baseline = record.get("baseline") or {}
    rival = interval_of(baseline[split]) if baseline.get(split) else None
    scores = (record.get("scores") or {}).get(split) or {}
    others = {str(name): float(value) for name, value in scores.items() if name != metric.name}
    name = clean(str(baseline["name"])) if rival else None
    standing: Standing = "unknown"
    sentence = "No baseline was scored: whether the network earns its compute is not known."
    if rival is not None and "gain" in baseline[split]:
        gain = {key: float(value) for key, value in baseline[split]["gain"].items()}
        standing, sentence = _compared(metric, gain, f"{name} baseline", split)
    return Answer(split, metric.name, metric.unit, metric.goal, score, others, name, rival, standing, sentence)


def _compared(metric: Metric, gain: Mapping[str, float], baseline: str, split: str) -> tuple[Standing, str]:
    """By the paired difference on the same examples, with its 95% interval."""
    by = f"{abs(gain['improvement']):.3g} " + ("in perplexity" if metric.exponential else metric.unit)
    interval = f"[{gain['low']:+.3g}, {gain['high']:+.3g}]"
    other = baseline.removesuffix(" baseline")
    if gain["low"] > 0:
        return "beats", f"The network beats the {baseline} by {by} {interval}."
    if gain["improvement"] > 0:
        return "unproven", (
            f"The network is ahead of the {baseline} by {by} {interval}, within noise: "
            f"this {split} split does not prove that the network earns its compute."
        )
    if gain["high"] < 0:
        return "loses", (
            f"The network LOSES to the {baseline} by {by} {interval}: "
            f"the {other} model is the better choice at this budget."
        )
    return "loses", (
        f"The network does NOT beat the {baseline} (behind by {by} {interval}, within noise): "
        f"the {other} model is the cheaper choice at this budget."
    )


def interval_of(fields: Mapping[str, Any]) -> Interval:
    # JSON has no infinity: result.json holds "inf" where one block leaves the interval open.
    return Interval(float(fields["score"]), float(fields["low"]), float(fields["high"]), int(fields["n"]))


def number(value: float) -> str:
    """A score as people read it: `1.4321`, `5,012.3`."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def with_interval(score: Interval) -> str:
    """`1.4321 [1.4100, 1.4542]`."""
    return f"{number(score.score)} [{number(score.low)}, {number(score.high)}]"


def clean(text: str) -> str:
    """Text from data or a model without what steers a terminal (escape sequences) or cannot be encoded."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in encodable
    )


# The run as data ------------------------------------------------------------------------------------


def summary(directory: RunDirectory) -> dict[str, Any]:
    """The run as plain data, finished or not; where result.json has a key, this has the same."""
    return describe(directory, fold(read_entries(directory.require().journal)))


def describe(directory: RunDirectory, history: History) -> dict[str, Any]:
    """`summary` of a history that is known already."""
    metric = metric_named(history.phase.started.metric) if history.phases else None
    winner = history.trial(history.incumbent.trial).full if history.incumbent else None
    plan = _resolved_plan(directory)
    record: dict[str, Any] = {
        "folder": str(directory.folder),
        "task": plan.get("task"),
        "state": "finished" if history.finished else "running" if _alive(directory) else "unfinished",
        "where": _where(history, len(plan.get("phases") or ()) or 1),
        "resume": None if history.finished else f"multistep resume {directory.folder}",
        "stopped": history.finished.stopped if history.finished else None,
        "metric": metric.name if metric else None,
        "goal": metric.goal if metric else None,
        "unit": metric.unit if metric else None,
        "model": str(directory.model) if directory.model.exists() else None,
        "report": str(directory.report),
        "validation": asdict(winner.interval) if winner else None,
        "test": asdict(history.test.interval) if history.test else None,
        "latest": _look(looks[-1]) if (looks := _looks(history)) else None,
        "scores": {
            "validation": dict(winner.scores) if winner else None,
            "test": dict(history.test.scores) if history.test else None,
        },
        "baseline": baseline_of(history, directory.read_table),
        "budget": str(_budget(plan)) if _budget(plan) else None,
        "seconds": {
            **{name: round(history.spent.get(name, 0.0), 3) for name in ACCOUNTS},
            "total": round(history.seconds, 3),
        },
        "steps": history.steps,
        "examples": history.examples,
        "tokens": history.tokens,
        "looks_at_validation": history.looks,
        "kills_survived": history.kills,
        "phases": [_phase(record) for record in history.phases],
    }
    found = answer(record)
    return {
        **record,
        "standing": found.standing if found else None,
        "answer": found.sentence if found else None,
    }


def _phase(record: PhaseRecord) -> dict[str, Any]:
    started = record.started
    return {
        "name": started.name,
        "metric": started.metric,
        "parameters": started.facts.parameters,
        "model": started.facts.description,
        "notes": list(started.facts.notes),
        "stopped": record.finished.stopped if record.finished else None,
        "trials": [_trial(trial) for trial in record.trials.values()],
    }


def _trial(record: TrialRecord) -> dict[str, Any]:
    verdict = record.verdict
    return {
        "id": record.trial.id,
        "kind": record.trial.kind,
        "start": record.trial.start,
        "first_step": record.first_step,
        "learning_rate": record.trial.learning_rate,
        "steps": record.step - record.first_step,
        "seconds": round(sum(r.train_seconds + r.evaluate_seconds for r in record.windows), 3),
        "reason": record.reason,
        "stability": record.reading.stability.value if record.reading else None,
        "verdict": verdict.decision if verdict else None,
        "why": verdict.reason if verdict else None,
        "score": asdict(verdict.interval) if verdict and verdict.interval else None,
        "improvement": verdict.improvement if verdict else None,
        "looks": [_look(look) for look in record.curve],
    }


def _looks(history: History) -> list[Evaluated]:
    """The looks of the phase that is going on, probes left out."""
    trials = history.phase.trials.values() if history.phases else ()
    return [look for trial in trials if trial.trial.kind != "probe" for look in trial.curve]


def _look(look: Evaluated) -> dict[str, float]:
    return {
        "step": look.step,
        "score": look.interval.score,
        "low": look.interval.low,
        "high": look.interval.high,
    }


def _resolved_plan(directory: RunDirectory) -> dict[str, Any]:
    """The plan as resolved.json holds it; empty for a run that was killed before the file was written."""
    try:
        plan = directory.read_resolved()["plan"]
    except (FileNotFoundError, KeyError, json.JSONDecodeError):
        return {}
    return plan if isinstance(plan, dict) else {}


def _budget(plan: Mapping[str, Any]) -> Amount | None:
    given = plan.get("budget")
    return Amount(float(given["value"]), Unit(given["unit"])) if given else None


def _alive(directory: RunDirectory) -> bool:
    try:
        return time.time() - directory.heartbeat.stat().st_mtime < ALIVE_SECONDS
    except OSError:
        return False


def _where(history: History, phases: int) -> str:
    if history.finished:
        return f"finished ({history.finished.stopped})"
    if not history.phases:
        return "before its first phase"
    phase = history.phase
    place = f"phase {phase.started.phase + 1} of {phases} ({clean(phase.started.name)})"
    if phase.finished:
        last = phase.started.phase + 1 == phases
        return f"{place} is done; " + ("the test split and the export are to come" if last else "the next is to come")
    if (trial := phase.unfinished) is None:
        return f"{place}, between two trials"
    return f"{place}, {stretch(trial)}, step {trial.step}"


def stretch(trial: TrialRecord) -> str:
    """What a trial is doing, in a word: a control cools down."""
    return "cooldown" if trial.trial.kind == "control" else trial.trial.kind
