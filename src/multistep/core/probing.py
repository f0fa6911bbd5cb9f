"""Probes of the learning rate: short, cooled-down trials that rank rates before the trunk."""

from __future__ import annotations

import math

from multistep.core.allowance import PROBE_FACTORS, PROBE_STEPS
from multistep.core.history import PhaseRecord, TrialRecord
from multistep.core.metric import Metric
from multistep.core.plan import Plan
from multistep.core.trial import Proposal, Trial


def probe(plan: Plan, phase: PhaseRecord, number: int, steps: int | None = None) -> Proposal:
    recipe = phase.started.recipe
    assert recipe.learning_rate is not None
    rate = recipe.learning_rate * PROBE_FACTORS[number]
    index = phase.started.phase
    trial = Trial(
        f"{index}.probe-{number + 1}",
        index,
        "probe",
        phase.started.start,
        recipe,
        plan.seed,
        rate,
        steps or PROBE_STEPS,
    )
    return Proposal(trial, f"is {rate:.3g} a better learning rate?")


def chosen_rate(metric: Metric, probes: tuple[TrialRecord, ...], tolerance: float | None) -> tuple[float, str]:
    """The largest rate that does not lose beyond noise: short probes prefer rates that are too small.

    Noise is taken as the plan's tolerance, or the metric's: probes share weights, order and examples.
    Source: arXiv 1803.02021.
    """
    looks = [(p.trial.learning_rate, p.curve[-1].interval) for p in probes if p.curve]
    finite = [(rate, interval) for rate, interval in looks if math.isfinite(interval.score)]
    if not finite:
        lowest = min(p.trial.learning_rate for p in probes)
        return lowest / 3, "every probe diverged; a third of the lowest rate"
    best = finite[0][1]
    for _, interval in finite:
        if metric.improvement(interval.score, best.score) > 0:
            best = interval
    slack = tolerance or metric.tolerance(best.score)
    good = [rate for rate, i in finite if metric.improvement(i.score, best.score) >= -slack]
    listed = ", ".join(f"{rate:.3g}: {i.score:.4f}" for rate, i in finite)
    return max(good), f"learning rate {max(good):.3g}, the largest that did not lose ({listed})"
