"""Probes of the learning rate: short, cooled-down trials that rank rates before the trunk.

A short run does best at a higher rate than a long one. So a rate that is asked about for the whole phase is probed at
a rate that stands for it over the probe's steps: higher by a power of how many times longer the phase is.
Sources: arXiv 2409.19913 for the power; arXiv 1803.02021 for the danger that a short horizon misleads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from multistep.core.choice.allowance import PROBE_FACTORS, PROBE_STEPS, expected_steps
from multistep.core.evidence.metric import Metric
from multistep.core.evidence.scores import form_of
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal, Trial

HORIZON_POWER = 0.32  # by which the best rate falls as a run grows longer


def stand_in(rate: float, steps: int, probe_steps: int = PROBE_STEPS) -> float:
    """The rate to probe over `probe_steps` in place of `rate` over `steps`."""
    return rate * math.pow(max(1.0, steps / probe_steps), HORIZON_POWER)


def probe(plan: Plan, history: History, number: int) -> Proposal:
    phase = history.phase
    recipe = phase.started.recipe
    assert recipe.learning_rate is not None
    asked = recipe.learning_rate * PROBE_FACTORS[number]
    if earlier := phase.of_kind("probe"):
        # The same correction for all: what is left of the budget shrinks from probe to probe.
        first = earlier[0].trial
        steps, rate = first.cooldown_steps, first.learning_rate * PROBE_FACTORS[number] / PROBE_FACTORS[0]
    else:
        steps, rate = PROBE_STEPS, stand_in(asked, expected_steps(plan, history))
    index = phase.started.phase
    trial = Trial(f"{index}.probe-{number + 1}", index, "probe", phase.started.start, recipe, plan.seed, rate, steps)
    return Proposal(
        trial, f"to see whether {asked:.3g} is a better learning rate: over only {steps} steps, {rate:.3g} acts like it"
    )


def nearest_of_best(metric: Metric, preset: float, scores: Mapping[float, float], tolerance: float | None) -> float:
    """Of the rates whose finite scores do not lose by more than the tolerance, the one nearest to the preset's."""
    good = _as_good(metric, scores, tolerance)
    return min(good, key=lambda rate: abs(math.log(rate / preset)))


def _as_good(metric: Metric, scores: Mapping[float, float], tolerance: float | None) -> list[float]:
    """The rates whose scores do not lose to the best by more than the tolerance."""
    best = next(s for s in scores.values() if all(metric.improvement(o, s) <= 0 for o in scores.values()))
    slack = tolerance or metric.tolerance(best)
    return [rate for rate, score in scores.items() if metric.improvement(score, best) >= -slack]


def chosen_rate(
    metric: Metric, preset: float, probes: tuple[TrialRecord, ...], tolerance: float | None
) -> tuple[float, str]:
    """The rate that was asked about nearest to the preset's among those as good as the best, and why.

    That is to within the tolerance, the plan's or the metric's: probes share weights, order and examples.
    """
    asked = [preset * factor for factor in PROBE_FACTORS[: len(probes)]]
    looks = [(rate, p.curve[-1].interval) for rate, p in zip(asked, probes, strict=True) if p.curve]
    finite = {rate: interval.score for rate, interval in looks if math.isfinite(interval.score)}
    if not finite:
        return min(asked), "every probe diverged, so the lowest learning rate is taken"
    chosen = nearest_of_best(metric, preset, finite, tolerance)
    form = form_of(metric)
    listed = ", ".join(f"{rate:.3g}: {form.of(score)}" for rate, score in finite.items())
    # As told, scores may lie exactly the tolerance apart, and either side of it as they were computed.
    why = "of those that score as well as the best, to within the tolerance, it is nearest to the preset's"
    if len(_as_good(metric, finite, tolerance)) == 1:
        why = "no other scores as well, to within the tolerance"
    return chosen, f"the learning rate {chosen:.3g} is taken, since {why} ({listed})"
