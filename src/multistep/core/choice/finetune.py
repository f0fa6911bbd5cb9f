"""Pretrained weights: hardly a trunk. Cooled-down forks at 1, 2 and 4 epochs, each judged.

Twice as many epochs again follow only where the last fork was proven better than the one before, as it is on data so
small that four epochs are a few hundred steps, and where as much of its gain as it had of the last one's is still worth
having.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multistep.core.choice.allowance import allowance, batch_size
from multistep.core.values.events import VerdictGiven
from multistep.core.values.history import History, PhaseRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.units import Amount

USUAL_FORKS = 3  # at 1, 2 and 4 epochs
LEAST_GROWTH = 1.5  # from one fork to the next, where the clock leaves no time for twice as many epochs


@dataclass(frozen=True)
class Fork:
    """A fork after `epochs` in all: the trunk is left at `trunk_steps` and cooled down for `cooldown_steps`."""

    epochs: float
    trunk_steps: int
    cooldown_steps: int
    first: bool

    @property
    def steps(self) -> int:
        return self.trunk_steps + self.cooldown_steps


def next_fork(plan: Plan, history: History) -> Fork | None:
    """The fork that a pretrained phase comes to next; None from nothing, under a given length, or after the last.

    After the usual ones, the last is the first that is not kept.
    """
    phase = history.phase
    if not phase.started.facts.pretrained or isinstance(plan.phase(phase.started.phase).until, Amount):
        return None
    verdicts = [t.verdict for t in phase.of_kind("control") if t.trial.length is None and t.verdict is not None]
    if len(verdicts) >= USUAL_FORKS and (verdicts[-1].decision != "keep" or not _pays(plan, phase, verdicts)):
        return None
    per_epoch = phase.started.facts.train_examples / batch_size(phase)
    epochs = 2.0 ** len(verdicts)
    total = max(2, round(epochs * per_epoch))
    left = allowance(plan, history, phase.trunk).steps_left if verdicts and phase.trunk else None
    if left is not None and phase.trunk and phase.trunk.step + left < total:
        # Rather a shorter fork than none, if it is clearly longer than the last.
        total = phase.trunk.step + left
        epochs, last = total / per_epoch, epochs / 2
        if epochs < LEAST_GROWTH * last:
            return None
    cooldown = min(total - 1, round(total * phase.started.recipe.cooldown_fraction))
    return Fork(epochs, total - cooldown, cooldown, first=not verdicts)


def _pays(plan: Plan, phase: PhaseRecord, verdicts: Sequence[VerdictGiven]) -> bool:
    """Whether twice the epochs may be expected to bring more than the tolerance: gains fall by a constant factor."""
    last, before = verdicts[-1].improvement, verdicts[-2].improvement
    score = verdicts[-1].interval
    if last is None or before is None or before <= 0.0 or score is None:
        return True
    return last * last / before > (plan.tolerance or metric_of(phase.started).tolerance(score.score))
