"""What a chart holds: lines, levels to compare with, dots, parts of the way; its axes and its limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multistep.core.evidence.scores import Form
from multistep.core.values.units import format_seconds
from multistep.report.tracks import Axis, Place

AXIS_NAMES: Mapping[Axis, str] = {
    "step": "steps",
    "epoch": "epochs",
    "train": "time of training",
    "clock": "time of the whole run",
}
MOST_POINTS, FEW_POINTS = 160, 14  # of a line that is looked at, and of one in the background
SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Line:
    """A curve. `look` says how it is drawn: train, look, faint, probe, or run1 to run6 for several runs."""

    name: str
    look: str
    points: Sequence[tuple[Place, float]]
    bounds: Sequence[tuple[float, float]] = ()  # the 95% interval at each point
    trial: str | None = None
    label: str = ""  # written at its end

    @property
    def strong(self) -> bool:
        return self.look not in ("faint", "probe")


@dataclass(frozen=True)
class Level:
    """A score to compare with, all along the axis."""

    name: str
    look: str  # baseline or base
    value: float


@dataclass(frozen=True)
class Dot:
    """A score on the whole validation split."""

    name: str
    look: str  # mark, faint, or run1 to run6
    place: Place
    value: float
    trial: str | None = None
    label: str = ""


@dataclass(frozen=True)
class Part:
    """A named part of the way, from place to place; `fall` is where the learning rate begins to fall."""

    name: str
    begin: Place
    end: Place
    fall: Place | None = None
    phase: bool = False


@dataclass(frozen=True)
class Chart:
    id: str
    title: str
    said: str  # for those who do not see it
    form: Form
    lines: Sequence[Line]
    levels: Sequence[Level] = ()
    dots: Sequence[Dot] = ()
    parts: Sequence[Part] = ()
    pixels: int = 230
    rising: bool = False  # more is better
    zero: bool = False  # the axis begins at zero, or zero has a line of its own
    limits: tuple[float, float] = field(default=(0.0, 1.0))


@dataclass(frozen=True)
class Scale:
    """The horizontal axis of all charts of a page: its length and its marks, in four units."""

    end: Place

    def x(self, place: Place, axis: Axis = "step") -> float:
        """From 0 to 1."""
        length = self.end.on(axis)
        return min(1.0, place.on(axis) / length) if length > 0 else 0.0

    def marks(self, axis: Axis) -> list[tuple[float, str]]:
        """Where numbers stand, as a share of the width, and what they say."""
        end = self.end.on(axis)
        if not end > 0:
            return []
        times = axis in ("train", "clock")
        pace = next((s for s in SECONDS if end / s <= 6.5), SECONDS[-1]) if times else nice(end / 5)
        if axis == "step":
            pace = max(1.0, pace)
        count = int(end / pace + 1e-9)
        return [(i * pace / end, format_seconds(i * pace) if times else f"{i * pace:,.6g}") for i in range(count + 1)]


def nice(least: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is so large."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * 0.999)


def thinned(points: Sequence[Any], most: int) -> list[Any]:
    """So many of the points that more could not be told apart, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[i] for i in sorted({round(i * (len(points) - 1) / (most - 1)) for i in range(most)})]


def limits_of(values: Iterable[float], *, rising: bool = False, always: Iterable[float] = ()) -> tuple[float, float]:
    """Limits that neither one explosion nor the untrained model's first scores can blow up; `rising` is better.

    What stands in `always` is within them.
    """
    sign = -1.0 if rising else 1.0
    held = [sign * value for value in always if math.isfinite(value)]
    finite = sorted([sign * value for value in values if math.isfinite(value)] + held)
    if not finite:
        return (0.0, 1.0)
    best, worst = finite[0], finite[-1]
    usual = finite[int(0.95 * (len(finite) - 1))]
    if worst - best > 3 * (usual - best) > 0:
        worst = max([usual + 0.5 * (usual - best), *held])
    room = 0.08 * (worst - best) or 0.05 * abs(worst) or 1.0
    low, high = sorted((sign * (best - room), sign * (worst + room)))
    return low, high
