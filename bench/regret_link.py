"""How much do differences on the validation split tell about those on the test split? For priors and for selection.

A pair is two trials of a run. Of each: by how much the later one is better on the validation split in its metric (m)
and in its loss (l, nats), and on the test split in its metric (y) and loss. Each run weighs the same, however many
pairs it has. There is no intercept: which of the two comes first is no evidence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from regret_rules import LOSS, Judged, Made

from multistep.core.evidence.compare import compare

Floats = npt.NDArray[np.float64]
# Standard errors of the metric. Pairs that differ by more need no help from the loss, and a trial that came to nothing
# would decide every sum of squares; fewer would choose pairs by their noise.
NEAR = 5.0


@dataclass(frozen=True)
class Pairs:
    """Rows of pairs: validation metric and loss, test metric and loss, and the standard errors of the first two."""

    metric: Floats
    loss: Floats
    test_metric: Floats
    test_loss: Floats
    metric_error: Floats
    loss_error: Floats
    run: npt.NDArray[np.intp]
    group: npt.NDArray[np.str_]

    def of(self, chosen: npt.NDArray[np.bool_]) -> Pairs:
        return Pairs(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    @property
    def near(self) -> Pairs:
        return self.of(np.abs(self.metric) <= NEAR * self.metric_error)

    @property
    def weight(self) -> Floats:
        counts = np.bincount(self.run)
        return np.asarray(1.0 / counts[self.run])


def pairs_of(runs: Sequence[Made]) -> Pairs:
    rows: list[tuple[float, ...]] = []
    run: list[int] = []
    group: list[str] = []
    for number, made in enumerate(runs):
        for old, new in itertools.combinations([*made.judged, *made.reruns], 2):
            row = _difference(made, old, new)
            if all(map(math.isfinite, row)):
                rows.append(row)
                run.append(number)
                group.append(made.name)
    metric, loss, test_metric, test_loss, *errors = np.array(rows, np.float64).reshape(len(rows), 6).T
    belongs = np.array(run, np.intp), np.array(group, np.str_)
    return Pairs(metric, loss, test_metric, test_loss, errors[0], errors[1], *belongs)


def _difference(made: Made, old: Judged, new: Judged) -> tuple[float, ...]:
    if not (LOSS.applies(old.validation) and LOSS.applies(old.test)):
        return (math.nan,)
    metric = compare(made.metric, new.validation, old.validation)
    loss = compare(LOSS, new.validation, old.validation)
    scores = [m.improvement(m.score(new.test), m.score(old.test)) for m in (made.metric, LOSS)]
    return (metric.improvement, loss.improvement, *scores, metric.standard_error, loss.standard_error)


# Tables -------------------------------------------------------------------------------------------


def print_link(runs: Sequence[Made]) -> None:
    kinds = sorted({made.metric.name for made in runs})
    groups = [(kind, [made for made in runs if made.metric.name == kind]) for kind in kinds]
    rows = []
    for kind, all_of_kind in groups:
        names = sorted({made.name for made in all_of_kind})
        rows.append((f"**{kind}**", pairs_of(all_of_kind)))
        if len(names) > 1:
            rows += [(f"{kind}, {name}", pairs_of([m for m in all_of_kind if m.name == name])) for name in names]
    rows = [(label, pairs) for label, pairs in rows if len(pairs.metric)]
    if not rows:
        print("no run has two trials that were evaluated in full")
        return
    _print_regressions(rows, scaled=False)
    _print_regressions(rows, scaled=True)
    _print_moments(rows)


def _print_regressions(rows: Sequence[tuple[str, Pairs]], *, scaled: bool) -> None:
    if scaled:
        print(
            "\nThe same with each validation difference in its own standard errors and the test difference in the "
            "metric's: what one standard error of either is worth.\n"
        )
    else:
        print(
            "Test difference y from the validation differences in the metric (m) and the loss (l), least squares "
            "without intercept; in brackets the standard error, by leaving out one run at a time. `left`: the share "
            "of y's squares that stays, each set predicted from the other ones. "
            f"Near: m within {NEAR:g} standard errors.\n"
        )
    print("| | pairs | runs | n | r(m, y) | r(l, y) | y on m | y on l | y on m and l: m | l | left: m | l | both |")
    print("|---" * 13 + "|")
    for label, pairs in rows:
        for which, some in (("all", pairs), ("near", pairs.near)):
            if len(some.metric) > 1:
                print(f"| {label} | {which} | {' | '.join(_regression(some, scaled))} |")


def _regression(pairs: Pairs, scaled: bool) -> list[str]:
    m, loss, y, weight = pairs.metric, pairs.loss, pairs.test_metric, pairs.weight
    if scaled:
        usable = (pairs.metric_error > 0) & (pairs.loss_error > 0)
        pairs = pairs.of(usable)
        m, loss = pairs.metric / pairs.metric_error, pairs.loss / pairs.loss_error
        y, weight = pairs.test_metric / pairs.metric_error, pairs.weight
    same = bool(np.allclose(m, loss, rtol=1e-6))  # the metric is the loss
    cells = [str(len(np.unique(pairs.run))), str(len(m)), _number(_correlation(m, y, weight))]
    cells += ["" if same else _number(_correlation(loss, y, weight))]
    designs = [m[:, None], loss[:, None], np.stack([m, loss], axis=1)]
    for number, design in enumerate(designs):
        if same and number:
            cells += [""] * number
            continue
        found, error = _fit(design, y, weight, pairs.run)
        cells += [_number(b) + (f" ({e:.2g})" if e == e else "") for b, e in zip(found, error, strict=True)]
    cells += ["" if same and i else _number(_left(d, y, weight, pairs.group)) for i, d in enumerate(designs)]
    return cells


def _print_moments(rows: Sequence[tuple[str, Pairs]]) -> None:
    """The noise of the two splits is independent, so products across them tell of the true differences alone."""
    print(
        "\nTrue differences between two trials of a run, from products across the two splits: their spread in the "
        "metric and in the loss (nats), their correlation, and the metric's change a nat; beside them the mean "
        "standard error of a paired difference on validation.\n"
    )
    print(
        "| | pairs | spread of the metric | its error | spread of the loss | its error | correlation | metric a nat |"
    )
    print("|---" * 8 + "|")
    for label, pairs in rows:
        for which, some in (("all", pairs), ("near", pairs.near)):
            if len(some.metric) > 1:
                print(f"| {label} | {which} | {' | '.join(_moments(some))} |")


def _moments(pairs: Pairs) -> list[str]:
    weight = pairs.weight / pairs.weight.sum()
    metric = float(weight @ (pairs.metric * pairs.test_metric))
    loss = float(weight @ (pairs.loss * pairs.test_loss))
    both = float(weight @ (pairs.loss * pairs.test_metric + pairs.metric * pairs.test_loss)) / 2
    known = metric > 0 and loss > 0
    errors = [math.sqrt(float(weight @ e**2)) for e in (pairs.metric_error, pairs.loss_error)]
    cells = [_number(_root(metric)), _number(errors[0]), _number(_root(loss)), _number(errors[1])]
    return cells + ([_number(both / math.sqrt(metric * loss)), _number(both / loss)] if known else ["", ""])


# Numbers ------------------------------------------------------------------------------------------


def _fit(design: Floats, y: Floats, weight: Floats, run: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Coefficients and their standard errors by the jackknife over runs, since pairs of one run share trials."""
    whole = _solve(design, y, weight)
    runs = np.unique(run)
    if len(runs) < 2:
        return whole, np.full(len(whole), np.nan)
    others = np.array([_solve(design[run != r], y[run != r], weight[run != r]) for r in runs])
    spread = ((others - others.mean(axis=0)) ** 2).sum(axis=0)
    return whole, np.sqrt(spread * (len(runs) - 1) / len(runs))


def _solve(design: Floats, y: Floats, weight: Floats) -> Floats:
    root = np.sqrt(weight)
    return np.asarray(np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0])


def _left(design: Floats, y: Floats, weight: Floats, group: npt.NDArray[np.str_]) -> float:
    """The share of the squares that is left where each set is predicted from the others; NaN for a single set."""
    names = np.unique(group)
    if len(names) < 2 or not np.any(y):
        return math.nan
    predicted = np.zeros(len(y))
    for name in names:
        own = group == name
        predicted[own] = design[own] @ _solve(design[~own], y[~own], weight[~own])
    return float(weight @ (y - predicted) ** 2 / (weight @ y**2))


def _correlation(x: Floats, y: Floats, weight: Floats) -> float:
    """About zero and not about the mean, as the fit is."""
    below = math.sqrt(float(weight @ x**2) * float(weight @ y**2))
    return float(weight @ (x * y)) / below if below > 0 else math.nan


def _root(square: float) -> float:
    return math.sqrt(square) if square > 0 else math.nan


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""
