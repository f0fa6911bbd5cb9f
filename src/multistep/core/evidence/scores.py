"""Metrics and scores as people write them: accuracy 79.2%, WER 12.3%, loss 1.234 nats a token."""

from __future__ import annotations

import math

from multistep.core.evidence.metric import Interval, Metric

NAMES = {
    "loss": "loss",
    "calibrated_loss": "calibrated loss",
    "bits_per_byte": "bits per byte",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro F1",
    "precision": "macro precision",
    "recall": "macro recall",
    "matthews": "Matthews correlation",
    "roc_auc": "ROC AUC",
    "pearson": "Pearson correlation",
    "spearman": "Spearman rank correlation",
    "mean_squared_error": "MSE",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "answer_accuracy": "right answers",
    "preference_accuracy": "preference accuracy",
    "wer": "WER",
    "cer": "CER",
}
PERCENT = frozenset(
    ("accuracy", "top5_accuracy", "exact_match", "answer_accuracy", "preference_accuracy", "wer", "cer")
)
WITH_UNIT = ("loss", "calibrated_loss", "margin")  # whose number means nothing without it


def metric_words(name: str) -> str:
    """`WER` of `wer`; a user's own function keeps its name."""
    return NAMES.get(name, name.replace("_", " "))


def score_words(metric: Metric, value: float, finer: int = 0) -> str:
    """`79.2%`, or `1.234`, in as many digits as people write, and so many more."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if metric.name in PERCENT:
        return f"{100 * value:.{1 + finer}f}%"
    if 0 < abs(value) < 0.01 and not metric.bounds:
        return f"{value:.{3 + finer}g}"
    return f"{value:.{3 + finer}f}" if abs(value) < 10 else f"{value:,.{1 + finer}f}"


def told_apart(metric: Metric, one: float, other: float) -> tuple[str, str]:
    """Two scores in as many digits as it takes to see which is better, and a few at most."""
    pairs = [(score_words(metric, one, finer), score_words(metric, other, finer)) for finer in range(4)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])


def full_score(metric: Metric, value: float) -> str:
    """`accuracy 79.2%`, `loss 1.234 nats a token`."""
    unit = f" {unit_words(metric)}" if metric.name in WITH_UNIT and math.isfinite(value) else ""
    return f"{metric_words(metric.name)} {score_words(metric, value)}{unit}"


def unit_words(metric: Metric) -> str:
    return metric.unit.replace(" per ", " a ")


def rate_words(value: float) -> str:
    """`28,400`, `739`, `1.3`: a speed or a number of epochs, as exactly as it is known."""
    return f"{value:.2g}" if value < 10 else f"{float(f'{value:.3g}'):,.0f}"


def between(metric: Metric, interval: Interval) -> str:
    """`77.9 to 80.5%`: the 95% interval; empty where it is not known."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return ""
    low, high = score_words(metric, interval.low), score_words(metric, interval.high)
    return f"{low.removesuffix('%')} to {high}"


def difference_words(metric: Metric, value: float) -> str:
    """`1.2 points`, `0.031 nats a token`: how far apart two scores are, without a sign."""
    if not math.isfinite(value):
        return "beyond measure"
    if metric.name in PERCENT:
        points = f"{100 * abs(value):.1f}"
        return f"{points} point{'' if points == '1.0' else 's'}"
    unit = f" {unit_words(metric)}" if metric.name in WITH_UNIT else ""
    return f"{abs(value):.3g}{unit}"


def with_bounds(metric: Metric, interval: Interval) -> str:
    """`accuracy 79.2% (77.9 to 80.5)`: a score with its 95% interval."""
    about = between(metric, interval)
    return full_score(metric, interval.score) + (f" ({about})" if about else "")
