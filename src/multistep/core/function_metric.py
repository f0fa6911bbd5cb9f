"""A user's function as a metric: its influence is a grouped jackknife's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, get_args

import numpy as np

from multistep.core.metric import Evaluation, Floats, Goal, Metric
from multistep.errors import PlanError, nearest

Function: TypeAlias = Callable[[Mapping[str, Floats]], float]

JACKKNIFE_GROUPS = 200


@dataclass(frozen=True, init=False)
class FunctionMetric(Metric):
    """A user's function from columns (a number per example each) to a score; `goal` says which way is better.

    Its influence is a jackknife's: the function is called without one group of blocks after another. With more
    than JACKKNIFE_GROUPS blocks, groups drawn by lot (the same for every checkpoint) stand for blocks. That is
    right for functions in which every example tells a little, and wrong for a maximum.
    `columns` are those that it needs. Raises PlanError for a missing or unknown goal, or a missing function.

    >>> rms = FunctionMetric("rms", "minimize", lambda columns: float((columns["loss"] ** 2).mean() ** 0.5))
    """

    function: Function
    columns: tuple[str, ...]

    def __init__(
        self,
        name: str,
        goal: Goal | None = None,
        function: Function | None = None,
        *,
        unit: str = "as the function counts",
        columns: tuple[str, ...] = (),
    ) -> None:
        allowed: tuple[Goal, ...] = get_args(Goal)
        if goal is None or goal not in allowed:
            given = "goal is missing" if goal is None else f"goal is {goal!r}"
            raise PlanError(
                f"metric '{name}': {given}; allowed: 'minimize' or 'maximize'.{nearest(str(goal), allowed)}"
            )
        if not callable(function):
            raise PlanError(f"metric '{name}': function is {function!r}; allowed: one from columns to a number.")
        super().__init__(name, goal, unit)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "columns", columns)

    def applies(self, evaluation: Evaluation) -> bool:
        return evaluation.columns.keys() >= set(self.columns)

    def score(self, evaluation: Evaluation) -> float:
        return float(self.function(evaluation.columns))

    def influence(self, evaluation: Evaluation) -> Floats:
        """Per group of blocks; Busing, Meijer and van der Leeden, 1999, for groups of unequal size."""
        block = evaluation.block_index()
        blocks = int(block.max()) + 1
        groups = min(blocks, JACKKNIFE_GROUPS)
        if groups < 2:
            return np.zeros(groups)
        lot = np.random.default_rng(0).permutation(blocks) % groups
        share = np.bincount(lot) / blocks
        group, score = lot[block], self.score(evaluation)
        without = [
            float(self.function({name: column[group != left_out] for name, column in evaluation.columns.items()}))
            for left_out in range(groups)
        ]
        influence = groups * (1 - share) * (score - np.array(without, dtype=np.float64))
        return np.asarray(influence - influence.mean(), dtype=np.float64)
