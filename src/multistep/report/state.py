"""Where a run stands: finished, failed, at work or left alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from multistep.core.values.events import Entry, RunInterrupted
from multistep.core.values.history import History
from multistep.engine.result import trial_entry
from multistep.engine.rundir import RunDirectory
from multistep.report.words import clean, title

State = Literal["finished", "failed", "running", "unfinished"]
STOPPED: Mapping[str, str] = {
    "budget": "the budget is spent",
    "usual": "pretrained weights had their usual epochs",
    "length": "the planned length is trained",
    "stable": "going on would bring nothing more",
    "overfitting": "it began to overfit",
    "diverged": "training diverged",
    "undecided": "nothing more was expected of going on",
    "moves": "every move was tried",
}
ALIVE_SECONDS = 10.0  # a heartbeat older than this belongs to a process that is gone


def state_of(directory: RunDirectory, history: History, entries: Sequence[Entry]) -> State:
    """What a run is doing, as far as its journal and its heartbeat tell."""
    if history.finished:
        return "finished"
    if has_failed(history):
        return "failed"
    stopped = bool(entries) and isinstance(entries[-1].event, RunInterrupted)  # whose heartbeat may still be there
    return "running" if not stopped and _alive(directory) else "unfinished"


def has_failed(history: History) -> bool:
    """Whether a phase ended without anything that another could go on from."""
    return bool(history.phases) and history.phase.finished is not None and history.phase.finished.head is None


def _alive(directory: RunDirectory) -> bool:
    try:
        return time.time() - directory.heartbeat.stat().st_mtime < ALIVE_SECONDS
    except OSError:
        return False


def stopped_words(stopped: str) -> str:
    """Why a run or a phase ended, as a clause."""
    return STOPPED.get(stopped, stopped)


def where_it_stands(history: History, phases: int) -> str:
    """The place that a run has come to, in words; `phases` is how many the plan has."""
    if history.finished:
        return f"finished ({stopped_words(history.finished.stopped)})"
    if not history.phases:
        return "before its first phase"
    phase = history.phase
    place = f"phase {phase.started.phase + 1} of {phases} ({clean(phase.started.name)})"
    if has_failed(history):
        return f"{place} diverged, and no checkpoint of it could be evaluated"
    if phase.finished:
        last = phase.started.phase + 1 == phases
        return f"{place} is done; " + ("the test split and the export are to come" if last else "the next is to come")
    if (trial := phase.unfinished) is None:
        return f"{place}, between two trials"
    return f"{place}, {title(trial_entry(phase, trial))}, step {trial.step}"
