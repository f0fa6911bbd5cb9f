"""Pretrained weights: hardly a trunk. Cooled-down forks at 1, 2 and 4 epochs, each judged; no more epochs than that."""

from __future__ import annotations

from dataclasses import dataclass

from multistep.core.allowance import batch_size
from multistep.core.history import History
from multistep.core.plan import Plan
from multistep.core.units import Amount

EPOCHS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Fork:
    """A fork after `epochs` in all: the trunk is left at `trunk_steps` and cooled down for `cooldown_steps`."""

    epochs: float
    trunk_steps: int
    cooldown_steps: int

    @property
    def steps(self) -> int:
        return self.trunk_steps + self.cooldown_steps


def next_fork(plan: Plan, history: History) -> Fork | None:
    """The fork that a pretrained phase comes to next; None from nothing, under a given length, or after the last."""
    phase = history.phase
    if not phase.started.facts.pretrained or isinstance(plan.phase(phase.started.phase).until, Amount):
        return None
    done = sum(t.trial.length is None and t.verdict is not None for t in phase.of_kind("control"))
    if done >= len(EPOCHS):
        return None
    total = max(2, round(EPOCHS[done] * phase.started.facts.train_examples / batch_size(phase)))
    cooldown = min(total - 1, round(total * phase.started.recipe.cooldown_fraction))
    return Fork(EPOCHS[done], total - cooldown, cooldown)
