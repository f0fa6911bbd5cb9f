"""TensorBoard's event files, derived from the journal and replaced whole each time.

The way to the model is one run there, "chosen", whose curves go on from the first step to the last, through every
fork and phase. Every trial is a run of its own beside it, since trials cover the same steps: its curves begin at the
point that it forked from. What belongs to the whole run (budget, baseline, test) stands in the run called ".".
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from multistep.core.evidence.scores import metric_words
from multistep.core.values.events import ACCOUNTS, BaselineScored, Entry, Evaluated, TrialStarted, WindowDone
from multistep.core.values.history import History, TrialRecord, fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.report.tracks import Track, Tracks, tracks_of

FILE_NAME = "events.out.tfevents.0.multistep"
WHOLE_RUN, CHOSEN = ".", "chosen"
Scalars = tuple[str, int, Mapping[str, float]]  # the run, the step, and the numbers by tag


def write_events(directory: RunDirectory) -> None:
    """Write the folder `events`: losses, learning rates, looks, the gap, the budget by account."""
    beside = directory.events.with_name(f".{directory.events.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    entries = list(read_entries(directory.require().journal))
    tracks = tracks_of(entries, fold(entries))
    files: dict[str, _File] = {}
    history, seconds = History(), 0.0
    try:
        for entry in entries:
            history = fold([entry], history)
            seconds = _wall_time(entry, history, seconds)
            for run, step, scalars in (*_scalars(entry, history, tracks), *_on_the_way(entry, history, tracks)):
                if run not in files:
                    files[run] = _File(beside / run, seconds)
                files[run].write(seconds, step, scalars)
    finally:
        for file in files.values():
            file.close()
    shutil.rmtree(directory.events, ignore_errors=True)
    beside.rename(directory.events)


def _scalars(entry: Entry, history: History, tracks: Tracks) -> Iterable[Scalars]:
    """What one entry adds to its trial's run, and to the whole run's."""
    event = entry.event
    match event:
        case TrialStarted():
            yield from _fork(tracks.tracks[event.trial.id], tracks)
        case WindowDone():
            track = tracks.tracks[event.trial]
            point = track.points[len(history.trial(event.trial).done) - 1]
            yield event.trial, round(point.place.step), _trained(event, history.trial(event.trial))
            yield (
                WHOLE_RUN,
                history.steps,
                {f"budget/{name}": history.spent.get(name, 0.0) for name in ACCOUNTS},
            )
        case Evaluated(split="test"):
            yield WHOLE_RUN, history.steps, _named("test", event.scores)
        case Evaluated():
            yield event.trial, _step(event, tracks), _looked(event, history.trial(event.trial))
        case BaselineScored():
            yield WHOLE_RUN, history.steps, _named(f"baseline_{event.split}", event.scores)


def _on_the_way(entry: Entry, history: History, tracks: Tracks) -> Iterable[Scalars]:
    """The same numbers once more, where they belong to the way to the model."""
    event = entry.event
    if not isinstance(event, WindowDone | Evaluated):
        return
    stretch = next((stretch for stretch in tracks.way if stretch.track.id == event.trial), None)
    if stretch is None or (isinstance(event, Evaluated) and event.split == "test"):
        return
    record = history.trial(event.trial)
    if isinstance(event, WindowDone):
        done = len(record.done)
        if done <= len(stretch.points):
            yield CHOSEN, round(stretch.points[done - 1].place.step), _trained(event, record)
    elif not event.sample:
        # Only the leader's: a score after one trial's cooldown is no point of another's curve.
        if stretch is tracks.way[-1]:
            yield CHOSEN, _step(event, tracks), _looked(event, record)
    elif len(record.done) <= len(stretch.points):
        yield CHOSEN, _step(event, tracks), _looked(event, record)


def _fork(track: Track, tracks: Tracks) -> Iterable[Scalars]:
    """The point on its parent's curve that a trial begins at."""
    parent = tracks.tracks.get(track.parent or "")
    point = next((p for p in parent.points if p.place == track.begin), None) if parent else None
    if point is not None and point.loss is not None and track.points:
        scalars = {"train/loss": point.loss}
        if point.look:
            scalars |= _named("validation", point.look.scores)
        yield track.id, round(track.begin.step), scalars


def _step(event: Evaluated, tracks: Tracks) -> int:
    """The step on the trial's path from the run's first step on; the event's own counts from its phase's."""
    track = tracks.tracks[event.trial]
    return round(event.step + tracks.phases[track.phase].step)


def _trained(event: WindowDone, trial: TrialRecord) -> Mapping[str, float]:
    # A window's last rate: at its end a cooldown has reached zero but for one step's share.
    rate = trial.done[-1].window.segments[-1].rates()[-1]
    return {"train/loss": event.progress.loss, "train/learning_rate": rate}


def _looked(event: Evaluated, trial: TrialRecord) -> Mapping[str, float]:
    tag = "validation" if event.sample else "validation_full"
    return {**_named(tag, event.scores), **(_gap(event, trial) if event.sample else {})}


def _named(group: str, scores: Mapping[str, float]) -> Mapping[str, float]:
    """The scores by the tags that group them: `validation/macro F1`."""
    return {f"{group}/{metric_words(name)}": score for name, score in scores.items()}


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
