"""Metrics and scores as people write them: accuracy 79.2%, WER 12.3%, loss 1.234 nats a token.

The one place that decides on names, digits and units, for the terminal, the report, the model card and TensorBoard.
Names are those that the field writes: `WER` and `RMSE` stand in every paper, spelled out in none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multistep.core.evidence.metric import METRICS, Goal, Interval, Metric

NAMES: Mapping[str, str] = {
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro F1",
    "precision": "macro precision",
    "recall": "macro recall",
    "matthews": "Matthews correlation",
    "roc_auc": "ROC AUC",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mean_squared_error": "MSE",
    "root_mean_squared_error": "RMSE",
    "mean_absolute_error": "MAE",
    "mean_absolute_percentage_error": "MAPE",
    "r2": "R²",
    "mean_iou": "mean IoU",
    "dice": "Dice score",
    "token_f1": "token F1",
    # Of more than two classes it tells the true one from the rest, so that it is no more than ln 2 however many there
    # are, and may lie far below the loss.
    "calibrated_loss": "calibrated one-against-rest loss",
    "rouge_l": "ROUGE-L",
    "answer_accuracy": "right answers",
    "wer": "WER",
    "cer": "CER",
}
PERCENT = frozenset((
    "accuracy", "top5_accuracy", "pixel_accuracy", "token_accuracy", "exact_match", "answer_accuracy",
    "preference_accuracy", "wer", "cer", "mean_absolute_percentage_error",
))  # fmt: skip
WITH_UNIT = ("loss", "calibrated_loss", "margin")  # whose number means nothing without it
# Beside the one that decides, in the order in which people ask for them.
RANK = (
    "accuracy", "wer", "answer_accuracy", "exact_match", "preference_accuracy", "perplexity", "macro_f1", "roc_auc",
    "pearson", "root_mean_squared_error", "mean_absolute_error", "r2", "cer", "top5_accuracy", "token_f1", "rouge_l",
    "precision", "recall", "weighted_f1", "micro_f1", "matthews", "bits_per_byte", "margin", "spearman",
    "mean_absolute_percentage_error", "mean_squared_error", "loss", "calibrated_loss",
)  # fmt: skip
DECIMALS = 3  # of a score below 10 that is no percentage
NOTHING = 1e-9  # a difference that arithmetic makes
MOST_TOLD = 0.75  # of what a score can be: an interval that covers more says nothing that was not known before
TOO_FEW = "too few to say"
NARROW = 0.004  # width of an interval, from which downwards one digit more is worth writing


def metric_words(name: str) -> str:
    """`macro F1` of `macro_f1`; a user's own function keeps its name."""
    return NAMES.get(name, name.replace("_", " ") if name in METRICS else name)


def rank(name: str) -> tuple[int, str]:
    """The place among metrics that stand beside the deciding one; unknown ones first, for somebody wanted them."""
    return (RANK.index(name) if name in RANK else -1, name)


@dataclass(frozen=True)
class Form:
    """How one metric's scores are written: as a percentage or not, and in how many digits more than is usual."""

    name: str = "loss"
    unit: str = ""  # of a score, where it has one that people say: `nats a token`
    percent: bool = False
    finer: int = 0
    bounded: bool = False  # small scores of it are small, and not merely told in a large unit
    significant: bool = False  # in three digits, however small or large
    span: float = 0.0  # between the worst and the best that a score can be, where there are such

    def of(self, value: float, finer: int = 0) -> str:
        """A score: `84.1%`, `1.432`, `5,012.3`; in so many digits more."""
        finer += self.finer
        if not math.isfinite(value):
            return "not a number" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"
        if self.percent:
            return f"{100 * value:.{1 + finer}f}%"
        if self.significant or (0 < abs(value) < 0.01 and not self.bounded):
            return f"{value:.{3 + finer}g}"
        return f"{value:.{DECIMALS + finer}f}" if abs(value) < 10 else f"{value:,.{1 + finer}f}"

    def apart(self, one: float, other: float) -> tuple[str, str]:
        """Two scores in as many digits as it takes to see which is better, and a few at most."""
        pairs = [(self.of(one, finer), self.of(other, finer)) for finer in range(4)]
        return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])

    def gap(self, value: float) -> str:
        """A difference with its sign: `+3.1 points`, `-0.031`."""
        if not math.isfinite(value):
            return "beyond measure"
        points = " points" if self.percent else ""
        return f"{'+' if value >= 0 else '-'}{self._digits(value)}{points}"

    def size(self, value: float) -> str:
        """How far apart two scores are, without a sign: `1.2 points`, `0.031 nats a token`."""
        if not math.isfinite(value):
            return "beyond measure"
        digits = self._digits(value)
        if self.percent:
            return f"{digits} point{'' if digits == '1.0' else 's'}"
        return f"{digits} {self.unit}".rstrip()

    def size_of(self, value: float) -> str:
        """The same, with what it is of: `1.2 points of accuracy`, `0.031 nats a token`, `0.012 in ROC AUC`."""
        if not math.isfinite(value) or (self.unit and not self.percent):
            return self.size(value)
        return f"{self.size(value)} {'of' if self.percent else 'in'} {metric_words(self.name)}"

    def within(self, found: Mapping[str, Any]) -> str:
        """`+1.0 to +5.2` of a difference with bounds; empty without."""
        ends = [float(found[side]) for side in ("low", "high") if found.get(side) is not None]
        if len(ends) < 2 or not all(map(math.isfinite, ends)):
            return ""
        return " to ".join(self.gap(end).removesuffix(" points") for end in ends)

    def between(self, score: Interval | Mapping[str, Any]) -> str:
        """`77.9 to 80.5%`: the 95% interval; `too few to say` where it tells next to nothing, empty where it is not
        known.
        """
        low, high = (score.low, score.high) if isinstance(score, Interval) else (score["low"], score["high"])
        if not (math.isfinite(float(low)) and math.isfinite(float(high))):
            return ""
        if self.span and float(high) - float(low) > MOST_TOLD * self.span:
            return TOO_FEW
        return f"{self.of(float(low)).removesuffix('%')} to {self.of(float(high))}"

    def _digits(self, value: float) -> str:
        """A difference without its sign, in as many decimals as scores have, and in more where it is small."""
        value = abs(100 * value if self.percent else value)
        if self.percent:
            return f"{value:.{1 + self.finer}f}" if value >= 0.05 or value < 5e-4 else f"{value:.1g}"
        if NOTHING < value < 0.01:
            return f"{value:.{2 + self.finer}g}"
        return f"{value:.{DECIMALS + self.finer}f}" if value < 10 else f"{value:,.{1 + self.finer}f}"


def form_of(metric: Metric, width: float | None = None) -> Form:
    """The form of a metric's scores; `width` is that of its 95% interval, which decides what is worth writing."""
    fine = width is not None and 0 < width < NARROW
    unit = unit_words(metric) if _has_unit(metric) or metric.name == "bits_per_byte" else ""
    span = metric.bounds[1] - metric.bounds[0] if metric.bounds else float(metric.from_zero == "counts")
    return Form(metric.name, unit, metric.name in PERCENT, int(fine), metric.bounds is not None, span=span)


def score_words(metric: Metric, value: float) -> str:
    """`79.2%`, or `1.234`, in as many digits as people write."""
    return form_of(metric).of(value)


def told_apart(metric: Metric, one: float, other: float) -> tuple[str, str]:
    """Two scores in as many digits as it takes to see which is better, and a few at most."""
    return form_of(metric).apart(one, other)


def full_score(metric: Metric, value: float) -> str:
    """`accuracy 79.2%`, `loss 1.234 nats a token`."""
    unit = f" {unit_words(metric)}" if _has_unit(metric) and math.isfinite(value) else ""
    return f"{metric_words(metric.name)} {score_words(metric, value)}{unit}"


def with_bounds(metric: Metric, interval: Interval) -> str:
    """`accuracy 79.2% (77.9 to 80.5%)`: a score with its 95% interval."""
    about = between(metric, interval)
    return full_score(metric, interval.score) + (f" ({about})" if about else "")


def between(metric: Metric, interval: Interval) -> str:
    """`77.9 to 80.5%`: the 95% interval; empty where it is not known."""
    return form_of(metric).between(interval)


def difference_words(metric: Metric, value: float) -> str:
    """`1.2 points`, `0.031 nats a token`: how far apart two scores are, without a sign."""
    return form_of(metric).size(value)


def unit_words(metric: Metric) -> str:
    """`nats a token`, `errors a word`; `nats an example`."""
    return metric.unit.replace(" per example", " an example").replace(" per ", " a ")


def _has_unit(metric: Metric) -> bool:
    """Not for a loss of a user's own, which counts in no unit that has a name."""
    return metric.name in WITH_UNIT and metric.unit.startswith("nats")


def rate_words(value: float) -> str:
    """`28,400`, `739`, `1.3`: a speed or a number of epochs, as exactly as it is known."""
    return f"{value:.2g}" if value < 10 else f"{float(f'{value:.3g}'):,.0f}"


def width_of(score: Interval | None) -> float | None:
    return score.high - score.low if score else None


def goal_word(goal: Goal | str | None) -> str:
    return {"minimize": "lower is better", "maximize": "higher is better"}.get(str(goal), "")


def counted_word(unit: str | None) -> str:
    """What a score's `n` counts: running text is scored in spans, and has no examples."""
    return "spans of text" if unit and any(word in unit for word in ("per token", "per byte")) else "examples"
