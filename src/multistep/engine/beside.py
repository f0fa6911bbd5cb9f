"""What stands beside a network's scores: the baseline's, and those of the model before it was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from multistep.core.evidence.compare import compare
from multistep.core.evidence.function_metric import RecordedMetric
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.events import BaselineScored, Evaluated
from multistep.core.values.history import History
from multistep.core.values.judging import metric_of

ReadTable = Callable[[str], Evaluation]


def baseline_of(history: History, read_table: ReadTable) -> dict[str, Any]:
    """The baseline's scores and, where the network was scored on the same split, its paired gain over it.

    Without the gain where the metric is a function that lives in another process.
    """
    winner = history.trial(history.leader.trial).full if history.leader else None
    own = {"validation": winner, "test": history.test}
    scored: dict[str, Any] = {b.split: _beside(history, b, own[b.split], read_table) for b in history.baselines}
    return {"name": history.baselines[0].name if history.baselines else None, **scored}


def base_of(history: History, read_table: ReadTable) -> dict[str, Any] | None:
    """The scores of the model before training, and what training gained over it; None where it was not scored."""
    base, leader = history.base, history.leader
    if base is None or base.full is None:
        return None
    found: dict[str, Any] = {"trial": base.trial.id, "leads": leader is not None and leader.trial == base.trial.id}
    winner = history.trial(leader.trial).full if leader else None
    tested = history.test if found["leads"] else history.base_test
    for split, own, made in (("validation", base.full, winner), ("test", tested, history.test)):
        if own is not None:
            found[split] = _beside(history, own, None if found["leads"] else made, read_table)
    return found


def _beside(
    history: History, rival: BaselineScored | Evaluated, made: Evaluated | None, read_table: ReadTable
) -> dict[str, Any]:
    found = {**asdict(rival.interval), "scores": dict(rival.scores)}
    metric = metric_of(history.phase.started)
    if made is not None and not isinstance(metric, RecordedMetric):
        gain = compare(metric, read_table(made.table), read_table(rival.table))
        found["gain"] = {"improvement": gain.improvement, "low": gain.low, "high": gain.high}
    return found
