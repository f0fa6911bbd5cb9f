"""Metrics by the names that people write, and scores in the form in which they read them: accuracy 79.2%."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multistep.core.evidence.metric import Goal, Interval

SHARES = ("of examples", "of answers", "of pairs", "errors per word", "errors per character", "of pixels", "of tokens")
NAMES: Mapping[str, str] = {
    "wer": "word error rate", "cer": "character error rate", "roc_auc": "ROC AUC", "macro_f1": "macro F1",
    "weighted_f1": "weighted F1", "micro_f1": "micro F1", "token_f1": "token F1", "rouge_l": "ROUGE-L",
    "matthews": "Matthews correlation", "pearson": "Pearson correlation", "spearman": "Spearman correlation",
    "top5_accuracy": "top-5 accuracy", "mean_squared_error": "mean squared error",
    "precision": "macro precision", "recall": "macro recall", "mae": "mean absolute error", "rmse": "RMSE",
    "mean_absolute_error": "mean absolute error", "r2": "R²", "mape": "mean absolute percentage error",
    "root_mean_squared_error": "root mean squared error", "mean_iou": "mean IoU",
}  # fmt: skip
UNIT_BY_NAME: Mapping[str, str] = {
    "accuracy": "of examples", "top5_accuracy": "of examples", "exact_match": "of answers",
    "answer_accuracy": "of answers", "preference_accuracy": "of pairs", "wer": "errors per word",
    "cer": "errors per character", "perplexity": "per token", "bits_per_byte": "bits per byte",
}  # fmt: skip
# Beside the one that decides, in the order in which people ask for them.
RANK = (
    "accuracy", "wer", "answer_accuracy", "exact_match", "preference_accuracy", "perplexity", "macro_f1", "roc_auc",
    "pearson", "rmse", "root_mean_squared_error", "mae", "mean_absolute_error", "r2", "cer", "top5_accuracy",
    "token_f1", "rouge_l", "precision", "recall", "weighted_f1", "micro_f1", "matthews", "bits_per_byte", "margin",
    "loss", "calibrated_loss",
)  # fmt: skip


def metric_title(name: str) -> str:
    """`macro_f1` -> `macro F1`, `wer` -> `word error rate`."""
    return NAMES.get(name, name.replace("_", " "))


def rank(name: str) -> tuple[int, str]:
    """The place among metrics that stand beside the deciding one; unknown ones first, for somebody wanted them."""
    return (RANK.index(name) if name in RANK else -1, name)


@dataclass(frozen=True)
class Form:
    """How a metric's scores are written: as a percentage or not, with so many decimals (None: three digits)."""

    percent: bool
    decimals: int | None
    unit: str = ""

    def of(self, value: float) -> str:
        """A score: `84.1%`, `1.4321`, `5,012.3`."""
        if not math.isfinite(value):
            return {True: "∞", False: "-∞"}[value > 0] if math.isinf(value) else "not a number"
        if self.percent:
            return f"{100 * value:.{self.decimals or 0}f}%"
        if self.decimals is None:
            return f"{value:.3g}"
        return f"{value:,.{self._decimals(value)}f}"

    def gap(self, value: float) -> str:
        """A difference with its sign: `+3.1 points`, `-0.0312`."""
        if not math.isfinite(value):
            return "+∞" if value > 0 else "-∞"
        if self.percent:
            return f"{100 * value:+.{self.decimals or 0}f} points"
        return f"{value:+,.{self._decimals(value)}f}"

    def within(self, found: Mapping[str, Any]) -> str:
        """`[+1.0, +5.2]` of a difference with bounds; empty without."""
        if found.get("low") is None or found.get("high") is None:
            return ""
        low, high = (self.gap(float(found[side])).removesuffix(" points") for side in ("low", "high"))
        return f"{low} to {high}"

    def between(self, score: Interval | Mapping[str, Any]) -> str:
        """`82.4% to 85.7%`: the 95% interval alone; words where it is open."""
        low, high = (score.low, score.high) if isinstance(score, Interval) else (score["low"], score["high"])
        low, high = float(low), float(high)
        if not (math.isfinite(low) and math.isfinite(high)):
            return "not known: too few independent pieces"
        return f"{self.of(low)} to {self.of(high)}"

    def _decimals(self, value: float) -> int:
        places = 4 if self.decimals is None else self.decimals
        return places if abs(value) < 100 else 1


def form_of(name: str, unit: str | None = None, width: float | None = None) -> Form:
    """The form of a metric's scores; `width` is that of its 95% interval, which decides what is worth writing."""
    unit = unit or UNIT_BY_NAME.get(name, "")
    if unit in SHARES:
        fine = width is not None and math.isfinite(width) and width < 0.004
        return Form(True, 2 if fine else 1, unit)
    if name == "perplexity":
        return Form(False, 2, unit)
    return Form(False, 4, unit)


def width_of(score: Interval | None) -> float | None:
    return score.high - score.low if score else None


def goal_word(goal: Goal | str | None) -> str:
    return {"minimize": "lower is better", "maximize": "higher is better"}.get(str(goal), "")


def counted_word(unit: str | None) -> str:
    """What a score's `n` counts: running text is scored in spans, and has no examples."""
    return "spans of text" if unit and any(word in unit for word in ("per token", "per byte")) else "examples"
