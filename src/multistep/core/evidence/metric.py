"""Metrics: pure functions of an evaluation's table.

An evaluation holds columns with one row an example, so that two checkpoints can be compared pair by pair.
Rows that are not independent (neighbouring spans of one text) share a block, and blocks are what is resampled.

A metric is a ratio of two column sums (`Ratio`), a function of `core/evidence/statistics.py` with its influence
(`Statistic`), or a user's function (`core/evidence/function_metric.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from multistep.core.evidence import places, regression, statistics
from multistep.core.evidence.intervals import above_zero, wilson
from multistep.core.evidence.intervals import margin as margin
from multistep.core.evidence.intervals import standard_error as standard_error
from multistep.errors import PlanError, nearest

Floats = npt.NDArray[np.float64]
Goal = Literal["minimize", "maximize"]
Function: TypeAlias = Callable[[Mapping[str, Floats]], tuple[float, Floats]]
Suits: TypeAlias = Callable[[Mapping[str, Floats]], bool]

OF_LOSS = ("loss", "calibrated_loss", "perplexity", "bits_per_byte")  # the loss itself, in other units
BESIDE = ("calibrated_loss", "loss")  # what tells checkpoints apart where another metric decides, the best first
MARGIN_TOLERANCE = 0.01  # nats: a margin begins at 0, where a share of it is nothing
SHARE_TOLERANCE = 0.002  # of metrics between 0 and 1, whose steps do not shrink with the score


@dataclass(frozen=True)
class Evaluation:
    """A split scored example by example.

    `columns` maps a name to one number per example (all of equal length); `block` numbers the examples'
    blocks, one for each example unless examples depend on each other.

    text            `loss` (summed nats), `count` (tokens), `bytes` (UTF-8)
    classification  `label`, `prediction` (class numbers), `loss`, `count`; perhaps `probability` (of the
                    prediction), `in_top5` (0 or 1), `score` (of class 1, where there are two classes)
    several labels  `label_0`, ..., `prediction_0`, ... (0 or 1)
                    where they are few enough `logit_0`, ...: the classes' log-probabilities, or the labels' log-odds
    regression      `label`, `prediction`; of several numbers `target_0`, ..., `output_0`, ...
    places          `hit_0`, ..., `labelled_0`, ..., `predicted_0`, ... (places by class), `right_pixels`, `pixels` or
                    `right_tokens`, `tokens`
    preferences     `margin` (implicit reward of what was chosen less that of what was rejected), `loss`, `count`
    speech          `errors`, `words`, `character_errors`, `characters`, `heard_characters` (of the transcript that
                    came out: all 0 while nothing is recognised), `loss` (CTC's, summed nats), `count` (characters)
    conversations   `loss` (summed nats), `count` (tokens learnt from); where answers were generated or compared
                    `exact`, `token_f1`, `rouge_l`, `right_answer` (each 0 to 1)
    """

    columns: Mapping[str, Floats]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) != 1 or "block" not in self.columns:
            raise ValueError(f"an evaluation needs a 'block' column and columns of one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.columns["block"])

    def by_block(self, name: str) -> Floats:
        """The column summed within each block, in the order of the block numbers."""
        return self.sum_blocks(self.columns[name])

    def sum_blocks(self, row: Floats) -> Floats:
        """One number per example, summed within each block."""
        return np.bincount(self.block_index(), weights=row).astype(np.float64)

    def block_index(self) -> npt.NDArray[np.intp]:
        """Each example's block, counted from 0."""
        return np.unique(self.columns["block"], return_inverse=True)[1]


@dataclass(frozen=True)
class Interval:
    """A score with its 95% interval; `n` is the number of examples it rests on, in `blocks` independent pieces."""

    score: float
    low: float
    high: float
    n: int
    blocks: int = 0

    def __str__(self) -> str:
        """`0.963 (0.935 to 0.979)`; without its interval where it has none."""
        within = f" ({self.low:.4g} to {self.high:.4g})" if self.low == self.low and self.high == self.high else ""
        return f"{self.score:.4g}{within}"


@dataclass(frozen=True)
class Metric(ABC):
    """What an evaluation is judged by.

    The change that nobody would wait for is the larger of `relative_tolerance` (a share of the score) and
    `absolute_tolerance` (in the metric's unit): what stability and forecasts are held against when the plan
    names no tolerance. `bounds` are the worst and best that a score can be, where there are such. `from_zero`: it is
    made of numbers of which none is negative, "counts" if they are such; so nor is any end of its interval.
    """

    name: str
    goal: Goal
    unit: str
    relative_tolerance: float = field(default=0.003, kw_only=True)
    absolute_tolerance: float = field(default=1e-9, kw_only=True)
    bounds: tuple[float, float] | None = field(default=None, kw_only=True)
    exponential: bool = field(default=False, kw_only=True)
    from_zero: Literal["counts", "amounts"] | None = field(default=None, kw_only=True)

    @abstractmethod
    def applies(self, evaluation: Evaluation) -> bool:
        """Whether the evaluation holds what the score is made of."""

    @abstractmethod
    def score(self, evaluation: Evaluation) -> float:
        """The score over all examples; NaN if a row is not finite."""

    @abstractmethod
    def influence(self, evaluation: Evaluation) -> Floats:
        """Each block's first-order effect on the score (shape: blocks).

        Its mean is 0 and its variance over blocks, divided by their number, is the score's variance. NaN
        where the examples can show nothing.
        """

    def improvement(self, new: float, old: float) -> float:
        """How much better `new` is, in the metric's unit; negative if worse, -inf if `new` is not finite."""
        if not math.isfinite(new):
            return -math.inf
        if not math.isfinite(old):
            return math.inf
        return old - new if self.goal == "minimize" else new - old

    def possible(self, gain: float, score: float) -> float:
        """As much of a gain over `score`, or of a loss where it is negative, as leads to what a score can be."""
        # A density's loss, of a user's own, may be below zero.
        low, high = self.bounds or (0.0 if self.from_zero and score >= 0 else -math.inf, math.inf)
        worse, better = (high - score, score - low) if self.goal == "minimize" else (score - low, high - score)
        return min(max(gain, -worse), better)

    def interval(self, evaluation: Evaluation) -> Interval:
        """The score and its 95% interval over blocks; infinitely wide where there are fewer than two."""
        score, influence = self.score(evaluation), self.influence(evaluation)
        half_width = margin(influence)
        low, high = score - half_width, score + half_width
        if self.bounds and math.isfinite(half_width):
            low, high = wilson(score, influence, self.bounds)
        elif self.from_zero and math.isfinite(half_width) and self.is_from_zero(evaluation):
            low, high = above_zero(score, influence, counted=self.from_zero == "counts")
            if self.from_zero == "counts":
                high = min(high, max(score, 1.0))  # who writes nothing at all has an error for each word, and no more
        elif self.from_zero and self.is_from_zero(evaluation):
            low = 0.0  # nothing is known but that
        return Interval(score, low, high, len(evaluation), len(influence))

    def is_from_zero(self, evaluation: Evaluation) -> bool:
        """Whether none of the numbers of this evaluation is negative, as `from_zero` promises."""
        return True

    def tolerance(self, score: float) -> float:
        """The change of score that is too small to wait for, in the metric's unit; > 0."""
        return max(abs(score) * self.relative_tolerance, self.absolute_tolerance)


@dataclass(frozen=True)
class Ratio(Metric):
    """A ratio of two column sums, in `unit`; `exponential` for e to the power of it.

    `beside` are columns that tell where it has a meaning: classes have a loss too, but no perplexity per token.
    """

    numerator: str
    denominator: str
    scale: float = 1.0
    beside: tuple[str, ...] = ()

    def applies(self, evaluation: Evaluation) -> bool:
        return evaluation.columns.keys() >= {self.numerator, self.denominator, *self.beside}

    def score(self, evaluation: Evaluation) -> float:
        total = float(np.sum(evaluation.columns[self.denominator]))
        return self._transform(self.scale * float(np.sum(evaluation.columns[self.numerator])) / total)

    def influence(self, evaluation: Evaluation) -> Floats:
        """The ratio estimator's linearisation: Cochran, Sampling Techniques, 3rd ed., section 6.3."""
        above = evaluation.by_block(self.numerator) * self.scale
        below = evaluation.by_block(self.denominator)
        ratio = above.sum() / below.sum()
        slope = self._transform(ratio) if self.exponential else 1.0
        return np.asarray(slope * (above - ratio * below) / below.mean(), dtype=np.float64)

    def is_from_zero(self, evaluation: Evaluation) -> bool:
        """False for a loss that a user's own code made, such as a density's, and that is negative somewhere."""
        return bool(np.all(evaluation.columns[self.numerator] >= 0))

    def interval(self, evaluation: Evaluation) -> Interval:
        if not self.exponential:
            return super().interval(evaluation)
        found = replace(self, exponential=False).interval(evaluation)
        low, high = self._transform(found.low), self._transform(found.high)
        return replace(found, score=self._transform(found.score), low=low, high=high)

    def _transform(self, ratio: float) -> float:
        if not self.exponential:
            return ratio
        return math.exp(ratio) if ratio < 700 else math.inf


@dataclass(frozen=True)
class Statistic(Metric):
    """A function of `columns` that gives its value and every row's influence on it.

    `alternatives` are other columns that it can do with; `suits` tells tables apart that have the same columns, and
    `says` those of whose numbers, in either columns, it says nothing.
    """

    columns: tuple[str, ...]
    function: Function
    suits: Suits = statistics.always
    alternatives: tuple[str, ...] = ()
    says: Suits = statistics.always

    def applies(self, evaluation: Evaluation) -> bool:
        if evaluation.columns.keys() >= set(self.columns):
            return self.suits(evaluation.columns) and self.says(evaluation.columns)
        others = bool(self.alternatives) and evaluation.columns.keys() >= set(self.alternatives)
        return others and self.says(evaluation.columns)

    def score(self, evaluation: Evaluation) -> float:
        return self._estimate(evaluation)[0]

    def influence(self, evaluation: Evaluation) -> Floats:
        by_block = evaluation.sum_blocks(self._estimate(evaluation)[1])
        return by_block * len(by_block) / len(evaluation)

    def _estimate(self, evaluation: Evaluation) -> tuple[float, Floats]:
        # Of all columns: the class that a model predicts whose loss is NaN is a class all the same.
        if not all(np.isfinite(column).all() for column in evaluation.columns.values()):
            return math.nan, np.full(len(evaluation), np.nan)
        return self.function(evaluation.columns)


def _share(
    name: str,
    unit: str,
    columns: tuple[str, ...],
    function: Function,
    suits: Suits = statistics.always,
    low: float = 0.0,
) -> Statistic:
    """A metric from `low` to 1, the best."""
    metric = Statistic(name, "maximize", unit, columns, function, suits, bounds=(low, 1.0))
    return replace(metric, relative_tolerance=0.0, absolute_tolerance=SHARE_TOLERANCE)


_PAIR = ("label", "prediction")
_SEVERAL = ("target_0", "output_0")  # numbers of an example
_PLACES = ("hit_0", "labelled_0", "predicted_0")
_CLASSES, _NUMBERS = statistics.has_classes, statistics.has_numbers
_ALL: tuple[Metric, ...] = (
    Ratio("loss", "minimize", "nats per token", "loss", "count", from_zero="amounts"),
    Ratio(
        "perplexity", "minimize", "per token", "loss", "count", beside=("bytes",), exponential=True, from_zero="amounts"
    ),
    Ratio("bits_per_byte", "minimize", "bits per byte", "loss", "bytes", scale=1 / math.log(2), from_zero="amounts"),
    Statistic(
        "calibrated_loss",
        "minimize",
        "nats per example",
        (*_PAIR, "loss", "count"),
        statistics.calibrated_loss,
        _CLASSES,
        from_zero="amounts",
    ),
    _share("accuracy", "of examples", _PAIR, statistics.accuracy, _CLASSES),
    _share("top5_accuracy", "of examples", ("in_top5",), statistics.top5_accuracy),
    replace(_share("macro_f1", "F1", _PAIR, statistics.macro_f1, _CLASSES), alternatives=("label_0", "prediction_0")),
    _share("weighted_f1", "F1", _PAIR, statistics.weighted_f1, _CLASSES),
    _share("micro_f1", "F1", ("label_0", "prediction_0"), statistics.micro_f1),
    _share("precision", "macro precision", _PAIR, statistics.macro_precision, _CLASSES),
    _share("recall", "macro recall", _PAIR, statistics.macro_recall, _CLASSES),
    _share("matthews", "correlation", _PAIR, statistics.matthews, _CLASSES, low=-1.0),
    _share("roc_auc", "of pairs", ("label", "score"), statistics.roc_auc, statistics.has_two_classes),
    _share("pearson", "correlation", _PAIR, statistics.pearson, _NUMBERS, low=-1.0),
    _share("spearman", "rank correlation", _PAIR, statistics.spearman, _NUMBERS, low=-1.0),
    *(
        Statistic(name, "minimize", unit, _PAIR, function, _NUMBERS, _SEVERAL, says, from_zero="amounts")
        for name, unit, function, says in (
            ("mean_squared_error", "squared units", regression.mean_squared_error, statistics.always),
            ("root_mean_squared_error", "units of the target", regression.root_mean_squared_error, statistics.always),
            ("mean_absolute_error", "units of the target", regression.mean_absolute_error, statistics.always),
            (
                "mean_absolute_percentage_error",
                "of the target",
                regression.mean_absolute_percentage_error,
                regression.has_shares,
            ),
        )
    ),
    Statistic(
        "r2",
        "maximize",
        "of the variance",
        _PAIR,
        regression.r2,
        _NUMBERS,
        _SEVERAL,
        relative_tolerance=0.0,
        absolute_tolerance=SHARE_TOLERANCE,
    ),
    *(
        Ratio(
            f"{of}_accuracy",
            "maximize",
            f"of {of}s",
            f"right_{of}s",
            f"{of}s",
            bounds=(0.0, 1.0),
            relative_tolerance=0.0,
            absolute_tolerance=SHARE_TOLERANCE,
        )
        for of in ("pixel", "token")
    ),
    _share("mean_iou", "intersection over union", _PLACES, places.mean_iou),
    _share("dice", "Dice", _PLACES, places.dice),
    _share("exact_match", "of answers", ("exact",), statistics.mean_column("exact")),
    _share("token_f1", "F1", ("token_f1",), statistics.mean_column("token_f1")),
    _share("rouge_l", "F-measure", ("rouge_l",), statistics.mean_column("rouge_l")),
    _share("answer_accuracy", "of answers", ("right_answer",), statistics.mean_column("right_answer")),
    _share("preference_accuracy", "of pairs", ("margin",), statistics.preference_accuracy),
    Ratio("margin", "maximize", "nats", "margin", "count", absolute_tolerance=MARGIN_TOLERANCE),
    Ratio(
        "wer", "minimize", "errors per word", "errors", "words", absolute_tolerance=SHARE_TOLERANCE, from_zero="counts"
    ),
    Ratio(
        "cer",
        "minimize",
        "errors per character",
        "character_errors",
        "characters",
        absolute_tolerance=SHARE_TOLERANCE,
        from_zero="counts",
    ),
)
OF_NUMBERS = (
    "mean_squared_error",
    "root_mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "r2",
)  # metrics of one number an example, or several
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
ALIASES: Mapping[str, str] = {
    "ppl": "perplexity",
    "bpb": "bits_per_byte",
    "acc": "accuracy",
    "top_5_accuracy": "top5_accuracy",
    "f1": "macro_f1",
    "f1_macro": "macro_f1",
    "f1_weighted": "weighted_f1",
    "f1_micro": "micro_f1",
    "mcc": "matthews",
    "matthews_correlation": "matthews",
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "mse": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "r2_score": "r2",
    "pixel_acc": "pixel_accuracy",
    "miou": "mean_iou",
    "iou": "mean_iou",
    "jaccard": "mean_iou",
    "dice_score": "dice",
    "em": "exact_match",
    "exact": "exact_match",
    "squad_f1": "token_f1",
    "rouge": "rouge_l",
    "rougel": "rouge_l",
}


def metric_named(name: str) -> Metric:
    """The metric of that name. Raises PlanError that lists the allowed names."""
    key = name.strip().lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in METRICS:
        raise PlanError(f"unknown metric '{name}'; allowed: {', '.join(METRICS)}.{nearest(key, METRICS)}")
    return METRICS[key]


@cache
def metric_in(name: str, unit: str) -> Metric:
    """The metric of that name, in a unit of its task. Raises PlanError as `metric_named` does.

    Decisions ask for it tens of thousands of times a run, always for the same.
    """
    return replace(metric_named(name), unit=unit)


def beside(metric: Metric, known: Iterable[str]) -> Metric | None:
    """The loss that stands beside a metric, of the metrics that are known by name.

    None where the metric is a loss itself, or a user's function, of which nobody knows how the loss goes with it.
    """
    names = set(known)
    found = next((name for name in BESIDE if name in names), None)
    return METRICS[found] if found and metric.name in METRICS and metric.name not in OF_LOSS else None


def scores_of(evaluation: Evaluation, own: Metric | None = None) -> dict[str, float]:
    """Every metric that applies to the evaluation, and `own`, which decides or is a user's, whether it does or not."""
    metrics = {**METRICS, **({own.name: own} if own else {})}
    return {n: metric.score(evaluation) for n, metric in metrics.items() if metric is own or metric.applies(evaluation)}
