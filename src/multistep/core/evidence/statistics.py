"""Statistics of a table that are no ratio of two sums: each gives its value and every row's influence on it.

The influence of a row is the first-order effect of giving it more weight (Hampel, The influence curve, 1974;
Efron's infinitesimal jackknife): its mean over rows is 0, and the value's error is the mean of what was drawn.

Where a statistic is undefined it is a number by definition, so that a curve has no holes: 0 for correlations
and classes, 0.5 for the area under the curve. If the predictions are to blame (constant, a class never
predicted), its influence is 0; if the labels are (one class alone), nothing can be shown and it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = Mapping[str, Floats]
Estimate: TypeAlias = tuple[float, Floats]

SHARPEST = 20.0  # 1 / temperature; a net that makes no mistake would have it endless


# What a table holds ---------------------------------------------------------------------------------


def has_classes(columns: Columns) -> bool:
    """Whether the labels are class numbers: tables of classes and of numbers differ in nothing else."""
    return all(bool(np.all(columns[name] == np.floor(columns[name]))) for name in ("label", "prediction"))


def has_numbers(columns: Columns) -> bool:
    return not has_classes(columns)


def has_two_classes(columns: Columns) -> bool:
    return bool(np.isin(columns["label"], (0.0, 1.0)).all())


def always(_columns: Columns) -> bool:
    return True


# Means ----------------------------------------------------------------------------------------------


def mean_of(row: Floats) -> Estimate:
    value = float(row.mean())
    return value, row - value


def mean_column(name: str) -> Callable[[Columns], Estimate]:
    """The mean of a column whose rows are scores already."""
    return lambda columns: mean_of(columns[name])


def accuracy(columns: Columns) -> Estimate:
    """The share of rows whose prediction is the label."""
    return mean_of((columns["label"] == columns["prediction"]).astype(np.float64))


def top5_accuracy(columns: Columns) -> Estimate:
    """The share of rows whose label is among the five likeliest classes."""
    return mean_of(columns["in_top5"])


def preference_accuracy(columns: Columns) -> Estimate:
    """The share of pairs whose margin is above 0; where it is 0 nothing is preferred, which is half right."""
    margin = columns["margin"]
    return mean_of((margin > 0) + 0.5 * (margin == 0))


# Classes: one row belongs to one --------------------------------------------------------------------


def macro_precision(columns: Columns) -> Estimate:
    return _over_classes(columns, share_predicted=1.0)


def macro_recall(columns: Columns) -> Estimate:
    return _over_classes(columns, share_predicted=0.0)


def macro_f1(columns: Columns) -> Estimate:
    """The mean of the classes' F1, or of the labels' where a row can have several (`label_0`, ...)."""
    return _over_classes(columns, 0.5) if "label" in columns else _over_labels(columns)


def weighted_f1(columns: Columns) -> Estimate:
    """The mean of the classes' F1, each weighted by its number of examples."""
    return _over_classes(columns, 0.5, weighted=True)


def _over_classes(columns: Columns, share_predicted: float, weighted: bool = False) -> Estimate:
    """The mean over classes of hits / (share of the predicted + rest of the labelled), van Rijsbergen's measure.

    A share of 1 gives precision, 0 recall, 0.5 F1. A class without an example in the split is left out:
    nothing is known about it, and predicting it costs another class's recall already. scikit-learn counts it as
    0 from the first prediction on, a jump that no influence tells of: docs/appendix/measured-tasks.md.
    """
    label, prediction, labelled_K, predicted_K, hits_K = _confusion(columns)
    hit = label == prediction
    below_K = share_predicted * predicted_K + (1 - share_predicted) * labelled_K
    value_K = _ratio(hits_K, below_K)
    weight_K = labelled_K / len(label) if weighted else (labelled_K > 0) / np.count_nonzero(labelled_K)
    value = float(weight_K @ value_K)
    pull_K = len(label) * _ratio(weight_K, below_K)
    influence = pull_K[label] * (hit - (1 - share_predicted) * value_K[label])
    influence -= share_predicted * (pull_K * value_K)[prediction]
    if weighted:
        influence += value_K[label] - value
    return value, influence


def matthews(columns: Columns) -> Estimate:
    """The correlation of labels and predictions over all classes, -1 to 1; 0 for a constant prediction.

    Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004.
    """
    label, prediction, labelled_K, predicted_K, hits_K = _confusion(columns)
    rows = len(label)
    if np.count_nonzero(labelled_K) < 2:
        return 0.0, np.full(rows, np.nan)
    if np.count_nonzero(predicted_K) < 2:
        return 0.0, np.zeros(rows)
    truth_K, guess_K, right = labelled_K / rows, predicted_K / rows, hits_K.sum() / rows
    chance, same_guess, same_truth = float(truth_K @ guess_K), float(guess_K @ guess_K), float(truth_K @ truth_K)
    spread = np.sqrt((1 - same_guess) * (1 - same_truth))
    value = float((right - chance) / spread)
    above = (label == prediction) - right - truth_K[prediction] - guess_K[label] + 2 * chance
    below = (same_guess - guess_K[prediction]) / (1 - same_guess) + (same_truth - truth_K[label]) / (1 - same_truth)
    return value, above / spread - value * below


def _confusion(columns: Columns) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats, Floats, Floats]:
    """Label and prediction as indices of the classes that occur; rows labelled, predicted and hit per class."""
    rows = len(columns["label"])
    both = np.concatenate([columns["label"], columns["prediction"]])
    classes, index = np.unique(both, return_inverse=True)
    label, prediction = index[:rows], index[rows:]
    labelled_K, predicted_K, hits_K = (
        np.bincount(rows_of, minlength=len(classes)).astype(np.float64)
        for rows_of in (label, prediction, label[label == prediction])
    )
    return label, prediction, labelled_K, predicted_K, hits_K


# Labels: one row can have several ---------------------------------------------------------------------


def micro_f1(columns: Columns) -> Estimate:
    """F1 over all labels of all rows at once: `label_0`, ... and `prediction_0`, ..., each 0 or 1."""
    label_NK, prediction_NK = _labels(columns)
    hits = (label_NK * prediction_NK).sum(axis=1)
    below = (label_NK + prediction_NK).sum(axis=1) / 2
    if not label_NK.any():
        return 0.0, np.full(len(hits), np.nan)
    value = float(hits.sum() / below.sum())
    return value, (hits - value * below) / below.mean()


def _over_labels(columns: Columns) -> Estimate:
    label_NK, prediction_NK = _labels(columns)
    present_K = label_NK.any(axis=0)
    if not present_K.any():
        return 0.0, np.full(len(label_NK), np.nan)
    hits_NK = (label_NK * prediction_NK)[:, present_K]
    below_NK = (label_NK + prediction_NK)[:, present_K] / 2
    value_K = hits_NK.sum(axis=0) / below_NK.sum(axis=0)
    influence_NK = (hits_NK - value_K * below_NK) / below_NK.mean(axis=0)
    return float(value_K.mean()), influence_NK.mean(axis=1)


def _labels(columns: Columns) -> tuple[Floats, Floats]:
    count = sum(1 for name in columns if name.startswith("label_") and name[6:].isdigit())
    label_NK, prediction_NK = (
        np.stack([columns[f"{kind}_{k}"] for k in range(count)], axis=1) for kind in ("label", "prediction")
    )
    return label_NK, prediction_NK


# Order and numbers ------------------------------------------------------------------------------------


def roc_auc(columns: Columns) -> Estimate:
    """The share of pairs of a positive and a negative row whose scores are in that order; a tie counts half.

    A row's influence is its placement among the other class: DeLong, DeLong and Clarke-Pearson, 1988.
    """
    positive, score = columns["label"] == 1, columns["score"]
    share = float(positive.mean())
    if share in (0.0, 1.0):
        return 0.5, np.full(len(score), np.nan)
    positives_below = _mass_below(score, positive.astype(np.float64)) / positive.sum()
    negatives_below = _mass_below(score, (~positive).astype(np.float64)) / (~positive).sum()
    placement = np.where(positive, negatives_below, 1 - positives_below)
    value = float(placement[positive].mean())
    return value, (placement - value) / np.where(positive, share, 1 - share)


def calibrated_loss(columns: Columns) -> Estimate:
    """The loss without overconfidence: the mean of log(1 + exp(-z / T)) at the temperature T that is best.

    z is the logit of the true class against the rest, so T is the usual temperature where there are two classes, and
    close to it where there are more. A net that is trained on gets surer of its mistakes long after it has stopped
    making more of them: its loss rises with that, and this one does not (Guo et al., arXiv 1706.04599). T is at its
    best, so a row's influence does not pass through it.
    """
    loss = np.maximum(columns["loss"] / columns["count"], 1e-9)
    with np.errstate(over="ignore"):
        z = -loss - np.log(-np.expm1(-loss))
    sharpness = _best_sharpness(z)
    rows = np.logaddexp(0.0, -z * sharpness)
    value = float(rows.mean())
    return value, rows - value


def _best_sharpness(z: Floats) -> float:
    """1 / T with the least mean of log(1 + exp(-z / T)), which is convex in it: Newton's method, held within bounds."""
    low, high, at = 0.0, SHARPEST, 1.0
    for _ in range(40):
        share = 1.0 / (1.0 + np.exp(np.minimum(z * at, 700.0)))
        slope, bend = -float(np.mean(z * share)), float(np.mean(z * z * share * (1.0 - share)))
        low, high = (low, at) if slope > 0 else (at, high)
        step = at - slope / bend if bend > 1e-12 else math.inf
        new = step if low < step < high else 0.5 * (low + high)
        if abs(new - at) < 1e-6 * max(1.0, at):
            return new
        at = new
    return at


def pearson(columns: Columns) -> Estimate:
    """The linear correlation of label and prediction; 0 where one of them is constant."""
    x, y = columns["label"], columns["prediction"]
    x, y = x - x.mean(), y - y.mean()
    return _correlation(x, y, x * y, x * x, y * y)


def spearman(columns: Columns) -> Estimate:
    """The correlation of the ranks, ties sharing theirs; 0 where one column is constant.

    A row also moves the ranks of the others, hence the sums above it: Croux and Dehon, 2010.
    """
    x, y = columns["label"], columns["prediction"]
    u, v = _rank(x), _rank(y)
    return _correlation(
        u,
        v,
        u * v + _mean_above(x, v) + _mean_above(y, u),
        u * u + 2 * _mean_above(x, u),
        v * v + 2 * _mean_above(y, v),
    )


def _correlation(x: Floats, y: Floats, product: Floats, square_x: Floats, square_y: Floats) -> Estimate:
    """From centred columns, and each row's effect on their covariance and variances up to a constant."""
    variance_x, variance_y = float(np.mean(x * x)), float(np.mean(y * y))
    if variance_x <= 0 or np.ptp(x) == 0:
        return 0.0, np.full(len(x), np.nan)
    if variance_y <= 0 or np.ptp(y) == 0:
        return 0.0, np.zeros(len(x))
    spread = np.sqrt(variance_x) * np.sqrt(variance_y)
    value = float(np.mean(x * y) / spread)
    influence = product / spread - value / 2 * (square_x / variance_x + square_y / variance_y)
    return value, influence - influence.mean()


def _rank(x: Floats) -> Floats:
    """The share of rows below each row, its own ties counting half, less 1/2: mean 0."""
    return _mass_below(x, np.ones(len(x))) / len(x) - 0.5


def _mass_below(x: Floats, mass: Floats) -> Floats:
    """For each row, the mass of the rows whose x is smaller, and half that of those whose x is the same."""
    _, index = np.unique(x, return_inverse=True)
    at = np.bincount(index, weights=mass)
    below: Floats = np.cumsum(at) - at / 2
    return below[index]


def _mean_above(x: Floats, mass: Floats) -> Floats:
    above: Floats = (mass.sum() - _mass_below(x, mass)) / len(x)
    return above


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 where there is nothing below."""
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)
