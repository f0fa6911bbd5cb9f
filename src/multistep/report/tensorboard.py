"""TensorBoard's event files, derived from the journal and replaced whole each time.

Every trial is a run of its own there, since trials cover the same steps; what belongs to the whole run
(budget, baseline, test) stands in the run called ".".
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from multistep.core.values.events import ACCOUNTS, BaselineScored, Entry, Evaluated, WindowDone
from multistep.core.values.history import History, TrialRecord, fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory

FILE_NAME = "events.out.tfevents.0.multistep"
WHOLE_RUN = "."


def write_events(directory: RunDirectory) -> None:
    """Write the folder `events`: losses, learning rates, looks, the gap, the budget by account."""
    beside = directory.events.with_name(f".{directory.events.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    files: dict[str, _File] = {}
    history, seconds = History(), 0.0
    try:
        for entry in read_entries(directory.require().journal):
            history = fold([entry], history)
            seconds = _wall_time(entry, history, seconds)
            for run, step, scalars in _scalars(entry, history):
                if run not in files:
                    files[run] = _File(beside / run, seconds)
                files[run].write(seconds, step, scalars)
    finally:
        for file in files.values():
            file.close()
    shutil.rmtree(directory.events, ignore_errors=True)
    beside.rename(directory.events)


def _scalars(entry: Entry, history: History) -> Iterable[tuple[str, int, Mapping[str, float]]]:
    """What one entry adds: the trial (or the whole run), the step, and the numbers by tag."""
    event = entry.event
    match event:
        case WindowDone():
            trial = history.trial(event.trial)
            # A window's last rate: at its end a cooldown has reached zero but for one step's share.
            rate = trial.done[-1].window.segments[-1].rates()[-1]
            yield event.trial, trial.step, {"train/loss": event.progress.loss, "train/learning_rate": rate}
            yield (
                WHOLE_RUN,
                history.steps,
                {f"budget/{name}": history.spent.get(name, 0.0) for name in ACCOUNTS},
            )
        case Evaluated(split="test"):
            yield WHOLE_RUN, history.steps, {f"test/{name}": score for name, score in event.scores.items()}
        case Evaluated():
            tag = "validation" if event.sample else "validation_full"
            scores = {f"{tag}/{name}": score for name, score in event.scores.items()}
            yield (
                event.trial,
                event.step,
                {**scores, **(_gap(event, history.trial(event.trial)) if event.sample else {})},
            )
        case BaselineScored():
            scores = {f"baseline_{event.split}/{name}": score for name, score in event.scores.items()}
            yield WHOLE_RUN, history.steps, scores


def _gap(look: Evaluated, trial: TrialRecord) -> Mapping[str, float]:
    progress = trial.done[-1].progress
    return {"gap": look.scores["loss"] - progress.loss} if progress and "loss" in look.scores else {}


def _wall_time(entry: Entry, history: History, before: float) -> float:
    """Seconds since 1970; under an injected clock, which stamps nothing, the budget clock's seconds."""
    if not entry.at:
        return history.seconds
    return max(before, datetime.fromisoformat(entry.at).timestamp())


class _File:
    """One event file, with a name that does not change from machine to machine."""

    def __init__(self, folder: Path, wall_time: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        self._event, self._summary = Event, Summary
        self._records = RecordWriter((folder / FILE_NAME).open("wb"))
        self._records.write(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())

    def write(self, wall_time: float, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = self._event(wall_time=wall_time, step=step, summary=self._summary(value=values))
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._records.close()
