"""The numbers of a run as trackers hold them: which run, at which step and time, by tags, in the journal's order.

The way to the model is one run there, "chosen", whose curves go on from the first step to the last, through every
fork and phase. Every trial is a run of its own beside it, since trials cover the same steps: its curves begin at the
point that it forked from. What belongs to the whole run (budget, baseline, test) stands in the run called ".".

But for "chosen", which changes with what leads, a longer journal only adds to what a shorter one says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from multistep.core.evidence.scores import metric_words
from multistep.core.values.events import ACCOUNTS, BaselineScored, Entry, Evaluated, WindowDone
from multistep.core.values.history import History, TrialRecord, fold
from multistep.report.tracks import Track, Tracks, tracks_of

WHOLE_RUN, CHOSEN = ".", "chosen"
Scalars = tuple[str, int, Mapping[str, float]]  # the run, the step, and the numbers by tag


@dataclass(frozen=True)
class Numbers:
    """What was measured of one run at one step; `seconds` since 1970, as `_wall_time` tells."""

    run: str
    seconds: float
    step: int
    by_tag: Mapping[str, float]


def numbers_of(entries: Sequence[Entry]) -> Iterator[Numbers]:
    """Losses, learning rates, looks, the gap, the budget by account: all that a journal says in numbers."""
    tracks = tracks_of(entries, fold(entries))
    history, seconds = History(), 0.0
    for entry in entries:
        history = fold([entry], history)
        seconds = _wall_time(entry, history, seconds)
        for run, step, by_tag in (*_scalars(entry, history, tracks), *_on_the_way(entry, history, tracks)):
            if by_tag:
                yield Numbers(run, seconds, step, by_tag)


def _scalars(entry: Entry, history: History, tracks: Tracks) -> Iterable[Scalars]:
    """What one entry adds to its trial's run, and to the whole run's."""
    event = entry.event
    match event:
        case WindowDone():
            track = tracks.tracks[event.trial]
            if len(history.trial(event.trial).done) == 1:
                yield from _fork(track, tracks)
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
