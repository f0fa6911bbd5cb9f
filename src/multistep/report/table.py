"""The run as plain data, and as tables for a terminal: what `show`, `train` and the page have in common."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from multistep.core.events import ACCOUNTS, Evaluated
from multistep.core.history import History, PhaseRecord, TrialRecord, fold
from multistep.core.metric import Goal, Interval, metric_named
from multistep.core.units import Amount, Unit, format_seconds
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory

if TYPE_CHECKING:
    from rich.console import Console

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
    score = _interval(record[split])
    baseline = record.get("baseline") or {}
    rival = _interval(baseline[split]) if baseline.get(split) else None
    scores = (record.get("scores") or {}).get(split) or {}
    others = {str(name): float(value) for name, value in scores.items() if name != metric.name}
    name = clean(str(baseline["name"])) if rival else None
    standing: Standing = "unknown"
    sentence = "No baseline was scored: whether the network earns its compute is not known."
    if rival is not None:
        standing, sentence = _compared(metric.name, score, rival, f"{name} baseline", split)
    return Answer(split, metric.name, metric.unit, metric.goal, score, others, name, rival, standing, sentence)


def _compared(name: str, score: Interval, rival: Interval, baseline: str, split: str) -> tuple[Standing, str]:
    """Both are scored on the same examples, so to ask for intervals apart is to ask for more than enough."""
    metric = metric_named(name)
    gain = metric.improvement(score.score, rival.score)
    by = f"{abs(gain):.3g} " + ("in perplexity" if metric.exponential else metric.unit)
    apart = score.high < rival.low or score.low > rival.high
    other = baseline.removesuffix(" baseline")
    if gain > 0 and apart:
        return "beats", f"The network beats the {baseline} by {by}."
    if gain > 0:
        return "unproven", (
            f"The network is ahead of the {baseline} by {by}, but their intervals overlap: "
            f"this {split} split does not prove that the network earns its compute."
        )
    if apart:
        return "loses", (
            f"The network LOSES to the {baseline} by {by}: the {other} model is the better choice at this budget."
        )
    return "loses", (
        f"The network does NOT beat the {baseline} (behind by {by}, their intervals overlap): "
        f"the {other} model is the cheaper choice at this budget."
    )


def _interval(fields: Mapping[str, Any]) -> Interval:
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
        "baseline": {
            "name": history.baselines[0].name if history.baselines else None,
            **{b.split: {**asdict(b.interval), "scores": dict(b.scores)} for b in history.baselines},
        },
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


# Terminal -------------------------------------------------------------------------------------------


def print_run(directory: RunDirectory, console: Console) -> None:
    """Print a run for `multistep show`: the answer, its phases and trials, the curve, the budget."""
    record = summary(directory)
    state = "" if record["state"] == "finished" else f"{record['state']}, "
    _say(console, f"{record['folder']}: {state}{record['where']}", style="bold")
    if record["state"] == "unfinished":
        _say(console, f"Go on with: {record['resume']}")
    print_answer(record, console)
    for index, phase in enumerate(record["phases"], start=1):
        console.print()
        left = f", left: {phase['stopped']}" if phase["stopped"] else ""
        _say(console, f"Phase {index}: {phase['name']}, {phase['metric']}{left}", style="bold")
        _say(console, f"{phase['model']}, {phase['parameters']:,} parameters")
        _print_trials(phase["trials"], console)
        for trial in phase["trials"]:
            _print_curve(trial, console)
    console.print()
    _print_budget(record, console)


def print_result(result_record: Mapping[str, Any], folder: Path, samples: Sequence[str], console: Console) -> None:
    """Print what `train` came to: the answer, a sample, and where the model and the report are."""
    print_answer(result_record, console)
    if samples:
        console.print()
        _say(console, "A sample of what it writes:", style="bold")
        _say(console, samples[0])
    console.print()
    _say(console, f"model   {folder / str(result_record['model'])}")
    _say(console, f"report  {folder / 'report.html'}")


def print_answer(record: Mapping[str, Any], console: Console) -> None:
    """Print the score beside the baseline's, and whether the network earns its compute."""
    found = answer(record)
    if found is None:
        last = record.get("latest")
        step = f"; validation sample {number(last['score'])} {record['unit']} at step {last['step']}" if last else ""
        return _say(console, f"Nothing was scored in full yet{step}")
    width = max(len("network"), len(found.baseline_name or ""))
    _say(console, f"{found.split} {found.metric}, {found.unit} ({found.goal}), 95% interval")
    _say(console, f"  {'network':{width}}  {with_interval(found.score)}", style="bold")
    if found.baseline and found.baseline_name:
        _say(console, f"  {found.baseline_name:{width}}  {with_interval(found.baseline)}")
    if found.others:
        _say(console, "  " + ", ".join(f"{name} {number(value)}" for name, value in found.others.items()))
    style = {"beats": "green", "loses": "bold red", "unproven": "yellow", "unknown": ""}[found.standing]
    return _say(console, found.sentence, style=style)


def _say(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(clean(text), style=style), highlight=False, soft_wrap=True)


def _print_trials(trials: Sequence[Mapping[str, Any]], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("trial", "steps", "time", "rate", "score", "verdict"):
        table.add_column(name, justify="left" if name in ("trial", "verdict") else "right", no_wrap=True)
    table.add_column("why", ratio=1)
    for trial in trials:
        score = number(trial["score"]["score"]) if trial["score"] else ""
        why = trial["why"] or trial["reason"]
        cells = (
            trial["id"], str(trial["steps"]), format_seconds(trial["seconds"]),
            f"{trial['learning_rate']:.3g}", score, trial["verdict"] or "", why,
        )  # fmt: skip
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console.print(table)


def _print_curve(trial: Mapping[str, Any], console: Console) -> None:
    looks = trial["looks"]
    if len(looks) < 2:
        return
    picked = sorted({round(i * (len(looks) - 1) / 5) for i in range(6)})
    listed = ", ".join(f"{looks[i]['step']}: {number(looks[i]['score'])}" for i in picked)
    _say(console, f"{trial['id']}  {listed}")


def _print_budget(record: Mapping[str, Any], console: Console) -> None:
    seconds = record["seconds"]
    total = seconds["total"] or 1.0
    shares = ", ".join(
        f"{name} {format_seconds(seconds[name])} ({seconds[name] / total:.0%})" for name in ACCOUNTS if seconds[name]
    )
    kills = record["kills_survived"]
    survived = f"; resumed {kills} time{'s' if kills > 1 else ''}" if kills else ""
    _say(
        console,
        f"Budget {record['budget'] or 'none'}, spent {format_seconds(seconds['total'])}: {shares}{survived}",
    )
    looks = record["looks_at_validation"]
    _say(console, f"{record['steps']:,} steps, {record['tokens']:,} tokens, {looks} looks at validation")
