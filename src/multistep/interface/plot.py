"""The validation score of a run over its steps, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.values.history import fold
from multistep.core.values.judging import metric_of
from multistep.engine.journal import read_entries
from multistep.engine.result import trial_entry
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError
from multistep.report.words import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEADS, TRUNK, OTHERS = "leads", "trunk", "other attempts"
STYLES: dict[str, dict[str, Any]] = {
    LEADS: {"color": "C1", "linewidth": 2.2, "zorder": 3},
    TRUNK: {"color": "C0", "linewidth": 1.4},
    OTHERS: {"color": "gray", "linewidth": 1, "alpha": 0.7},
}


def plot(folder: Path, ax: Axes | None = None) -> Axes:
    """`Result.plot`, which has the documentation: the last phase's trials, the one that leads in front."""
    axes = ax if ax is not None else _new_axes()
    history = fold(read_entries(RunDirectory(folder).require().journal))
    phase, leader = history.phase, history.leader
    metric = metric_of(phase.started)
    drawn = set()
    for name, record in phase.trials.items():
        if not record.curve:
            continue
        steps = [look.step for look in record.curve]
        scores = [look.interval.score for look in record.curve]
        leads = leader is not None and leader.trial == name
        kind = LEADS if leads else TRUNK if record.trial.kind == "trunk" else OTHERS
        label = title(trial_entry(phase, record)) + ", leads" if leads else kind
        axes.plot(
            steps, scores, marker="." if len(steps) > 1 else "o", label="_" * (label in drawn) + label, **STYLES[kind]
        )
        drawn.add(label)
        if leads:
            low, high = zip(*((look.interval.low, look.interval.high) for look in record.curve), strict=True)
            axes.fill_between(steps, low, high, color=STYLES[LEADS]["color"], alpha=0.15, linewidth=0)
    baseline = next((each for each in history.baselines if each.split == "validation"), None)
    if baseline is not None:
        axes.axhline(baseline.interval.score, linestyle="--", color="gray", label="baseline")
    axes.set_xlabel("step")
    axes.set_ylabel(f"validation {metric.name.replace('_', ' ')} ({metric.unit})")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=4, frameon=False, fontsize="small")
    return axes


def _new_axes() -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise PlanError("plot: matplotlib is not installed; get it with `pip install matplotlib`") from error
    return pyplot.subplots(layout="constrained")[1]
