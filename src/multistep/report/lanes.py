"""Which trial ran in which lane, and when, of a run whose trials went on side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multistep.core.values.history import History, TrialRecord
from multistep.core.values.units import format_seconds


def lanes_of(history: History) -> list[dict[str, Any]]:
    """Each lane with its trials in order, in seconds of the budget's clock; none where trials followed each other.

    `busy` is the share of the time from the first trial to the end of the last one in which the lane worked.
    """
    trials = [t for p in history.phases for t in p.trials.values() if t.lane]
    if not trials:
        return []
    begin, end = min(t.began for t in trials), max(t.until for t in trials)
    count = max(len(history.lanes), *(t.lane for t in trials))
    names = [*history.lanes, *[""] * (count - len(history.lanes))]
    return [
        {"lane": lane, "computes_on": name, "busy": _busy(own, end - begin), "trials": [_stretch(t) for t in own]}
        for lane, name in enumerate(names, start=1)
        for own in [[t for t in trials if t.lane == lane]]
    ]


def _stretch(record: TrialRecord) -> dict[str, Any]:
    return {"trial": record.trial.id, "began": round(record.began, 3), "until": round(record.until, 3)}


def _busy(trials: Sequence[TrialRecord], span: float) -> float:
    return round(min(1.0, sum(t.until - t.began for t in trials) / span), 4) if span > 0 else 0.0


def lane_words(lane: Mapping[str, Any]) -> str:
    """`lane 2 (cpu, 1 thread), busy 83% of the time`."""
    on = f" ({lane['computes_on']})" if lane["computes_on"] else ""
    return f"lane {lane['lane']}{on}, busy {lane['busy']:.0%} of the time"


def stretch_words(stretch: Mapping[str, Any]) -> str:
    """`0.restart 27 s to 35 s`."""
    return f"{stretch['trial']} {format_seconds(stretch['began'])} to {format_seconds(stretch['until'])}"


def drawn(lanes: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The lanes as bars of one axis: where each trial begins and how wide it is, in percent."""
    stretches = [stretch for lane in lanes for stretch in lane["trials"]]
    if not stretches:
        return []
    begin = min(float(s["began"]) for s in stretches)
    span = max(float(s["until"]) for s in stretches) - begin or 1.0
    return [
        {
            "words": lane_words(lane),
            "bars": [
                {
                    "left": round(100 * (s["began"] - begin) / span, 2),
                    "width": round(max(0.2, 100 * (s["until"] - s["began"]) / span), 2),
                    "said": f"{names.get(s['trial'], s['trial'])}, {stretch_words(s)}",
                }
                for s in lane["trials"]
            ],
        }
        for lane in lanes
    ]
