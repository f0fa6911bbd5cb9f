"""The chart of the attempts: by how much each was better than the plain run, and what was asked of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multistep.core.values.history import History
from multistep.core.values.judging import metric_of
from multistep.engine.result import trial_entry
from multistep.report.svg import INK, MARK, MUTED, in_font, svg, text_width
from multistep.report.words import number, signed, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.25  # inches
WORST = 1.5  # times the best that was reached or asked: what is worse is cut off, or it would squeeze the rest


def attempts_chart(history: History) -> str:
    """Each attempt's improvement with its interval, the bound asked of it, proven ones filled; empty without any."""
    if not history.phases:
        return ""
    entries = [trial_entry(phase, record) for phase in history.phases for record in phase.trials.values()]
    rows = [entry for entry in entries if entry["improvement"] and math.isfinite(entry["improvement"]["score"])]
    if not rows:
        return ""
    unit = metric_of(history.phase.started).unit
    names = [_name(entry) for entry in rows]

    def draw(axes: Sequence[Axes]) -> None:
        low, high = _limits(rows)
        axes[0].set_xlim(low, high)
        axes[0].set_ylim(len(rows) - 0.4, -0.6)
        axes[0].axvline(0, color=INK, linewidth=0.8)
        for y, entry in enumerate(rows):
            _draw_row(axes[0], y, entry, low)
        axes[0].set_yticks(range(len(rows)), names)
        axes[0].tick_params(axis="y", length=0)
        axes[0].grid(axis="y", visible=False)
        axes[0].set_xlabel(f"improvement over the plain run ({unit}); right is better")

    kept = sum(bool(entry["proven"]) for entry in rows)
    said = f"Improvement of {len(rows)} attempts over the plain run, {kept} proven: " + ", ".join(
        f"{name} {signed(entry['improvement']['score'])}" for name, entry in zip(names, rows, strict=True)
    )
    left = 0.25 + max(map(text_width, names)) / 72
    return svg("attempts", said, draw, heights=[0.65 + ROW * len(rows)], left=left)


def _name(entry: dict[str, Any]) -> str:
    return in_font(title(entry).removeprefix("move "))


def _draw_row(ax: Axes, y: int, entry: dict[str, Any], edge: float) -> None:
    found, kept = entry["improvement"], bool(entry["proven"])
    colour = MARK if kept else MUTED
    low, high = (found[side] if found[side] is not None else found["score"] for side in ("low", "high"))
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([max(low, edge), max(high, edge)], [y, y], color=colour, linewidth=1.6 if kept else 1.1)
    if found["score"] >= edge:
        face = colour if kept else "none"
        ax.plot([found["score"]], [y], "o", markerfacecolor=face, markeredgecolor=colour, markersize=6, zorder=4)
    if low < edge:
        ax.plot([edge], [y], "<", color=colour, markersize=5, clip_on=False)
        if found["score"] < edge:
            ax.annotate(number(found["score"]), (edge, y), (6, 3), textcoords="offset points", color=MUTED)
    least = entry["demanded"]["improvement"] if entry["demanded"] else None
    if least is not None and math.isfinite(least):
        ax.plot([least], [y], "|", color=INK, markersize=11, markeredgewidth=1.6, zorder=5)


def _limits(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    bounds = [entry["improvement"][side] for entry in rows for side in ("score", "low", "high")]
    asked = [entry["demanded"]["improvement"] for entry in rows if entry["demanded"]]
    finite = [value for value in (*bounds, *asked, 0.0) if value is not None and math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high > 0:
        low = max(low, -WORST * high)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
