"""Probabilities that mean what they say, and from which one on a label is said: found on a validation table.

Both are pure functions of an evaluation that holds `logit_0`, `logit_1`, ...: of one class a row the logarithms of its
probabilities (up to a constant), of several labels a row each label's log-odds. Neither changes which class is the
likeliest, so no verdict of a run depends on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from multistep.core.evidence.compare import compare
from multistep.core.evidence.metric import METRICS, Evaluation, Floats, Metric

LOGIT = "logit_"
MOST_LOGITS = 1_000_000  # of a table: 8 MB, before it is compressed; a larger one is left without
BINS = 15  # of the confidence: Guo et al., arXiv 1706.04599
COLDEST, HOTTEST = 0.05, 20.0  # temperatures
SPREAD = 1.0  # of the logarithm of temperatures as they are before any row was seen
AS_IT_IS = 0.01  # of the temperature: what is nearer to 1 is 1
HALF = 0.5  # the threshold of whoever has found no better one
FOLDS = 5  # of the validation split, each decided by a threshold that the others have chosen
CANDIDATES = 49  # thresholds on an even grid, and as many at the quantiles of the probabilities
SURELY = 2.0  # standard errors by which a threshold must be better than 0.5
# What rests on which label is said: of a run that is decided by these, answers are given at the threshold.
OF_DECISIONS = ("accuracy", "macro_f1", "weighted_f1", "micro_f1", "recall", "matthews")


@dataclass(frozen=True)
class Threshold:
    """The probability above which a label, or the second of two classes, is said; found by the metric `by`.

    `used` tells whether answers are given at it: if the run was decided by such a metric, and thresholds that are
    chosen on some of the validation split are better than 0.5 on the rest of it, by more than two standard errors.
    """

    value: float
    by: str
    used: bool


@dataclass(frozen=True)
class Calibration:
    """Logits are divided by `temperature`; `threshold` is None where there is none: of three classes and more."""

    temperature: float
    threshold: Threshold | None = None

    @property
    def cut(self) -> float:
        """The threshold at which answers are given."""
        return self.threshold.value if self.threshold and self.threshold.used else HALF


@dataclass(frozen=True)
class Reliability:
    """How far probabilities are from frequencies: nats an example, and the expected calibration error (0 to 1)."""

    nll: float
    ece: float


def calibrate(validation: Evaluation, deciding: str) -> Calibration | None:
    """The temperature and the threshold of a validation table; None where it holds no logits, or no finite ones.

    `deciding` is the name of the metric that decides in the run.
    """
    logits_NK = logits_of(validation)
    if logits_NK is None or not len(logits_NK) or not np.isfinite(logits_NK).all():
        return None
    temperature = fit_temperature(validation)
    found = Calibration(temperature)
    return Calibration(temperature, _threshold(validation, found, deciding))


def logits_of(evaluation: Evaluation) -> Floats | None:
    """The table's logits (shape: rows, classes); None where it has none."""
    count = sum(name.startswith(LOGIT) for name in evaluation.columns)
    if not count:
        return None
    return np.stack([evaluation.columns[f"{LOGIT}{k}"] for k in range(count)], axis=1)


def without_logits(evaluation: Evaluation) -> Evaluation:
    return Evaluation({name: column for name, column in evaluation.columns.items() if not name.startswith(LOGIT)})


def is_several(evaluation: Evaluation) -> bool:
    """Whether rows can have several labels."""
    return "label_0" in evaluation.columns


# Temperature ----------------------------------------------------------------------------------------


def fit_temperature(evaluation: Evaluation) -> float:
    """The temperature by which the logits must be divided so that the labels are likeliest.

    Source: Guo et al., On calibration of modern neural networks, arXiv 1706.04599. Of a split without a mistake any
    temperature towards 0 would be better still, and the next mistake would cost the more. So below 1 one mistake more
    is counted than there are: a row's worth of other labels, spread over all rows, as Platt smooths his targets
    (Probabilistic outputs for support vector machines, 1999).
    """
    found = _likeliest(evaluation, mistakes=0.0)
    if found < 1.0:
        found = min(1.0, _likeliest(evaluation, mistakes=1.0))
    return 1.0 if abs(found - 1.0) < AS_IT_IS else found


def _likeliest(evaluation: Evaluation, mistakes: float) -> float:
    """With a weak prior on the temperature's logarithm, and so many mistakes more than there are."""
    from scipy.optimize import minimize_scalar

    rows = len(evaluation)

    def cost(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        imagined = mistakes * _nll_of_others(evaluation, temperature) if mistakes else 0.0
        return rows * _nll(evaluation, temperature) + imagined + 0.5 * (log_temperature / SPREAD) ** 2

    # In 1 / T the likelihood has one best place; in the prior's scale a coarse look comes first.
    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), 25)
    best = int(np.argmin([cost(float(at)) for at in grid]))
    bounds = float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)])
    return math.exp(float(minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))


def probabilities_at(evaluation: Evaluation, temperature: float) -> Floats:
    """Each class's or label's probability (shape: rows, classes)."""
    logits_NK = logits_of(evaluation)
    assert logits_NK is not None, "asked for where there are some"
    return of_labels(logits_NK / temperature) if is_several(evaluation) else of_classes(logits_NK / temperature)


def of_classes(logits_NK: Floats) -> Floats:
    shifted = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    shares: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def of_labels(logits_NK: Floats) -> Floats:
    shares: Floats = 0.5 * (1.0 + np.tanh(0.5 * logits_NK))
    return shares


def reliability(evaluation: Evaluation, temperature: float) -> Reliability:
    """The calibration of the table's probabilities at a temperature.

    The expected calibration error is that of Guo et al.: of one class a row, how far the likeliest class's probability
    is from how often it is right, in bins of equal width, each weighted by its rows; of several labels the same of each
    label's own probability.
    """
    probabilities_NK = probabilities_at(evaluation, temperature)
    if is_several(evaluation):
        sure, right = probabilities_NK.ravel(), _labels(evaluation).ravel()
    else:
        sure = probabilities_NK.max(axis=1)
        right = (probabilities_NK.argmax(axis=1) == evaluation.columns["label"]).astype(np.float64)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(bins, weights=sure - right, minlength=BINS))
    return Reliability(_nll(evaluation, temperature), float(gaps.sum() / len(sure)))


def _nll(evaluation: Evaluation, temperature: float) -> float:
    """The mean negative log-likelihood of a row's label, or the sum of its labels' (nats)."""
    logits_NK = logits_of(evaluation)
    assert logits_NK is not None, "asked for where there are some"
    scaled_NK = logits_NK / temperature
    if is_several(evaluation):
        signs = 1.0 - 2.0 * _labels(evaluation)
        return float(np.logaddexp(0.0, signs * scaled_NK).sum(axis=1).mean())
    label = evaluation.columns["label"].astype(int)
    own = scaled_NK[np.arange(len(label)), label]
    top = scaled_NK.max(axis=1)
    return float((top + np.log(np.exp(scaled_NK - top[:, None]).sum(axis=1)) - own).mean())


def _nll_of_others(evaluation: Evaluation, temperature: float) -> float:
    """The mean negative log-likelihood of a label that a row does not have (nats)."""
    logits_NK = logits_of(evaluation)
    assert logits_NK is not None, "asked for where there are some"
    scaled_NK = logits_NK / temperature
    if is_several(evaluation):
        signs = 1.0 - 2.0 * _labels(evaluation)
        return float(np.logaddexp(0.0, -signs * scaled_NK).mean())
    label = evaluation.columns["label"].astype(int)
    others_N = (scaled_NK.sum(axis=1) - scaled_NK[np.arange(len(label)), label]) / max(1, scaled_NK.shape[1] - 1)
    top = scaled_NK.max(axis=1)
    return float((top + np.log(np.exp(scaled_NK - top[:, None]).sum(axis=1)) - others_N).mean())


def _labels(evaluation: Evaluation) -> Floats:
    count = sum(name.startswith("label_") for name in evaluation.columns)
    return np.stack([evaluation.columns[f"label_{k}"] for k in range(count)], axis=1)


# Threshold ------------------------------------------------------------------------------------------


def at_threshold(evaluation: Evaluation, calibration: Calibration, cut: float) -> Evaluation:
    """The table with labels, or the second of two classes, predicted where their probability is above `cut`."""
    probabilities_NK = probabilities_at(evaluation, calibration.temperature)
    return _cut(evaluation, probabilities_NK, np.full(len(evaluation), cut))


def threshold_metric(evaluation: Evaluation, deciding: str) -> Metric:
    """What a threshold is chosen by: the metric that decides if that is one of decisions, else F1."""
    several = is_several(evaluation)
    usual = METRICS["micro_f1" if several else "macro_f1"]
    asked = METRICS[deciding] if deciding in OF_DECISIONS else usual
    return asked if asked.applies(evaluation) else usual


def _threshold(evaluation: Evaluation, calibration: Calibration, deciding: str) -> Threshold | None:
    """The best threshold; one for all labels, since rare ones have too few rows for one of their own.

    Of several that are equally good, the one next to 0.5. For micro F1 one for all is the best there is anyway (Lipton
    et al., Optimal thresholding of classifiers to maximize F1 measure, arXiv 1402.1892).
    """
    probabilities_NK = probabilities_at(evaluation, calibration.temperature)
    several = is_several(evaluation)
    if not several and probabilities_NK.shape[1] != 2:
        return None
    metric = threshold_metric(evaluation, deciding)
    bare = without_logits(evaluation)
    best = _best_cut(metric, bare, probabilities_NK)
    if best is None:
        return None
    half = _cut(bare, probabilities_NK, np.full(len(bare), HALF))
    gain = compare(metric, _cut(bare, probabilities_NK, _cuts_of_others(metric, bare, probabilities_NK)), half)
    surely = math.isfinite(gain.standard_error) and gain.improvement > SURELY * gain.standard_error
    return Threshold(best, metric.name, used=metric.name == deciding and surely)


def _best_cut(metric: Metric, bare: Evaluation, probabilities_NK: Floats) -> float | None:
    """The best of an even grid and of the quantiles of the probabilities; None where the metric has no number."""
    told = probabilities_NK if is_several(bare) else probabilities_NK[:, 1]
    shares = np.arange(1, CANDIDATES + 1) / (CANDIDATES + 1)
    found = {float(cut) for cut in (*shares, *np.quantile(told, shares)) if 0.0 < cut < 1.0}
    cuts = [HALF, *sorted(found, key=lambda cut: abs(cut - HALF))]
    scores = [metric.score(_cut(bare, probabilities_NK, np.full(len(bare), cut))) for cut in cuts]
    return cuts[int(np.argmax(scores))] if np.isfinite(scores).all() else None


def _cuts_of_others(metric: Metric, bare: Evaluation, probabilities_NK: Floats) -> Floats:
    """For each row the threshold that the rows of the other folds have chosen, which is honest about it."""
    fold_N = bare.block_index() % FOLDS
    cut_N = np.full(len(bare), HALF)
    for fold in range(FOLDS):
        rest = fold_N != fold
        if rest.any() and not rest.all():
            others = Evaluation({name: column[rest] for name, column in bare.columns.items()})
            cut_N[~rest] = _best_cut(metric, others, probabilities_NK[rest]) or HALF
    return cut_N


def _cut(evaluation: Evaluation, probabilities_NK: Floats, cut_N: Floats) -> Evaluation:
    said = (probabilities_NK > cut_N[:, None]).astype(np.float64)
    if is_several(evaluation):
        return Evaluation({**evaluation.columns, **{f"prediction_{k}": said[:, k] for k in range(said.shape[1])}})
    return Evaluation({**evaluation.columns, "prediction": said[:, 1]})
