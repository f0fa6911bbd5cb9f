"""What a run does and what its trials came to, in the words of somebody who explains it, for the terminal."""

from __future__ import annotations

from multistep.core.choice.allowance import seconds_per_step
from multistep.core.choice.retained import shown
from multistep.core.evidence.scores import NOTHING, difference_words
from multistep.core.values.events import (
    BaselineScored,
    CheckpointSaved,
    Entry,
    Evaluated,
    PhaseFinished,
    PhaseStarted,
    RunFinished,
    RunInterrupted,
    RunResumed,
    ShipDecided,
    TrialStarted,
    WindowDone,
    WindowPlanned,
)
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.units import format_seconds
from multistep.engine.chosen import expected_gains, leader_of
from multistep.engine.result import round_of, trial_entry
from multistep.report.state import stopped_words
from multistep.report.words import as_it_is, changes

NOT_JUDGED = ("trunk", "probe", "rerun")
LEFT_WORDS = {
    "improving": "left while it improved",
    "stable": "left, no longer improving",
    "overfitting": "left, overfitting",
    "diverged": "left, diverged",
    "undecided": "left, with no clear trend",
}


def name_of(history: History, record: TrialRecord) -> str:
    """What a trial is: `trunk, at a constant learning rate`; `dropout-up: dropout 0 to 0.1`."""
    trial, phase = record.trial, history.phases[record.trial.phase]
    match trial.kind:
        case "trunk":
            return f"trunk{_number(history, record)}, at a constant learning rate"
        case "probe":
            return f"probe of the learning rate {trial.learning_rate:.3g}"
        case "base":
            return "the model before training"
        case "average":
            return f"average of {len(trial.of)} checkpoints"
        case "rerun":
            return f"{trial.move or 'control'} again, with seed {trial.seed}"
        case "move":
            what = changes(trial_entry(phase, record))
            own = f"{trial.move}, {as_it_is(record.first_step)}" if _judged_at_once(record) else str(trial.move)
            return f"{own}: {what}" if what else own
        case _ if _judged_at_once(record):
            return as_it_is(record.first_step)
        case _:
            number = round_of(phase, trial)
            if number:
                return f"control of round {number}, with nothing changed"
            return f"cooldown{_number(history, record)}, the learning rate going to zero"


def _judged_at_once(record: TrialRecord) -> bool:
    """Whether it is the cooldown of a checkpoint for which no step was left, or none was wanted."""
    trial = record.trial
    return (
        trial.length is None and not trial.cooldown_steps and not trial.to_the_end and record.step == record.first_step
    )


def _number(history: History, record: TrialRecord) -> str:
    """` 2` of the second of a phase's cooldowns or trunks; nothing of the first."""
    phase = history.phases[record.trial.phase]
    same = [r.trial.id for r in phase.of_kind(record.trial.kind) if not round_of(phase, r.trial)]
    number = same.index(record.trial.id) + 1
    return f" {number}" if number > 1 else ""


def short_name(history: History, name: str) -> str:
    """`the trunk`, `the cooldown`, `dropout-up`, `the control of round 2`: a trial within a sentence."""
    record = history.trial(name)
    match record.trial.kind:
        case "move":
            return str(record.trial.move)
        case "base":
            return "the model before training"
        case "average" | "rerun":
            return name_of(history, record)
        case "control" if _judged_at_once(record):
            return name_of(history, record)
        case _:
            return f"the {name_of(history, record).partition(',')[0]}"


def outcome(history: History, record: TrialRecord, *, short: bool = False) -> str:
    """What a trial came to: `best so far`, `not better: expected 0.4 points worse than the cooldown`, `going on`.

    A `short` one leaves out whom it is compared with.
    """
    verdict = record.verdict
    if verdict is None:
        return _unjudged(history, record)
    if verdict.failed:
        return f"failed: {verdict.reason}"
    if verdict.forgets:
        return "ruled out: it forgets too much of what the guard keeps"
    metric = metric_of(history.phases[record.trial.phase].started)
    leads = history.leader is not None and history.leader.trial == record.trial.id
    best = ("chosen" if history.finished else "best so far") if leads else "not better"
    if not leads and not verdict.leads and _outscores(history, record):
        by = difference_words(metric, gap := _over_leader(history, record))
        return f"better score, expected {by} {'better' if gap > 0 else 'worse'} than what is chosen"
    if not leads and verdict.ahead is not None and verdict.ahead >= 0:
        best = "not the best"  # better than the plain run, and another is better still
    if verdict.leads and not leads:
        return "best for a while, then overtaken" + (
            ", though its score is better" if _outscores(history, record) else ""
        )
    if verdict.ahead is None or verdict.rival is None:
        return best
    side = "better" if verdict.ahead >= 0 else "worse"
    found = leader_of(history) if leads else None  # its own verdict may be over an earlier end of the plain run
    proven = (", proven" if found["proven"] else ", not proven") if found and found["tested"] else ""
    by = difference_words(metric, verdict.ahead)
    if short:
        return f"{best}: {by} {side}{proven}"
    return f"{best}: expected {by} {side} than {short_name(history, verdict.rival)}{proven}"


def _outscores(history: History, record: TrialRecord) -> bool:
    """Whether it has a better validation score than what leads, on the same split."""
    leader = history.trial(history.leader.trial).full if history.leader else None
    if leader is None or record.full is None or record.trial.id not in history.expected:
        return False
    metric = metric_of(history.phase.started)
    return metric.improvement(record.full.interval.score, leader.interval.score) > NOTHING


def _over_leader(history: History, record: TrialRecord) -> float:
    assert history.leader is not None
    expected = expected_gains(history)
    return expected[record.trial.id] - expected.get(history.leader.trial, 0.0)


def _unjudged(history: History, record: TrialRecord) -> str:
    if not record.ended:
        return "not finished" if history.finished else "going on"
    if record.trial.kind == "probe":
        return "a short try, to compare learning rates"
    if record.for_probes:
        return "left for probes of the learning rate"
    if record.trial.kind == "trunk":
        stability = shown(history.phases[record.trial.phase], record)
        return LEFT_WORDS[stability.value] if stability else "left for the cooldown"
    return "done"


def doing(entry: Entry | None, history: History) -> str:
    """What happens after this entry of the journal, in a sentence without its full stop."""
    event = entry.event if entry else None
    if not history.phases or isinstance(event, RunResumed):
        return "Reading the data and building the model"
    match event:
        case PhaseStarted():
            return "Scoring the baseline, a simple model to compare with"
        case WindowPlanned(window=window):
            return (
                f"{_training(history, history.trial(window.trial))}; {_next_look(history, window.steps, window.look)}"
            )
        case TrialStarted():
            return _training(history, history.trial(event.trial.id))
        case WindowDone():
            look = history.trial(event.trial).done[-1].window.look
            return "Looking at validation: scoring a fixed sample of it" if look else "Saving a checkpoint"
        case CheckpointSaved() if history.trial(event.trial).trial.kind not in NOT_JUDGED:
            return "Scoring all of validation"
        case PhaseFinished() | ShipDecided():
            tested = history.phase.started.facts.test_tokens > 0
            return "Scoring the best model on the test split, once" if tested else "Writing the model"
        case Evaluated(split="test"):
            return "Scoring the baseline on the test split"
        case BaselineScored(split="test"):
            return "Writing the model and the report"
        case RunInterrupted(signal=signal):
            return f"Stopped by {signal}"
        case RunFinished():
            return f"Finished: {stopped_words(event.stopped)}"
        case _:
            return "Choosing what to do next"


def _training(history: History, record: TrialRecord) -> str:
    trial = record.trial
    match trial.kind:
        case "trunk":
            return "Training at a constant learning rate (the trunk)"
        case "probe":
            return f"Trying the learning rate {trial.learning_rate:.3g} over a short stretch (a probe)"
        case "move":
            return f"Trying {name_of(history, record)}"
        case "rerun":
            return f"Training {name_of(history, record)}, to see how much is luck"
        case "base":
            return "Scoring the model as it is before training"
        case "average":
            return f"Scoring the {name_of(history, record)}"
        case _ if _judged_at_once(record):
            return f"Scoring {name_of(history, record)}"
        case _ if round_of(history.phase, trial):
            return "Training a control: the same with nothing changed, to compare with"
        case _:
            return "Letting the learning rate go to zero (the cooldown)"


def _next_look(history: History, steps: int, look: bool) -> str:
    speed = seconds_per_step(history.phase)
    about = f", about {format_seconds(float(round(steps * speed)))}" if speed and steps * speed >= 1 else ""
    what = "the next look at validation" if look else "the next checkpoint"
    return f"{steps:,} step{'s' if steps != 1 else ''} to {what}{about}"


def place(plan: Plan, history: History) -> str:
    """`phase 2 of 3, cool`; empty where there is one alone."""
    if plan.phase_count == 1 or not history.phases:
        return ""
    return f"phase {history.phase.started.phase + 1} of {plan.phase_count}, {history.phase.started.name}"
