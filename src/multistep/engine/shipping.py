"""What a run gives to its user, the network or the baseline: whichever leads on the same validation rows."""

from __future__ import annotations

from multistep.core.evidence.metric import Metric
from multistep.core.evidence.scores import metric_words, told_apart
from multistep.core.values.events import BaselineScored, ShipDecided
from multistep.core.values.history import History
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.engine.chosen import expected_gains

# Python that uses a baseline's folder, whatever its task reads.
BASELINE_USAGE = """import sys

import multistep

for found in multistep.predict({model}, sys.argv[1:]):
    print(found.output, found.probability)"""


def baseline_is_wanted(plan: Plan, history: History) -> bool:
    """Whether the baseline is to ship, if it can be written."""
    return plan.ship == "auto" and _baseline_leads(history)


def decided(plan: Plan, history: History, why_not: str) -> ShipDecided:
    """The decision and its reason; `why_not` says why a baseline that was wanted could not be written."""
    both = _scores(history)
    if both is None:
        return ShipDecided("network", "The network ships, since no baseline was scored beside it.")
    metric, baseline, network = both
    of = f"validation {metric_words(metric.name)}"
    theirs, own = told_apart(metric, baseline.interval.score, network)
    numbers = f"{theirs} against the {own} expected of the network"
    if not _baseline_leads(history):
        return ShipDecided(
            "network",
            f"The network ships: its expected {of} is {own}, and that of the baseline ({baseline.name}) is {theirs}.",
        )
    if plan.ship == "network":
        why_not = "the plan asks for the network"
    if why_not:
        leads = f"On validation the baseline leads ({baseline.name}: {metric_words(metric.name)} {numbers})"
        return ShipDecided("network", f"{leads}, but the network ships: {why_not}.")
    return ShipDecided("baseline", f"The baseline ships, not the network: {baseline.name} has {of} {numbers}.")


def _baseline_leads(history: History) -> bool:
    both = _scores(history)
    if both is None:
        return False
    metric, baseline, network = both
    return metric.improvement(baseline.interval.score, network) > 0


def _scores(history: History) -> tuple[Metric, BaselineScored, float] | None:
    """The metric, the baseline and the network's expected score on the validation split, where there are both.

    Expected, since the leader was chosen among many on this split, and the baseline was not.
    """
    baseline = next((b for b in history.baselines if b.split == "validation"), None)
    if baseline is None or history.leader is None:
        return None
    metric = metric_of(history.phase.started)
    expected = expected_gains(history)
    first = history.trial(next(iter(expected))).full if history.leader.trial in expected else None
    own = history.trial(history.leader.trial).full
    if first is None or own is None:
        return (metric, baseline, own.interval.score) if own else None
    gain = expected[history.leader.trial] * (1.0 if metric.goal == "maximize" else -1.0)
    return metric, baseline, first.interval.score + gain
