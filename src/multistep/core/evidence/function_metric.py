"""A user's function as a metric, and the metric that a name in a journal stands for.

A function lives in the process that trains; elsewhere a journal tells its name, goal and unit, and no more.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, get_args

import numpy as np

from multistep.core.evidence.metric import ALIASES, METRICS, Evaluation, Floats, Goal, Metric, metric_in, metric_named
from multistep.errors import PlanError, nearest

Function: TypeAlias = Callable[[Mapping[str, Floats]], float]

JACKKNIFE_GROUPS = 64  # calls of the function for an interval; its error is known to a tenth by then
REMEMBERED = 32  # tables whose influences are kept: a verdict asks for those of its rivals again and again


@dataclass(frozen=True, init=False)
class FunctionMetric(Metric):
    """A user's function from columns (a number per example each) to a score; `goal` says which way is better.

    Its influence is a jackknife's: the function is called without one group of blocks after another. With more
    than JACKKNIFE_GROUPS blocks, groups drawn by lot (the same for every checkpoint) stand for blocks. That is
    right for functions in which every example tells a little, and wrong for a maximum.
    `columns` are those that it needs, `bounds` the least and the most that it can be. Raises PlanError for a missing or
    unknown goal, or a missing function.

    >>> rms = FunctionMetric("rms", "minimize", lambda columns: float((columns["loss"] ** 2).mean() ** 0.5))
    """

    function: Function
    columns: tuple[str, ...]
    _known: dict[bytes, Floats] = field(default_factory=dict, compare=False, repr=False)

    def __init__(
        self,
        name: str,
        goal: Goal | None = None,
        function: Function | None = None,
        *,
        unit: str = "as the function counts",
        columns: tuple[str, ...] = (),
        bounds: tuple[float, float] | None = None,
    ) -> None:
        allowed: tuple[Goal, ...] = get_args(Goal)
        if goal is None or goal not in allowed:
            given = "goal is missing" if goal is None else f"goal is {goal!r}"
            raise PlanError(
                f"metric '{name}': {given}; allowed: 'minimize' or 'maximize'.{nearest(str(goal), allowed)}"
            )
        if not callable(function):
            raise PlanError(f"metric '{name}': function is {function!r}; allowed: one from columns to a number.")
        super().__init__(name, goal, unit, bounds=bounds)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "_known", {})

    def applies(self, evaluation: Evaluation) -> bool:
        return evaluation.columns.keys() >= set(self.columns)

    def score(self, evaluation: Evaluation) -> float:
        """The function's value; NaN if a row is not finite. Raises PlanError where the function fails."""
        if not all(np.isfinite(column).all() for column in evaluation.columns.values()):
            return math.nan  # many functions raise at such numbers, and a diverged trial has them
        try:
            return float(self.function(evaluation.columns))
        except Exception as error:
            raise PlanError(
                f"metric '{self.name}': the function failed on {len(evaluation)} examples "
                f"({type(error).__name__}: {error})"
            ) from error

    def influence(self, evaluation: Evaluation) -> Floats:
        """Per group of blocks; Busing, Meijer and van der Leeden, 1999, for groups of unequal size.

        NaN where the function cannot do without one of the groups, for instance the last examples of a class.
        """
        key = _digest(evaluation)
        if key not in self._known:
            self._known[key] = self._jackknife(evaluation)
            for old in list(self._known)[:-REMEMBERED]:
                del self._known[old]
        return self._known[key]

    def _jackknife(self, evaluation: Evaluation) -> Floats:
        block = evaluation.block_index()
        blocks = int(block.max()) + 1
        groups = min(blocks, JACKKNIFE_GROUPS)
        if groups < 2:
            return np.zeros(groups)
        lot = np.random.default_rng(0).permutation(blocks) % groups
        share = np.bincount(lot) / blocks
        group, score = lot[block], self.score(evaluation)
        without = []
        for left_out in range(groups):
            kept = Evaluation({name: column[group != left_out] for name, column in evaluation.columns.items()})
            try:
                with warnings.catch_warnings():  # of a part that lacks a class nobody wants to hear
                    warnings.simplefilter("ignore")
                    without.append(self.score(kept))
            except PlanError:
                return np.full(groups, np.nan)
        influence = groups * (1 - share) * (score - np.array(without, dtype=np.float64))
        return np.asarray(influence - influence.mean(), dtype=np.float64)


def _digest(evaluation: Evaluation) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, column in evaluation.columns.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.digest()


@dataclass(frozen=True)
class RecordedMetric(Metric):
    """A user's function where it does not exist: what was scored can be told, and nothing be scored."""

    def applies(self, evaluation: Evaluation) -> bool:
        return False

    def score(self, evaluation: Evaluation) -> float:
        raise PlanError(
            f"metric '{self.name}' is a function of the run's own Python code; run that code again to score with it"
        )

    def influence(self, evaluation: Evaluation) -> Floats:
        return np.full(1, self.score(evaluation))


_declared: dict[str, FunctionMetric] = {}


@contextmanager
def declared(metric: FunctionMetric | None) -> Iterator[None]:
    """Have phases judged by this function within the context. Raises PlanError for a name that is taken."""
    if metric is None:
        yield
        return
    if metric.name in (*METRICS, *ALIASES):
        raise PlanError(
            f"metric: the function is called '{metric.name}', which is a metric already; rename it, or give "
            f"metric='{metric.name}'"
        )
    before = dict(_declared)
    _declared[metric.name] = metric
    try:
        yield
    finally:
        _declared.clear()
        _declared.update(before)


def declared_metric(name: str) -> FunctionMetric | None:
    """The function declared under that name in this process."""
    return _declared.get(name)


def metric_known_as(name: str, goal: Goal | None, unit: str | None) -> Metric:
    """The metric that was recorded with this name, goal and unit; goal and unit count for a user's function alone."""
    if goal is None or unit is None or name in METRICS:
        return metric_in(name, unit) if unit else metric_named(name)
    found = _declared.get(name)
    same = found is not None and (found.goal, found.unit) == (goal, unit)
    return found if found is not None and same else RecordedMetric(name, goal, unit)
