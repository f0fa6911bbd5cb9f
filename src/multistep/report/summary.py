"""The run as plain data: what `show`, `train` and the page have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multistep.core.choice.moves import RESTART
from multistep.core.choice.retained import far_behind, overfitted, sent_back, shown
from multistep.core.evidence.function_metric import RecordedMetric
from multistep.core.evidence.scores import Form, form_of
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import ACCOUNTS, Entry, Evaluated, PhaseReused
from multistep.core.values.history import History, PhaseRecord, TrialRecord, fold
from multistep.core.values.judging import loss_of, metric_of
from multistep.core.values.units import Amount, Unit
from multistep.engine.beside import base_of, baseline_of
from multistep.engine.calibrated import findings
from multistep.engine.chosen import leader_of
from multistep.engine.guarded import guard_of
from multistep.engine.journal import read_entries
from multistep.engine.result import counted_in, shared_findings, sibling_control, trial_entry
from multistep.engine.rundir import RunDirectory, goes_on_by
from multistep.errors import RunDirectoryError
from multistep.report.lanes import lanes_of
from multistep.report.outcome import answer
from multistep.report.state import has_failed, state_of, where_it_stands
from multistep.report.words import (
    end_sentence,
    noise_sentences,
    optimism_sentence,
    overfitting_sentences,
)


def summary(directory: RunDirectory) -> dict[str, Any]:
    """The run as plain data, finished or not; where result.json has a key, this has the same."""
    return describe(directory, list(read_entries(directory.require().journal)))


def describe(directory: RunDirectory, entries: Iterable[Entry]) -> dict[str, Any]:
    """`summary` of a journal that was read already."""
    entries = list(entries)
    history = fold(entries)
    reused = {entry.event.phase: entry.event for entry in entries if isinstance(entry.event, PhaseReused)}
    metric = metric_of(history.phase.started) if history.phases else None
    winner = history.trial(history.leader.trial).full if history.leader else None
    plan = _resolved_plan(directory)
    record: dict[str, Any] = {
        "folder": str(directory.folder),
        "task": plan.get("task"),
        "state": state_of(directory, history, entries),
        "where": where_it_stands(history, len(plan.get("phases") or ()) or 1),
        "resume": None if history.finished or has_failed(history) else goes_on_by(plan.get("task"), directory.folder),
        "stopped": history.finished.stopped if history.finished else None,
        "metric": metric.name if metric else None,
        "goal": metric.goal if metric else None,
        "unit": metric.unit if metric else None,
        "model": str(model) if (model := _shipped(directory, history)).exists() else None,
        "report": str(directory.report),
        "winner": history.leader.trial if history.leader else None,
        "leader": leader_of(history),
        "validation": asdict(winner.interval) if winner else None,
        "test": asdict(history.test.interval) if history.test else None,
        "latest": _look(looks[-1]) if (looks := _looks(history)) else None,
        "scores": {
            "validation": dict(winner.scores) if winner else None,
            "test": dict(history.test.scores) if history.test else None,
        },
        "baseline": baseline_of(history, directory.read_table),
        "base": base_of(history, directory.read_table),
        "calibration": findings(history, directory.read_table) if history.finished else None,
        "budget": str(_budget(plan)) if _budget(plan) else None,
        "seconds": {
            **{name: round(history.spent.get(name, 0.0), 3) for name in ACCOUNTS},
            "total": round(history.seconds, 3),
        },
        "end": _end(_budget(plan), history),
        "steps": history.steps,
        "steps_by_kind": _steps_by_kind(history),
        "steps_to_winner": _steps_to(history, history.leader.checkpoint if history.leader else None),
        "examples": history.examples,
        "tokens": history.tokens,
        "counted": counted_in(history),
        "looks_at_validation": history.looks,
        "kills_survived": history.kills,
        "lanes": lanes_of(history),
        "lanes_lost": len(history.lost),
        "phases": [_phase(phase, reused.get(phase.started.phase)) for phase in history.phases],
        **shared_findings(history, directory.read_table),
        "overfitting": [
            found
            for phase in history.phases
            for found in overfitting(phase, history.leader.trial if history.leader else None)
        ],
    }
    if isinstance(metric, RecordedMetric) and directory.result.exists():
        # What only the process that has the function can work out stands in the result.
        written = json.loads(directory.result.read_text(encoding="utf-8"))
        record.update({key: written[key] for key in ("baseline", "base", "validation_optimism")})
    found = answer(record)
    trials = [trial for phase in record["phases"] for trial in phase["trials"]]
    forms = {phase.started.phase: form_of(metric_of(phase.started)) for phase in history.phases}
    form = forms[history.phase.started.phase] if forms else Form()
    of_loss = form_of(loss_of(history.phase.started)) if forms else Form()
    said = {
        "noise": noise_sentences(record["noise_between_seeds"], trials, forms, record["winner"]),
        "overfitting": overfitting_sentences(record["overfitting"], of_loss),
        "optimism": optimism_sentence(record["validation_optimism"], history.looks, form),
        "end": end_sentence(record),
    }
    return {
        **record,
        "standing": found.standing if found else None,
        "answer": found.sentence if found else None,
        "said": said,
    }


def _shipped(directory: RunDirectory, history: History) -> Path:
    shipping = history.shipping
    return directory.baseline if shipping and shipping.ships == "baseline" else directory.model


def _phase(record: PhaseRecord, reused: PhaseReused | None) -> dict[str, Any]:
    started = record.started
    return {
        "name": started.name,
        "metric": started.metric,
        "parameters": started.facts.parameters,
        "model": started.facts.description,
        "notes": list(started.facts.notes),
        "understood": [list(line) for line in started.facts.understood.lines()],
        "other_notes": list(started.facts.understood.notes),
        "usage": started.facts.usage,
        "stopped": record.finished.stopped if record.finished else None,
        "guard": guard_of(record),
        "moves_ended": record.moves_ended.reason if record.moves_ended else None,
        "weighed_last": [asdict(c) for c in record.moves_ended.weighed] if record.moves_ended else [],
        "reused": {"run": reused.run, "key": reused.key} if reused else None,
        "trials": [
            {**trial_entry(record, trial), "looks": [_look(look) for look in trial.curve]}
            for trial in record.trials.values()
        ],
    }


def overfitting(phase: PhaseRecord, winner: str | None) -> list[dict[str, Any]]:
    """Each trunk or cooldown of the plain run that overfitted, and the gap with and without each kept move.

    Kept is what led when it was judged, and the `winner`, which may have come to lead later. A move without a sibling
    is held against the plain run that it was judged by.
    """
    moves = [record for record in phase.of_kind("move") if record.verdict]
    kept = [r for r in moves if r.trial.id == winner or (r.verdict and r.verdict.leads)]
    cases = [
        {"move": record.trial.move, "with": with_, "without": without}
        for record in kept
        if (control := _without(phase, record)) and (with_ := _final_gap(record)) and (without := _final_gap(control))
    ]
    return [
        {
            "trial": record.trial.id,
            "reason": record.reading.reason if record.reading and not _left_behind(phase, record) else None,
            "behind": _left_behind(phase, record),
            "metric": phase.started.metric,
            "by_loss": shown(phase, record) is not Stability.OVERFITTING,  # and not by what the run is judged by
            "instead": _instead(phase, record),
            "tried": len(moves),
            "kept": [r.trial.id for r in kept],
            **case,
        }
        for record in (*phase.of_kind("trunk"), *phase.of_kind("control"))
        if record.ended and overfitted(phase, record)
        for case in cases or [{"move": None, "with": None, "without": None}]
    ]


def _left_behind(phase: PhaseRecord, record: TrialRecord) -> dict[str, Any] | None:
    """How far a trunk was left behind its best look, where its curve had not been called overfitting."""
    read = record.reading.stability if record.reading else None
    if shown(phase, record) is read:
        return None
    found = far_behind(phase, record)
    return {"by": found[0], "step": found[1]} if found else None


def _without(phase: PhaseRecord, record: TrialRecord) -> TrialRecord | None:
    """What a move is held against: its sibling without it, or else the plain run that it was judged by."""
    rival = phase.trials.get((record.verdict.rival if record.verdict else None) or "")
    if record.trial.move != RESTART and (control := sibling_control(phase, record)):
        return control
    return rival if rival and rival.trial.kind == "control" else None


def _instead(phase: PhaseRecord, record: TrialRecord) -> str | None:
    """The cooldown that was begun from an earlier step because this trial overfitted: its reason says the same."""
    reading = record.reading
    found = reading.reason if reading and reading.stability is Stability.OVERFITTING else ""
    if _left_behind(phase, record) and (instead := sent_back(phase, record)):
        return instead.trial.id
    again = (t for t in phase.of_kind("control") if found and t.trial.id != record.trial.id)
    return next((t.trial.id for t in again if t.reason.startswith(found)), None)


def _final_gap(record: TrialRecord) -> dict[str, Any] | None:
    """The training loss over the last quarter of a trial's steps, and the validation loss at its end."""
    look = record.full or (record.curve[-1] if record.curve else None)
    late = [r for r in record.done if r.step > record.step - 0.25 * (record.step - record.first_step)]
    done = [r.progress for r in late if r.progress]
    if look is None or "loss" not in look.scores or not done:
        return None
    training = sum(p.loss * p.steps for p in done) / sum(p.steps for p in done)
    validation = look.scores["loss"]
    return {
        "trial": record.trial.id,
        "training": training,
        "validation": validation,
        "gap": validation - training,
    }


KINDS = {"base": "base", "trunk": "trunk", "probe": "probes", "move": "moves", "average": "averages", "rerun": "reruns"}


def _steps_by_kind(history: History) -> dict[str, int]:
    """Steps taken by what they were for; the controls of rounds are apart from the plain run's cooldown."""
    found: dict[str, int] = {}
    for phase in history.phases:
        for record in phase.trials.values():
            plain = "controls" if record.trial.length else "cooldown"
            name = KINDS.get(record.trial.kind, plain)
            found[name] = found.get(name, 0) + record.step - record.first_step
    return found


def _steps_to(history: History, checkpoint: str | None) -> int:
    """The steps on the way to a checkpoint, through the checkpoints that its trials forked from."""
    for phase in history.phases:
        if found := phase.checkpoint(checkpoint) if checkpoint else None:
            maker = phase.trials[found.trial].trial
            if maker.of:
                return max(_steps_to(history, part) for part in maker.of)
            return found.step + _steps_to(history, phase.started.start)
    return 0


def _end(budget: Amount | None, history: History) -> dict[str, Any] | None:
    """The planned end against the real one, in the budget's unit."""
    if budget is None:
        return None
    return {"unit": budget.unit.value, "planned": budget.value, "real": used(budget, history, history.seconds)}


def used(budget: Amount, history: History, seconds: float) -> float:
    """How much of a budget is used up, in its unit, where the clock says so many seconds."""
    match budget.unit:
        case Unit.SECONDS:
            return seconds
        case Unit.STEPS:
            return float(history.steps)
        case Unit.TOKENS:
            return float(history.tokens)
        case _:
            return history.examples / history.phase.started.facts.train_examples if history.phases else 0.0


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
    except (FileNotFoundError, KeyError, RunDirectoryError):
        return {}
    return plan if isinstance(plan, dict) else {}


def _budget(plan: Mapping[str, Any]) -> Amount | None:
    given = plan.get("budget")
    return Amount(float(given["value"]), Unit(given["unit"])) if given else None
