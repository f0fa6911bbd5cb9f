"""A run told line by line, where there is no terminal to draw on."""

from __future__ import annotations

from multistep.core.choice.windows import left_by_curve
from multistep.core.evidence.scores import full_score, rate_words, with_bounds
from multistep.core.values.events import (
    BaselineScored,
    Entry,
    Evaluated,
    Fitted,
    GuardScored,
    LaneLost,
    LanesOpened,
    MovesEnded,
    PhaseReused,
    PhaseStarted,
    ReplayDiffered,
    RunFinished,
    RunInterrupted,
    RunResumed,
    ShipDecided,
    StabilityRead,
    TrialStarted,
    VerdictGiven,
    WindowDone,
)
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import guard_metric_of, metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.units import format_seconds
from multistep.report.plainly import name_of, outcome, short_name
from multistep.report.state import stopped_words
from multistep.report.words import moves_ended_sentence, reused_sentence

INDENT = " " * 9  # as wide as the time before a line
LOOK_SECONDS = 5.0  # at least, from one look that is told to the next: a fast run has several a second


def is_look(entry: Entry, history: History) -> bool:
    """Whether an entry is one look of many, which may be left out where they come fast; a probe has one alone."""
    event = entry.event
    if not isinstance(event, Evaluated) or not event.sample or event.split == "test":
        return False
    return history.trial(event.trial).trial.kind != "probe"


def plain_line(plan: Plan, entry: Entry, history: History) -> str | None:
    """What a log says of an entry; None where it is not worth a line. Only a phase's beginning takes several lines."""
    event = entry.event
    match event:
        case PhaseStarted():
            return _phase(plan, event, history)
        case TrialStarted():
            where = f"lane {entry.lane}, " if entry.lane else ""
            return f"{where}{name_of(history, history.trial(event.trial.id))}: {event.reason}"
        case LanesOpened() if event.lanes:
            return f"trials side by side in {len(event.lanes)} lanes: {', '.join(event.lanes)}"
        case LaneLost():
            return f"lane {event.lane}: its process ended early ({event.reason}); another one goes on"
        case WindowDone() if not event.progress.finite:
            step = history.trial(event.trial).step
            return f"{short_name(history, event.trial)}: the training loss is not finite after step {step:,}"
        case Evaluated(split="test"):
            of = ", before training" if history.trial(event.trial).trial.kind == "base" else ""
            return f"test{of}: {with_bounds(metric_of(history.phase.started), event.interval)}"
        case Evaluated(sample=True):
            return _look(history, history.trial(event.trial), event)
        case GuardScored():
            guard = history.phase.started.guard
            if guard is None:
                return None
            score = with_bounds(guard_metric_of(guard), event.interval)
            return f"{short_name(history, event.trial)}, what must not be forgotten ({guard.data}): {score}"
        case StabilityRead() if left_by_curve(plan, history.trial(event.trial)):
            left = f"{short_name(history, event.trial)} is left at step {event.step:,}"
            return f"{left}, {event.stability.value}: {event.reason}"
        case VerdictGiven():
            score = f"{with_bounds(metric_of(history.phase.started), event.interval)}; " if event.interval else ""
            return f"{short_name(history, event.trial)}: {score}{outcome(history, history.trial(event.trial))}"
        case MovesEnded():
            return moves_ended_sentence(event.reason)
        case PhaseReused():
            return reused_sentence(plan.phase(event.phase).name, event.run, event.key)
        case ShipDecided():
            return event.reason
        case BaselineScored():
            score = with_bounds(metric_of(history.phase.started), event.interval)
            return f"baseline ({event.name}), {event.split}: {score}"
        case RunResumed():
            # The entry's own time is that of this process, which opened its data and weights; what a kill lost is not.
            return f"going on; {format_seconds(history.seconds - sum(entry.spent.values()))} were spent before"
        case RunInterrupted():
            return f"stopped by {event.signal}"
        case Fitted():
            return f"{short_name(history, event.trial)}: {event.fit.reason}"
        case ReplayDiffered():
            name = short_name(history, event.trial)
            return f"{name}: steps that were repeated gave the loss {event.repeated:.6g} instead of {event.loss:.6g}"
        case RunFinished():
            took = f"{history.steps:,} step{'s' if history.steps != 1 else ''} in {format_seconds(history.seconds)}"
            return f"finished ({stopped_words(event.stopped)}): {took}"
        case _:
            return None


def _phase(plan: Plan, event: PhaseStarted, history: History) -> str:
    """What was understood, a line each."""
    facts = event.facts
    rows = facts.understood.lines()
    notes = facts.understood.notes if rows else facts.notes
    rows = rows or (("model", f"{facts.description}; {facts.parameters:,} parameters"), ("device", facts.device))
    where = f"phase {event.phase + 1} of {plan.phase_count}, {event.name}"
    listed = [f"{name:10}  {said}" for name, said in (*rows, *(("note", note) for note in notes))]
    return f"{where}:" + "".join(f"\n{INDENT}{line}" for line in listed)


def _look(history: History, record: TrialRecord, look: Evaluated) -> str:
    """`step 640, epoch 2.3: accuracy 79.2%, training loss 0.321, 412 examples/s`."""
    phase = history.phase
    facts, window = phase.started.facts, record.done[-1] if record.done else None
    where = f"step {look.step:,}"
    if record.trial.kind not in ("trunk", "control"):
        where = f"{short_name(history, look.trial)}, {where}"
    said = [f"validation {full_score(metric_of(phase.started), look.interval.score)}"]
    if window and window.progress:
        where += f", epoch {rate_words(record.step * (record.trial.recipe.batch_size or 1) / facts.train_examples)}"
        said.append(f"training loss {window.progress.loss:.3f}")
        if window.train_seconds > 0:
            tokens = "token" in facts.loss_unit
            seen = window.progress.tokens if tokens else window.progress.examples
            said.append(f"{rate_words(seen / window.train_seconds)} {'tokens' if tokens else 'examples'}/s")
    return f"{where}: {', '.join(said)}"
