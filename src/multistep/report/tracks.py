"""The curves of a run as numbers: where each trial stands on each of the axes that a page can show.

A trial goes on from the checkpoint that it forked from, so its steps, epochs and seconds do, too; a phase goes on
from the checkpoint that the one before ended with. What leads to the model is one line from the first step on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from multistep.core.values.events import Entry, Evaluated, RunResumed, TrialStarted, WindowDone
from multistep.core.values.history import History, PhaseRecord, TrialRecord, WindowRecord

Axis = Literal["step", "epoch", "train", "clock"]
AXES: tuple[Axis, ...] = ("step", "epoch", "train", "clock")
RATE_POINTS = 12  # of a curved stretch of the learning rate


@dataclass(frozen=True)
class Place:
    """Where a point stands: steps and epochs on its path, seconds of training on it, and the budget's clock."""

    step: float = 0.0
    epoch: float = 0.0
    train: float = 0.0
    clock: float = 0.0

    def on(self, axis: Axis) -> float:
        return float(getattr(self, axis))

    def between(self, other: Place, share: float) -> Place:
        """The place so far on the way to the other, `share` from 0 to 1."""
        return Place(*(self.on(axis) + share * (other.on(axis) - self.on(axis)) for axis in AXES))


@dataclass(frozen=True)
class Point:
    """The end of a window: the mean training loss over it (which stands at its middle), and the look, if any."""

    place: Place
    middle: Place
    own_step: int  # of the phase
    loss: float | None = None
    rates: tuple[tuple[Place, float], ...] = ()
    falls: bool = False  # whether the rate is on its way to zero
    look: Evaluated | None = None


@dataclass(frozen=True)
class Track:
    """One trial's way: where it begins, its windows, and its score on the whole validation split."""

    phase: int
    record: TrialRecord
    begin: Place
    parent: str | None  # the trial whose checkpoint it forked from
    points: tuple[Point, ...] = ()
    full: tuple[Place, Evaluated] | None = None

    @property
    def id(self) -> str:
        return self.record.trial.id

    @property
    def end(self) -> Place:
        return self.points[-1].place if self.points else self.begin


@dataclass(frozen=True)
class Stretch:
    """A part of the way to the model: a trial, and its points up to where the next one forks from it."""

    track: Track
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tracks:
    """Every trial's track, the way to the model, where phases begin, and where the longest line ends on each axis."""

    tracks: dict[str, Track] = field(default_factory=dict)
    way: tuple[Stretch, ...] = ()
    phases: tuple[Place, ...] = ()

    @property
    def end(self) -> Place:
        return farthest(track.end for track in self.tracks.values())

    @property
    def way_end(self) -> Place:
        """Where the way to the model ends, on each axis."""
        return farthest(stretch.points[-1].place for stretch in self.way if stretch.points)

    def rest(self) -> Iterator[tuple[Track, tuple[Point, ...], Place]]:
        """What did not lead to the model: each trial's points off the way, and the place where they leave it."""
        taken = {stretch.track.id: len(stretch.points) for stretch in self.way}
        for track in self.tracks.values():
            count = taken.get(track.id, 0)
            if count < len(track.points) or (not track.points and track.id not in taken):
                yield track, track.points[count:], track.points[count - 1].place if count else track.begin


def farthest(places: Iterable[Place]) -> Place:
    """The farthest that any of the places lies, on each axis; the beginning without any."""
    known = list(places) or [Place()]
    return Place(*(max(place.on(axis) for place in known) for axis in AXES))


def tracks_of(entries: Sequence[Entry], history: History) -> Tracks:
    """The tracks of a run; `history` is the fold of `entries`."""
    began, windows, full = _clocks(entries)
    tracks: dict[str, Track] = {}
    at: dict[str, Place] = {}  # by checkpoint
    makers: dict[str, str] = {}
    starts: list[Place] = []
    start = Place()
    for phase in history.phases:
        starts.append(start)
        for record in phase.trials.values():
            trial = record.trial
            froms = trial.of or ((trial.start,) if trial.start else ())
            known = [name for name in froms if name in at]
            origin = max(known, key=lambda name: at[name].step, default=None)
            begin = at[origin] if origin else start
            points = tuple(_points(phase, record, begin, began.get(trial.id, 0.0), windows.get(trial.id, [])))
            for saved in record.checkpoints:
                at[saved.id] = next((p.place for p in points if p.own_step == saved.step), begin)
                makers[saved.id] = trial.id
            end = points[-1].place if points else begin
            clock = full.get(trial.id, end.clock)
            scored = (Place(end.step, end.epoch, end.train, clock), record.full) if record.full else None
            tracks[trial.id] = Track(
                phase.started.phase, record, begin, makers.get(origin) if origin else None, points, scored
            )
        head = phase.finished.head if phase.finished else None
        ends = [track.end for track in tracks.values() if track.phase == phase.started.phase]
        start = at[head] if head in at else max(ends, key=lambda place: place.step, default=start)
    return Tracks(tracks, tuple(_way(history, tracks, makers)), tuple(starts))


def _clocks(entries: Sequence[Entry]) -> tuple[dict[str, float], dict[str, list[float]], dict[str, float]]:
    """What the budget's clock said when each trial began, at the end of each window, and at the full evaluation."""
    began: dict[str, float] = {}
    windows: dict[str, list[float]] = {}
    full: dict[str, float] = {}
    clock = 0.0
    for entry in entries:
        event = entry.event
        clock += sum(entry.spent.values()) + (event.lost_seconds if isinstance(event, RunResumed) else 0.0)
        match event:
            case TrialStarted():
                began[event.trial.id] = clock
            case WindowDone():
                windows.setdefault(event.trial, []).append(clock)
            case Evaluated(split="validation", sample=False):
                full[event.trial] = clock
    return began, windows, full


def _points(
    phase: PhaseRecord, record: TrialRecord, begin: Place, began: float, clocks: Sequence[float]
) -> Iterator[Point]:
    examples = max(1, phase.started.facts.train_examples)
    before = Place(begin.step, begin.epoch, begin.train, began)
    for window, clock in zip(record.done, clocks, strict=False):
        progress = window.progress
        assert progress is not None, "a window that is done has its progress"
        place = Place(
            before.step + progress.steps,
            before.epoch + progress.examples / examples,
            before.train + window.train_seconds,
            clock,
        )
        finite = progress.loss if math.isfinite(progress.loss) else None
        middle, rates = before.between(place, 0.5), tuple(_rates(window, before, place))
        falls = record.trial.kind not in ("trunk", "probe") and rates[-1][1] < rates[0][1]
        yield Point(place, middle, window.step, finite, rates, falls, window.evaluation)
        before = place


def _rates(record: WindowRecord, before: Place, after: Place) -> Iterator[tuple[Place, float]]:
    """The learning rate at the steps that its shape needs to be drawn."""
    total, done = max(1, record.window.steps), 0
    for segment in record.window.segments:
        rates, last = segment.rates(), segment.steps - 1
        straight = segment.shape in ("constant", "linear", "warmup")
        picked = {0, last} if straight else {round(i * last / RATE_POINTS) for i in range(RATE_POINTS + 1)}
        for index in sorted(picked):
            yield before.between(after, (done + index + 1) / total), rates[index]
        done += segment.steps


def _way(history: History, tracks: dict[str, Track], makers: dict[str, str]) -> Iterator[Stretch]:
    """From the first step to the leader's checkpoint; without a leader, to where the run stands now."""
    name, checkpoint = _goal(history)
    found: list[Stretch] = []
    while name is not None:
        track = tracks[name]
        step = _step_of(track, checkpoint)
        # The leader is the trial's last checkpoint; what another forked from may lie in the middle of a trial.
        found.append(Stretch(track, tuple(p for p in track.points if step is None or p.own_step <= step)))
        trial = track.record.trial
        checkpoint = max(trial.of, key=lambda c: _reach(tracks, makers, c), default=trial.start)
        if checkpoint is None or checkpoint not in makers:
            checkpoint = history.phases[track.phase].started.start
        name = makers.get(checkpoint) if checkpoint else None
        if name is not None and any(stretch.track.id == name for stretch in found):
            break
    return reversed(found)


def _goal(history: History) -> tuple[str | None, str | None]:
    open_now = history.phase.unfinished if history.phases else None
    if history.leader is not None and history.leader.checkpoint:
        return history.leader.trial, history.leader.checkpoint
    if open_now is not None:
        return open_now.trial.id, None
    trials = [t for p in history.phases for t in p.trials.values() if t.trial.kind != "probe" and t.done]
    return (trials[-1].trial.id, None) if trials else (None, None)


def _step_of(track: Track, checkpoint: str | None) -> int | None:
    return next((saved.step for saved in track.record.checkpoints if saved.id == checkpoint), None)


def _reach(tracks: dict[str, Track], makers: dict[str, str], checkpoint: str) -> float:
    return tracks[makers[checkpoint]].end.step if checkpoint in makers else -1.0
