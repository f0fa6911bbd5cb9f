"""Which checkpoint is best on the population, given everything that was measured: expected gains, jointly.

Every judged checkpoint was scored on the same blocks, by the metric and, where there is one, by the loss beside it.
What is wanted is each one's true gain over the first. Beforehand a gain over the checkpoint that led when it was
tried is normal with the mean and spread that its kind of attempt is known for; a gain of the loss goes with it, more
or less closely. What was seen differs from that by the noise of the blocks, whose covariance they show themselves.
The answer is the mean of a normal distribution given the others: no boundary stands in it, and what looks best by luck
is drawn back by as much as its noise deserves.

Sources: the maximum of noisy estimates is optimistic, and shrinkage mends it (Cawley and Talbot, JMLR 11, 2010);
normal means with a normal prior (Efron and Morris, JASA 70, 1975).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from multistep.core.evidence.compare import paired
from multistep.core.evidence.metric import Evaluation, Floats, Metric

UNKNOWN = 1e12  # squared tolerances: the variance of what says nothing
# Standard deviations, beyond which an observation is believed rather than the prior. Lower, and the luckiest of many
# attempts leads; higher, and a network that learnt much after its first result is not believed.
SURPRISE = 2.0
# What attempts of one run have in common, as shares of the variance of what each brings: those of one fork, those of
# one kind, and any two. Found with 289 attempts of 29 recorded runs (`bench/alike.py`); a tenth more or less of any
# changes next to nothing. With none at all six that lose from one fork make the fork's own score look like luck.
OF_FORK, OF_KIND, OF_RUN = 0.3, 0.2, 0.1
OF_OPPOSITES = -0.5  # of what one kind has in common: where more of a thing helps, less of it hardly does
# Of the answers in which two checkpoints differ: as far as one is better than the other, as a rule (a standard
# deviation). In 22 recorded runs with several good checkpoints it foretold test scores best; with 0.1 or 0.2 a tenth of
# the squared error more is left, and without any bound half as much again (docs/appendix/measured-choice.md).
OF_CHANGED = 0.15


@dataclass(frozen=True)
class Gain:
    """What an attempt is expected to bring over who leads, in tolerances of the metric: mean and standard deviation."""

    mean: float
    spread: float


@dataclass(frozen=True)
class Link:
    """How the loss goes with the metric from one checkpoint to another of the same run.

    ratio: tolerances of the loss for one of the metric. correlation: of the two true gains.
    """

    ratio: float
    correlation: float


@dataclass(frozen=True)
class Origin:
    """Where an attempt forked, what it changed (the kind of attempt), and the name of the opposite change, if any."""

    fork: str
    kind: str
    opposite: str | None = None


def in_common(one: Origin | None, other: Origin | None) -> float:
    """The correlation of what two attempts of one run bring; those with no origin go their own way."""
    if one is None or other is None:
        return 0.0
    same = 1.0 if one.kind == other.kind else OF_OPPOSITES if other.kind == one.opposite else 0.0
    return OF_RUN + OF_KIND * same + (OF_FORK if one.fork == other.fork else 0.0)


@dataclass(frozen=True)
class Judged:
    """A checkpoint's evaluation, which of the ones before it led when it was tried (an index), what was expected, and
    where it comes from, if it has anything in common with others. `trained`: like the one before it, so that the two
    are as alike as their answers are.
    """

    evaluation: Evaluation
    over: int
    prior: Gain
    origin: Origin | None = None
    trained: bool = True


@dataclass(frozen=True)
class Expected:
    """True gains over the first checkpoint, in the metric's unit: means (shape: checkpoints) and covariance.

    `presumed` is each attempt's spread over who led when it was tried, before its score was seen (shape: checkpoints;
    0 for the first).
    """

    means: Floats
    covariance: Floats
    presumed: Floats

    def between(self, one: int, other: int) -> tuple[float, float]:
        """By how much `one` is expected to be better than `other`, and the standard deviation of that."""
        c = self.covariance
        variance = c[one, one] + c[other, other] - 2 * c[one, other]
        return float(self.means[one] - self.means[other]), math.sqrt(max(0.0, float(variance)))


def expected_gains(
    metric: Metric, judged: Sequence[Judged], *, tolerance: float, loss: Metric | None = None, link: Link | None = None
) -> Expected:
    """The true gains over `judged[0]`, which is the reference and has no prior. All scores are finite.

    `loss` and `link` are left out where the metric is the loss itself, or where there is none.
    """
    many = len(judged)
    if many == 1:
        return Expected(np.zeros(1), np.zeros((1, 1)), np.zeros(1))
    measures = [(metric, tolerance)]
    if loss is not None and link is not None:
        measures.append((loss, loss.tolerance(loss.score(judged[0].evaluation))))
    seen = np.concatenate([_gains(measure, judged) / unit for measure, unit in measures])
    noise = _noise([(measure, unit) for measure, unit in measures], judged)

    both = link if len(measures) == 2 else None
    ratios = _ratios(both, noise) if both else np.ones(many - 1)
    if both:
        judged = [
            judged[0],
            *(_bounded(metric, j, judged[j.over], tolerance) if j.trained else j for j in judged[1:]),
        ]
    prior_mean, prior_covariance = _prior(judged, both, ratios, seen[: many - 1], np.diag(noise)[: many - 1])
    noise = noise + np.diag(_misfit(seen - prior_mean, prior_covariance + noise, many - 1))
    weight = np.linalg.solve(prior_covariance + noise, prior_covariance).T
    means = prior_mean + weight @ (seen - prior_mean)
    covariance = prior_covariance - weight @ prior_covariance
    of_metric = slice(0, many - 1)
    full = np.zeros((many, many))
    full[1:, 1:] = covariance[of_metric, of_metric] * tolerance**2
    presumed = np.array([0.0, *(one.prior.spread * tolerance for one in judged[1:])])
    return Expected(np.concatenate([[0.0], means[of_metric] * tolerance]), full, presumed)


def _bounded(metric: Metric, one: Judged, over: Judged, tolerance: float) -> Judged:
    """With what was expected drawn in where both checkpoints give nearly the same answers.

    A gain of a metric that counts answers is what was won less what was lost, and so no more than what changed. How
    much an attempt would change was not known when its gain was forecast. Without this a chain of attempts that change
    two answers of 872 each is thought to get better and better by what each of its kind brings as a rule.
    """
    changed = paired(metric, _by_example(one.evaluation), _by_example(over.evaluation))
    # One more than was seen: of few examples, in which nothing changed, it is not known that nothing would.
    most = OF_CHANGED * (float(np.abs(changed).sum()) + 1.0) / len(changed) / tolerance
    if not most < one.prior.spread:  # also where the metric has no influence, and the bound is no number
        return one
    return replace(one, prior=Gain(one.prior.mean * most / one.prior.spread, most))


def _by_example(evaluation: Evaluation) -> Evaluation:
    """With a block for each example, since within a block what was won and what was lost cancel."""
    return Evaluation({**evaluation.columns, "block": np.arange(len(evaluation), dtype=np.float64)})


def _gains(measure: Metric, judged: Sequence[Judged]) -> Floats:
    first = measure.score(judged[0].evaluation)
    return np.array([measure.improvement(measure.score(j.evaluation), first) for j in judged[1:]])


def _noise(measures: Sequence[tuple[Metric, float]], judged: Sequence[Judged]) -> Floats:
    """The covariance of what was seen around the true gains, in tolerances; the metric's rows before the loss's.

    A covariance of many gains from few blocks is itself uncertain: correlations are drawn towards none by the share of
    gains among blocks, and all of it is widened as Student's t is.
    """
    rows = []
    for measure, unit in measures:
        sign = 1.0 if measure.goal == "maximize" else -1.0
        first = measure.influence(judged[0].evaluation)
        rows += [sign * (measure.influence(j.evaluation) - first) / unit for j in judged[1:]]
    influence = np.stack(rows)
    blocks = influence.shape[1]
    if blocks < 2:
        return np.eye(len(rows)) * UNKNOWN
    told = np.isfinite(influence).all(axis=1)
    influence[~told] = 0.0
    covariance = np.atleast_2d(np.cov(influence)) / blocks
    covariance *= (blocks - 1) / max(blocks - 3, 0.25)
    drawn = min(1.0, len(rows) / blocks)
    diagonal = np.diag(np.diag(covariance))
    own = np.where(told, 1e-9, UNKNOWN)
    return np.asarray((1.0 - drawn) * covariance + drawn * diagonal + np.diag(own))


def _ratios(link: Link, noise: Floats) -> Floats:
    """Tolerances of the loss for one of the metric, for each gain: as recorded, or more where the blocks show more.

    What a mistake costs is seen in the noise that both share. Where nearly all is right, 0.3% of the loss is a small
    part of that. A ratio below it would take a worse loss for bad luck and so for a better checkpoint: the weight of a
    loss is positive exactly while correlation times ratio is at least the slope of its noise over the metric's.
    """
    many = len(noise) // 2
    slopes = np.diag(noise[:many, many:]) / np.diag(noise)[:many]
    return np.maximum(link.ratio, slopes / max(link.correlation, 1e-9))


def _misfit(residual: Floats, covariance: Floats, gains: int) -> Floats:
    """Variance of their own for losses that lie further from what was expected than SURPRISE standard deviations.

    How a loss goes with the metric is known roughly. What it says beyond that must not be explained as noise that it
    shares with the metric, or a checkpoint that is better by both would be thought worse.
    """
    known = np.diag(covariance)
    extra = np.maximum(0.0, (residual / SURPRISE) ** 2 - known)
    extra[:gains] = 0.0
    return np.asarray(extra)


def _prior(
    judged: Sequence[Judged], link: Link | None, ratios: Floats, seen: Floats, noise: Floats
) -> tuple[Floats, Floats]:
    """Mean and covariance beforehand: gains add up along the chain of who led when each was tried, and those of one
    origin go together.

    `seen` and `noise`, of the metric, widen what was expected of an attempt where it lies further off than SURPRISE
    standard deviations: a prior is for small differences, and what is far beyond noise is believed.
    """
    many = len(judged) - 1
    path = np.zeros((many, many))  # which attempts' own gains lie between a checkpoint and the first
    for k, one in enumerate(judged[1:]):
        if one.over > 0:
            path[k] = path[one.over - 1]
        path[k, k] = 1.0
    mean = path @ np.array([j.prior.mean for j in judged[1:]])
    spread = np.array([j.prior.spread for j in judged[1:]])
    alike = np.eye(many)
    for k, one in enumerate(judged[1:]):
        alike[k, :k] = alike[:k, k] = [in_common(one.origin, other.origin) for other in judged[1 : k + 1]]
    for k in range(many):
        along = path[k] * spread
        known = along @ alike @ along + noise[k]
        surprise = max(0.0, ((seen[k] - mean[k]) / SURPRISE) ** 2 - known)
        spread[k] = math.sqrt(spread[k] ** 2 + surprise)
    covariance = path @ (alike * np.outer(spread, spread)) @ path.T
    if link is None:
        return mean, covariance
    crossed = link.correlation * covariance * ratios
    block = np.block([[covariance, crossed], [crossed.T, ratios[:, None] * covariance * ratios]])
    return np.concatenate([mean, link.correlation * ratios * mean]), block
