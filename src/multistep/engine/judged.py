"""What a phase is judged by and what it must not forget, as its plan and its data have it together."""

from __future__ import annotations

from multistep.core.evidence.metric import metric_named
from multistep.core.values.events import Guarded
from multistep.core.values.plan import Phase
from multistep.engine.learner import Readiness
from multistep.errors import PlanError


def guard_of(phase: Phase, ready: Readiness, *, begins_trained: bool) -> Guarded | None:
    """The guard as it is applied. Raises PlanError where there is nothing to forget, or for a metric of other data."""
    guard = phase.guard
    if guard is None:
        return None
    assert ready.guard is not None, "a workshop that takes a guard reads its data"
    if not begins_trained:
        raise PlanError(
            f"phase '{phase.name}' has a guard, but begins with a model that knows nothing yet, so that there is "
            "nothing to forget; give the guard to a later phase, or start from pretrained weights"
        )
    metric = metric_named(guard.metric or ready.guard.metrics[0])
    if metric.name not in ready.guard.metrics:
        raise PlanError(
            f"guard.metric '{metric.name}' cannot be measured on {guard.data}; allowed: "
            f"{', '.join(ready.guard.metrics)}"
        )
    unit = ready.guard.loss_unit if metric.name == "loss" else metric.unit
    return Guarded(str(guard.data), metric.name, unit, guard.at_most_worse)


def metric_name(phase: Phase, ready: Readiness) -> str:
    """The name of what decides. Raises PlanError for a metric that this data cannot be judged by."""
    if phase.metric is None:
        return ready.metrics[0]
    if phase.metric in ready.metrics:
        return phase.metric  # perhaps a user's function, which no list knows
    name = metric_named(phase.metric).name
    if name not in ready.metrics:
        raise PlanError(
            f"metric '{name}' cannot be measured for {phase.task} on this data; allowed: {', '.join(ready.metrics)}"
        )
    return name
