"""The guard of a phase: what was known before must not be forgotten by more than was allowed.

The phase's start is a judged trial of its own (kind "base"), so that it can lead: where everything that was tried
forgets, it is what the run goes on from and ships. Whether a trial forgets is a choice made by expected value, as all
choices are, and no claim: what counts is the measured difference on the guard's fixed sample, block by block against
the start, not whether it is proven. With no prior about forgetting, that difference is its expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

from multistep.core.evidence.compare import compare
from multistep.core.evidence.metric import Evaluation
from multistep.core.evidence.scores import form_of
from multistep.core.values.events import Guarded
from multistep.core.values.history import PhaseRecord, TrialRecord
from multistep.core.values.judging import guard_metric_of

WORSE = 5.0  # tolerances of the guard's metric, where the plan does not say: 1.5% of a loss, one point of accuracy


@dataclass(frozen=True)
class Forgotten:
    """By how much a trial is worse than the phase's start on the guard's data, in the metric's unit; 95% bounds."""

    worse: float
    low: float
    high: float
    at_most: float
    sentence: str  # for the verdict's reason; empty of one that holds

    @property
    def forgets(self) -> bool:
        return not self.worse <= self.at_most  # NaN is no reason to keep anything


def at_most_worse(guard: Guarded, start: float) -> float:
    """What is allowed, in the metric's unit, where the start scores `start`."""
    metric = guard_metric_of(guard)
    return WORSE * metric.tolerance(start) if guard.at_most_worse is None else guard.at_most_worse


def forgotten(guard: Guarded, new: Evaluation, start: Evaluation) -> Forgotten:
    """What a trial's evaluation on the guard's data tells beside that of the phase's start."""
    metric = guard_metric_of(guard)
    allowed = at_most_worse(guard, metric.score(start))
    seen = compare(metric, new, start)
    found = Forgotten(-seen.improvement, -seen.high, -seen.low, allowed, "")
    if not found.forgets:
        return found
    form = form_of(metric)
    sentence = (
        f"it forgets too much: on {guard.data} it is {form.size_of(found.worse)} worse than before the phase, and at "
        f"most {form.size(allowed)} is allowed"
    )
    return Forgotten(found.worse, found.low, found.high, allowed, sentence)


def holds(record: TrialRecord) -> bool:
    """Whether a judged trial may lead as far as its phase's guard goes."""
    return record.verdict is None or not record.verdict.forgets


def trunk_forgets(phase: PhaseRecord) -> bool:
    """Whether the trunk's last cooldown forgot: more of the same forgets more."""
    control = phase.control
    return control is not None and not holds(control)
