"""What a phase is judged by: its metric, its loss and its guard's metric, each in the unit of its task."""

from __future__ import annotations

from multistep.core.evidence.function_metric import metric_known_as
from multistep.core.evidence.metric import Metric, metric_in
from multistep.core.values.events import Guarded, PhaseStarted


def metric_of(started: PhaseStarted) -> Metric:
    """The metric that a phase is judged by."""
    found = metric_known_as(started.metric, started.goal, started.unit)
    return loss_of(started) if found.name == "loss" else found


def loss_of(started: PhaseStarted) -> Metric:
    """The loss, in the unit that the phase's task counts it in."""
    return metric_in("loss", started.facts.loss_unit)


def guard_metric_of(guard: Guarded) -> Metric:
    """The metric by which forgetting is seen."""
    return metric_in(guard.metric, guard.unit)
