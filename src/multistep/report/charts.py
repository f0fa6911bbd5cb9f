"""The page's charts: loss, score, learning rate, and the gap between validation and training.

What led to the model is one coloured line from the first step to the last; every other trial is thin and grey until
somebody asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from multistep.core.evidence.metric import Metric
from multistep.core.evidence.scores import Form, form_of, metric_words, width_of
from multistep.core.values.events import Evaluated
from multistep.core.values.history import History, PhaseRecord
from multistep.core.values.judging import loss_of, metric_of
from multistep.engine.result import sibling_control
from multistep.report.plot import (
    FEW_POINTS,
    MOST_POINTS,
    Chart,
    Dot,
    Level,
    Line,
    Part,
    limits_of,
    thinned,
)
from multistep.report.tracks import Place, Point, Stretch, Track, Tracks

MANY = 60  # trials that are drawn in the background; of more, those that came closest to the chosen one
FAR_OFF = 1.0  # times the height of the curves: what lies farther from them is named at the edge
MARKED = 8  # looks, up to which each has a dot of its own
Drawn = tuple[Place, float]


def charts_of(history: History, tracks: Tracks, names: Mapping[str, str]) -> list[Chart]:
    """The charts of a run, in the page's order; none before the first window."""
    if not history.trained:
        return []
    found: list[Chart] = []
    for metric, phases in _groups([(loss_of(p.started), p) for p in history.phases]):
        found.append(_scores(history, tracks, names, metric, phases, training=True))
    judged = [(m, p) for p in history.phases if (m := metric_of(p.started)).name != "loss"]
    for metric, phases in _groups(judged):
        found.append(_scores(history, tracks, names, metric, phases, training=False))
    found.append(_rate(history, tracks, names))
    return found + _gap(history, tracks, names)


def _groups(pairs: Iterable[tuple[Metric, PhaseRecord]]) -> list[tuple[Metric, list[PhaseRecord]]]:
    """Phases that are judged by the same thing in the same unit share a chart."""
    groups: dict[tuple[str, str], tuple[Metric, list[PhaseRecord]]] = {}
    for metric, phase in pairs:
        groups.setdefault((metric.name, metric.unit), (metric, []))[1].append(phase)
    return [group for group in groups.values() if any(t.done for p in group[1] for t in p.trials.values())]


def _scores(
    history: History,
    tracks: Tracks,
    names: Mapping[str, str],
    metric: Metric,
    phases: Sequence[PhaseRecord],
    *,
    training: bool,
) -> Chart:
    numbers = {phase.started.phase for phase in phases}
    way = [stretch for stretch in tracks.way if stretch.track.phase in numbers]
    looks = [(p.place, p.look) for s in way for p in s.points if p.look and _finite(p.look, metric.name)]
    leader = history.trial(history.leader.trial) if history.leader else None
    width = width_of(leader.full.interval) if leader and leader.full else None
    form = form_of(metric, width)
    lines = _background(tracks, names, numbers, metric.name)
    values = [value for line in lines for _, value in line.points if line.look != "probe"]
    if training:
        lines += _by_phase(way, _losses, "training", "train", "training")
    curve = [(place, look.scores[metric.name]) for place, look in looks]
    label = "validation" if len(curve) > 1 else ""
    seen = _by_phase(way, lambda part: _looks(part, metric.name), "validation, sample", "look", label)
    own = all(metric_of(phase.started).name == metric.name for phase in phases)
    known = {place: (look.interval.low, look.interval.high) for place, look in looks}
    bounds = list(known.values())
    if own and all(math.isfinite(v) for pair in bounds for v in pair):
        seen = [replace(line, bounds=[known[place] for place, _ in line.points]) for line in seen]
    else:
        bounds = []
    lines += seen
    dots = [Dot("validation, sample", "look", place, value) for place, value in curve if len(curve) <= MARKED]
    dots += _full(history, tracks, names, numbers, metric.name, form)
    levels = _levels(history, numbers, metric.name)
    values += [value for line in lines if line.strong for _, value in line.points]
    always = [dot.value for dot in dots if dot.look == "mark"]
    always += [v for pair in bounds[-1:] for v in pair]  # how far noise reaches is worth seeing
    parts = _parts(history, tracks, numbers)
    where = "" if len(numbers) == len(history.phases) else f" (phase {', '.join(str(n + 1) for n in sorted(numbers))})"
    unit = form.unit
    title = metric_words(metric.name)
    title = title[:1].upper() + title[1:] + where
    said = f"{title}, {history.steps:,} steps"
    if curve:
        said += f"; the looks at validation went from {form.of(curve[0][1])} to {form.of(curve[-1][1])}"
    return Chart(
        f"{metric.name}-{min(numbers)}",
        f"{title}{', ' if unit else ''}{unit}",
        said,
        form,
        lines,
        levels,
        dots,
        parts,
        pixels=250 if training else 210,
        rising=metric.goal == "maximize",
        limits=_limits(values + [dot.value for dot in dots], always, levels, rising=metric.goal == "maximize"),
    )


def _limits(
    values: Sequence[float], always: Sequence[float], levels: Sequence[Level], *, rising: bool
) -> tuple[float, float]:
    """Limits of the curves, and of what they are compared with where that is not so far off as to flatten them."""
    low, high = limits_of(values, rising=rising, always=always)
    reach = FAR_OFF * (high - low)
    near = [level.value for level in levels if low - reach <= level.value <= high + reach]
    return limits_of([*values, *near], rising=rising, always=[*always, *near])


def _finite(look: Evaluated, name: str) -> bool:
    return name in look.scores and math.isfinite(look.scores[name])


def _by_phase(
    way: Sequence[Stretch], drawn: Callable[[Sequence[Stretch]], list[Drawn]], name: str, look: str, label: str
) -> list[Line]:
    """A line for each phase, since another phase may have another task; the last one has the label."""
    phases = dict.fromkeys(stretch.track.phase for stretch in way)
    parts = [drawn([stretch for stretch in way if stretch.track.phase == phase]) for phase in phases]
    lines = [Line(name, look, thinned(points, MOST_POINTS)) for points in parts if points]
    return [*lines[:-1], replace(lines[-1], label=label)] if lines else []


def _looks(way: Sequence[Stretch], score: str) -> list[Drawn]:
    return [
        (p.place, p.look.scores[score]) for stretch in way for p in stretch.points if p.look and _finite(p.look, score)
    ]


def _losses(way: Sequence[Stretch]) -> list[Drawn]:
    # A window's loss is a mean over its steps, so it stands at their middle.
    return [(p.middle, p.loss) for stretch in way for p in stretch.points if p.loss is not None]


def _background(tracks: Tracks, names: Mapping[str, str], numbers: set[int], score: str) -> list[Line]:
    """The looks of what did not lead to the model, each line from where it leaves the one that it came from."""
    found = []
    close = closest(tracks)
    for track, points, _ in tracks.rest():
        if track.phase not in numbers or track.id not in close:
            continue
        points = (*_before(tracks, track, points), *points)
        drawn = [(p.place, p.look.scores[score]) for p in points if p.look and _finite(p.look, score)]
        if drawn:
            look = "probe" if track.record.trial.kind == "probe" else "faint"
            found.append(Line(names.get(track.id, track.id), look, thinned(drawn, FEW_POINTS), trial=track.id))
    return found


def closest(tracks: Tracks) -> set[str]:
    """The trials that are drawn: all, or of more than MANY those with the best verdicts' numbers."""
    if len(tracks.tracks) <= MANY:
        return set(tracks.tracks)

    def worth(track: Track) -> tuple[bool, float]:
        verdict = track.record.verdict
        gain = verdict.improvement if verdict and verdict.improvement is not None else -math.inf
        return (track.id in way, gain if not math.isnan(gain) else -math.inf)

    way = {stretch.track.id for stretch in tracks.way}
    return {track.id for track in sorted(tracks.tracks.values(), key=worth, reverse=True)[:MANY]}


def _before(tracks: Tracks, track: Track, points: Sequence[Point]) -> tuple[Point, ...]:
    """The point that a line begins at: on its own trial's way, or on its parent's, where it forked."""
    if len(points) < len(track.points):
        return (track.points[len(track.points) - len(points) - 1],)
    parent = tracks.tracks.get(track.parent or "")
    if parent is None or track.record.trial.kind == "probe":
        return ()
    return tuple(p for p in parent.points if p.place == track.begin)


def _full(
    history: History, tracks: Tracks, names: Mapping[str, str], numbers: set[int], score: str, form: Form
) -> list[Dot]:
    found = []
    close = closest(tracks)
    for track in tracks.tracks.values():
        if (
            track.id not in close
            or track.full is None
            or track.phase not in numbers
            or not _finite(track.full[1], score)
        ):
            continue
        place, look = track.full
        value = look.scores[score]
        chosen = history.leader is not None and history.leader.trial == track.id
        label = f"chosen {form.of(value)}" if chosen else ""
        name = f"{names.get(track.id, track.id)}, all of validation"
        found.append(Dot(name, "mark" if chosen else "faint", place, value, track.id, label))
    return sorted(found, key=lambda dot: dot.look == "mark")


def _levels(history: History, numbers: set[int], score: str) -> list[Level]:
    """What the last phase's score is held against: the baseline, and the model before training."""
    if len(history.phases) - 1 not in numbers:
        return []
    found = []
    baseline = next((b for b in history.baselines if score in b.scores and math.isfinite(b.scores[score])), None)
    if baseline:
        found.append(Level("baseline", "baseline", baseline.scores[score]))
    if history.base and history.base.full and _finite(history.base.full, score):
        found.append(Level("untrained", "base", history.base.full.scores[score]))
    return found


def _parts(history: History, tracks: Tracks, numbers: set[int] | None = None) -> list[Part]:
    """The phases, where there are several, and the trials that led to the model."""
    found = []
    if len(history.phases) > 1:
        ends = [*tracks.phases[1:], tracks.end]
        for index, (phase, begin, end) in enumerate(zip(history.phases, tracks.phases, ends, strict=True)):
            name = phase.started.name
            name = name if name == f"phase {index + 1}" else f"{index + 1} {name}"
            found.append(Part(name, begin, end, phase=True))
    for stretch in tracks.way:
        if stretch.points and (numbers is None or stretch.track.phase in numbers):
            falling = [i for i, point in enumerate(stretch.points) if point.falls]
            fall = None
            if falling:
                fall = stretch.points[falling[0] - 1].place if falling[0] else stretch.track.begin
            found.append(Part(_short(stretch.track), stretch.track.begin, stretch.points[-1].place, fall))
    return found


def _short(track: Track) -> str:
    trial = track.record.trial
    plain = "cooldown" if trial.length is None else "unchanged"
    return trial.move or {"control": plain}.get(trial.kind, trial.kind)


def _rate(history: History, tracks: Tracks, names: Mapping[str, str]) -> Chart:
    """The learning rate of every step taken."""
    close = closest(tracks)
    lines = [
        Line(names.get(track.id, track.id), "faint", thinned(rates, FEW_POINTS), trial=track.id)
        for track, points, _ in tracks.rest()
        if (rates := [rate for point in points for rate in point.rates]) and track.id in close
    ]
    own = [rate for stretch in tracks.way for point in stretch.points for rate in point.rates]
    lines.append(Line("learning rate", "train", thinned(own, 2 * MOST_POINTS)))
    highest = max((value for line in lines for _, value in line.points), default=1.0) or 1.0
    parts = _parts(history, tracks)
    said = f"Learning rate over {history.steps:,} steps, at most {highest:.3g}"
    form = Form("learning rate", significant=True)
    return Chart("rate", "Learning rate", said, form, lines, parts=parts, pixels=110, limits=(0.0, 1.06 * highest))


def _gap(history: History, tracks: Tracks, names: Mapping[str, str]) -> list[Chart]:
    """Validation loss minus training loss at each look; none with fewer than two."""
    found = []
    close = closest(tracks)
    for metric, phases in _groups([(loss_of(p.started), p) for p in history.phases]):
        numbers = {phase.started.phase for phase in phases}
        stretches = [stretch for stretch in tracks.way if stretch.track.phase in numbers]
        way = [g for stretch in stretches for g in gaps(stretch.points)]
        if len(way) < 2:
            continue
        without = _without(history, stretches)
        lines = []
        for track, points, _ in tracks.rest():
            judged = track.record.trial.kind != "probe" and (track.id in close or track.id in without)
            if track.phase in numbers and judged and (drawn := gaps(points)):
                title = names.get(track.id, track.id)
                move = without.get(track.id, "")
                look, label = ("train", f"without {move}") if move else ("faint", "")
                lines.append(Line(title, look, thinned(drawn, FEW_POINTS), trial=track.id, label=label))
        lines.sort(key=lambda line: line.strong)
        label = f"with {' and '.join(dict.fromkeys(without.values()))}" if without else ""
        name = "validation minus training"
        lines += _by_phase(stretches, lambda w: [g for s in w for g in gaps(s.points)], name, "look", label)
        values = [value for line in lines for _, value in line.points]
        said = f"Gap between validation and training loss over steps, at last {form_of(metric).of(way[-1][1])}"
        title = f"Validation loss minus training loss{', ' if form_of(metric).unit else ''}{form_of(metric).unit}"
        limits = limits_of([*values, 0.0])
        found.append(
            Chart(
                f"gap-{min(numbers)}", title, said, form_of(metric), lines,
                parts=_parts(history, tracks, numbers), pixels=150, zero=True, limits=limits,
            )
        )  # fmt: skip
    return found


def _without(history: History, way: Sequence[Stretch]) -> dict[str, str]:
    """The trials that show what would have been without a move on the way to the model: its sibling controls."""
    found = {}
    for stretch in way:
        record = stretch.track.record
        control = sibling_control(history.phases[stretch.track.phase], record) if record.trial.move else None
        if control is not None:
            found[control.trial.id] = record.trial.move or ""
    return found


def gaps(points: Sequence[Point]) -> list[Drawn]:
    """Validation loss minus the mean training loss of the window before, at each look."""
    return [
        (p.place, p.look.scores["loss"] - p.loss)
        for p in points
        if p.look and p.loss is not None and _finite(p.look, "loss")
    ]
