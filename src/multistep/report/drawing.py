"""Drawing: curves as HTML and SVG that fit any width, stand still without a script, and follow it with one.

Lines are SVG that is stretched to the room there is; everything that is read (numbers, names, dots) is HTML beside
it, so that no text shrinks or is cut off on a telephone. The numbers lie in the page as JSON too, for the script
that shows values under the pointer and changes the horizontal axis. There is no plotting library of Python whose
drawings do both in a few kilobytes, without a network and without a script.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from multistep.report.plot import AXIS_NAMES, Chart, Scale, nice
from multistep.report.tracks import AXES, Place

SIZE = 1000  # of a drawing, in its own units
LABEL_PIXELS = 17  # that a line of text takes
GUTTER = 0.8  # of the width: labels of lines that end behind it stand right of the drawing
HALF = 0.5  # of the width: labels of lines that end behind it keep clear of those
MANY_DIGITS = 1e6  # from which on marks of values are written as 1e+6
ToHeight = Callable[[float], float]


def chart_html(chart: Chart, scale: Scale) -> str:
    """The still picture, over steps."""
    low, high = limits = chart.limits

    def y(value: float) -> float:
        return SIZE * (1 - (value - low) / (high - low))

    drawn: list[str] = []
    marks = _value_marks(*limits, percent=chart.form.percent)
    for part in chart.parts:
        if part.fall is not None:
            left, right = SIZE * scale.x(part.fall), SIZE * scale.x(part.end)
            drawn.append(f'<rect class="fall" x="{left:.0f}" width="{right - left:.0f}" y="0" height="{SIZE}"/>')
        elif part.phase and part.begin.step:
            drawn.append(f'<path class="phase" d="M{SIZE * scale.x(part.begin):.0f} 0V{SIZE}"/>')
    drawn += [f'<path class="grid" d="M0 {y(v):.0f}H{SIZE}"/>' for v, _ in marks]
    if chart.zero and low < 0 < high:
        drawn.append(f'<path class="zero" d="M0 {y(0):.0f}H{SIZE}"/>')
    for level in chart.levels:
        drawn.append(f'<path class="{level.look}" d="M0 {y(level.value):.0f}H{SIZE}"/>')
    for index, line in enumerate(chart.lines):
        if line.bounds:
            edge = [(scale.x(p), high_) for (p, _), (_, high_) in zip(line.points, line.bounds, strict=True)]
            edge += [
                (scale.x(p), low_) for (p, _), (low_, _) in reversed([*zip(line.points, line.bounds, strict=True)])
            ]
            drawn.append(f'<path class="band {line.look}" data-b="{index}" d="{_path(edge, y)}Z"/>')
        d = _path([(scale.x(place), value) for place, value in line.points], y)
        trial = f' data-t="{html.escape(line.trial, quote=True)}"' if line.trial else ""
        drawn.append(f'<path class="{line.look}" data-l="{index}"{trial} d="{d}"/>')
    said = html.escape(chart.said, quote=True)
    out = [
        f'<div class="chart" id="chart-{chart.id}">',
        _parts_html(chart, scale),
        f'<div class="plot" style="height:{chart.pixels}px" data-chart="{chart.id}">',
        f'<svg viewBox="0 0 {SIZE} {SIZE}" preserveAspectRatio="none" role="img" aria-label="{said}">'
        f"{''.join(drawn)}</svg>",
    ]
    out += [f'<span class="y" style="top:{y(v) / 10:.1f}%">{text}</span>' for v, text in marks]
    for number, (x, text) in enumerate(scale.marks("step")):
        out.append(f'<span class="x{" o" if number % 2 else ""}" style="left:{100 * x:.1f}%">{text}</span>')
    for number, dot in enumerate(chart.dots):
        trial = f' data-t="{html.escape(dot.trial, quote=True)}"' if dot.trial else ""
        top = min(max(y(dot.value) / 10, 0), 100)
        at = f"left:{100 * scale.x(dot.place):.1f}%;top:{top:.1f}%"
        out.append(f'<i class="dot {dot.look}" data-d="{number}"{trial} style="{at}"></i>')
    out += _labels(chart, scale, lambda value: y(value) / SIZE)
    out.append('<span class="axis">steps</span></div></div>')
    return "".join(out)


def _path(points: Iterable[tuple[float, float]], y: ToHeight) -> str:
    return "M" + "L".join(f"{SIZE * x:.0f} {max(-9 * SIZE, min(9 * SIZE, y(value))):.0f}" for x, value in points)


def _parts_html(chart: Chart, scale: Scale) -> str:
    """The names of phases, and below them those of the trials that led to the model, each as wide as it was long."""
    rows = ([p for p in chart.parts if p.phase], [p for p in chart.parts if not p.phase])
    out = ""
    for kind, row in zip(("phases", "trials"), rows, strict=True):
        cells = ""
        for part, after in zip(row, [*row[1:], None], strict=False):
            # A name has the room up to the next one.
            left, right = 100 * scale.x(part.begin), 100 * (scale.x(after.begin) if after else 1.0)
            name = html.escape(part.name)
            cells += f'<span style="left:{left:.1f}%;width:{right - left:.1f}%" title="{name}">{name}</span>'
        out += f'<div class="parts {kind}">{cells}</div>' if cells else ""
    return out


def _labels(chart: Chart, scale: Scale, y: ToHeight) -> list[str]:
    """What lines are, written where they end; one below the other where they would overlap."""
    wanted: list[tuple[float, float, str, str, str]] = []
    for index, line in enumerate(chart.lines):
        if line.label and line.points:
            place, value = line.points[-1]
            wanted.append((y(value), scale.x(place), line.label, line.look, f"l{index}"))
    for level in chart.levels:
        beyond = " ↑" if y(level.value) < 0 else " ↓" if y(level.value) > 1 else ""
        wanted.append((y(level.value), 1.0, f"{level.name} {chart.form.of(level.value)}{beyond}", level.look, ""))
    for number, dot in enumerate(chart.dots):
        if dot.label:
            wanted.append((y(dot.value), scale.x(dot.place), dot.label, dot.look, f"d{number}"))
    out: list[str] = []
    for early in (True, False):
        # On a narrow page labels beside the drawing stand in it, where they would meet those of its right half.
        group = sorted(label for label in wanted if (label[1] < HALF) is early)
        tops = spread([label[0] * chart.pixels for label in group], chart.pixels)
        for (_, x, text, look, key), top in zip(group, tops, strict=True):
            inside = x < GUTTER
            classes = f"end {look}{' in' if inside else ''}{' late' if inside and not early else ''}"
            at = f"left:{100 * x if inside else 100:.1f}%;top:{100 * top / chart.pixels:.1f}%"
            out.append(f'<span class="{classes}" data-k="{key}" style="{at}">{html.escape(text)}</span>')
    return out


def spread(tops: Sequence[float], height: float) -> list[float]:
    """Sorted positions in pixels, moved as little as keeps labels apart and within the height."""
    placed: list[float] = []
    for top in tops:
        placed.append(max(min(max(top, 0.0), height), placed[-1] + LABEL_PIXELS if placed else 0.0))
    limit = height - LABEL_PIXELS / 2  # below it stand the numbers of the axis
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - LABEL_PIXELS
    return placed


def _value_marks(low: float, high: float, *, percent: bool) -> list[tuple[float, str]]:
    if percent:
        return [(value / 100, f"{text}%") for value, text in _value_marks(100 * low, 100 * high, percent=False)]
    pace = nice((high - low) / 4)
    first = math.ceil(low / pace - 1e-9)
    values = [i * pace for i in range(first, math.floor(high / pace + 1e-9) + 1)]
    if max(map(abs, values), default=0.0) >= MANY_DIGITS:
        return [(v, _in_few_digits(v)) for v in values]  # in full they would be cut off at the left of a narrow page
    decimals = max(0, -math.floor(math.log10(pace) + 1e-9))
    decimals += 1 if round(pace * 10**decimals, 6) != round(pace * 10**decimals) else 0
    if decimals > 4:
        return [(v, f"{v:.2g}") for v in values]
    return [(v, f"{v:,.{decimals}f}") for v in values]


def _in_few_digits(value: float) -> str:
    """`1.5e+9` of 1,500,000,000: no digit of a mark is left out, since marks have few."""
    if value == 0:
        return "0"
    places = math.floor(math.log10(abs(value)) + 1e-9)
    return f"{value / 10**places:.6g}e+{places}" if places >= 0 else f"{value:.6g}"


# For the script ---------------------------------------------------------------------------------------


def data_of(charts: Sequence[Chart], scale: Scale, names: Mapping[str, str]) -> str:
    """The numbers of a page's charts as JSON that may stand within a script element; `names` are trials' titles."""
    axes = {
        axis: {"end": _short(scale.end.on(axis)), "name": AXIS_NAMES[axis], "marks": scale.marks(axis)} for axis in AXES
    }
    found = {"axes": axes, "names": dict(names), "charts": {chart.id: _chart_data(chart) for chart in charts}}
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _chart_data(chart: Chart) -> dict[str, Any]:
    return {
        "low": chart.limits[0],
        "high": chart.limits[1],
        "percent": chart.form.percent,
        "finer": chart.form.finer,
        "digits": chart.form.significant,
        "bounded": chart.form.bounded,
        "lines": [
            {
                "n": line.name,
                "k": line.look,
                "t": line.trial,
                **_places([place for place, _ in line.points]),
                "y": [_short(value) for _, value in line.points],
                **({"b": [[_short(low), _short(high)] for low, high in line.bounds]} if line.bounds else {}),
            }
            for line in chart.lines
        ],
        "levels": [{"n": level.name, "k": level.look, "y": _short(level.value)} for level in chart.levels],
        "dots": [
            {"n": dot.name, "k": dot.look, "t": dot.trial, **_places([dot.place]), "y": _short(dot.value)}
            for dot in chart.dots
        ],
        "parts": [
            {"p": part.phase, **_places([part.begin, part.end, *([part.fall] if part.fall else [])])}
            for part in chart.parts
        ],
    }


def _places(places: Sequence[Place]) -> dict[str, list[float]]:
    digits = {"step": 1, "epoch": 4, "train": 2, "clock": 2}
    return {axis: [_plain(round(place.on(axis), digits[axis])) for place in places] for axis in AXES}


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value


def _short(value: float) -> float:
    return _plain(float(f"{value:.6g}"))
