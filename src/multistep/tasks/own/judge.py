"""What outputs and targets mean: the rows of an evaluation, the metrics they allow, and a trivial model's output."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import Evaluation, Floats, Goal
from multistep.errors import DataError, PlanError
from multistep.tasks.classes import class_metrics, class_rows
from multistep.tasks.own.layout import main_tensor
from multistep.tasks.own.losses import YES_NO_LOSSES, OwnLoss

# classes: one of several, by logits; yes-no: one of two, by one logit; labels: several at once; number: one;
# numbers: several; places: a class for each place of an example (tokens, pixels); other: only the loss is known.
Kind = Literal["classes", "yes-no", "labels", "number", "numbers", "places", "other"]
MOST_OUTPUTS = 64  # numbers of an example's output that a table holds


def kind_of(output: Any, target: Any, loss: OwnLoss) -> Kind:
    """What an output and its target are, by their shapes, types and loss."""
    out = main_tensor(output)
    if out is None or not isinstance(target, Tensor):
        return "other"
    single = out.ndim == 1 or (out.ndim == 2 and out.shape[1] == 1)
    if isinstance(loss.given, YES_NO_LOSSES) and out.shape == target.shape:
        return "yes-no" if single else "labels" if out.ndim == 2 and out.shape[1] <= MOST_OUTPUTS else "other"
    if not target.is_floating_point() and out.ndim == target.ndim + 1 and out.shape[1] > 1:
        if target.ndim == 1:
            return "classes"
        return "places" if out.shape[2:] == target.shape[1:] else "other"
    if out.shape == target.shape and out.is_floating_point():
        return "number" if single else "numbers" if out.ndim == 2 and out.shape[1] <= MOST_OUTPUTS else "other"
    return "other"


@dataclass(frozen=True)
class Judge:
    """How one phase's outputs are scored. `width` is the number of classes or of numbers in an output.

    `with_outputs` tells to keep the output's numbers beside, for a metric that asks for them.
    """

    kind: Kind
    width: int
    loss: OwnLoss
    with_outputs: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of metrics that apply, the default first."""
        by_kind: dict[Kind, tuple[str, ...]] = {
            "classes": class_metrics(self.width),
            "yes-no": class_metrics(2),
            "labels": ("loss", "micro_f1", "macro_f1"),
            "number": ("loss", "mean_squared_error", "pearson", "spearman"),
        }
        return by_kind.get(self.kind, ("loss",))

    def rows(self, output: Any, target: Any, size: int, piece: int) -> dict[str, Tensor]:
        """One number an example for each column of the evaluation."""
        loss_B, weight_B, block_B = self.loss.rows(output, target, size, piece)
        found = {"loss": loss_B, "count": weight_B, "block": block_B}
        out = main_tensor(output)
        if out is None or self.kind in ("places", "other"):
            return found
        out = out.detach().float()
        flat_BK = out.reshape(size, -1)
        match self.kind:
            case "classes":
                found = class_rows(out, target) | found
            case "yes-no":
                score = flat_BK[:, 0].sigmoid() if self._logits else flat_BK[:, 0]
                prediction = (score > 0.5).float()
                sure = torch.where(score > 0.5, score, 1 - score)
                label = target.reshape(size)
                found |= {"label": label, "prediction": prediction, "probability": sure, "score": score}
            case "labels":
                threshold = 0.0 if self._logits else 0.5
                for k in range(self.width):
                    found[f"label_{k}"] = target[:, k]
                    found[f"prediction_{k}"] = (flat_BK[:, k] > threshold).float()
            case "number":
                found |= {"label": target.reshape(size), "prediction": flat_BK[:, 0]}
        if self.with_outputs:
            found |= {f"output_{k}": flat_BK[:, k] for k in range(flat_BK.shape[1])}
            if self.kind == "numbers":
                found |= {f"target_{k}": target[:, k] for k in range(self.width)}
        return found

    @property
    def _logits(self) -> bool:
        return not isinstance(self.loss.given, nn.BCELoss)

    def constant(self, targets: Sequence[Any], output: Any) -> tuple[str, Tensor] | None:
        """A trivial model: its name and what it says of every example (shape: 1, ...), from training targets.

        `output` is the network's own of some examples, whose form it has. None where nothing trivial can be said.
        """
        if not isinstance(output, Tensor) or not all(isinstance(target, Tensor) for target in targets):
            return None
        if self.kind in ("classes", "places"):
            labels = torch.cat([target.flatten() for target in targets])
            counted = labels[(labels >= 0) & (labels < self.width)].long()
            share_C = (torch.bincount(counted, minlength=self.width) + 1.0) / (len(counted) + self.width)
            return "majority", share_C.log().float().reshape(1, self.width, *(1,) * (output.ndim - 2))
        if any(target.shape[1:] != output.shape[1:] or not target.is_floating_point() for target in targets):
            return None
        wanted = torch.cat(list(targets)).float()
        if isinstance(self.loss.given, YES_NO_LOSSES):
            share = (wanted.sum(0, keepdim=True) + 1) / (len(wanted) + 2)
            return "majority", share.logit() if self._logits else share
        return "mean", wanted.mean(0, keepdim=True)

    def repeated(self, constant: Tensor, target: Any, size: int) -> Tensor:
        """A constant output for each example of a batch."""
        places = target.shape[1:] if self.kind == "places" else constant.shape[2:]
        return constant.expand(size, *constant.shape[1:2], *places).contiguous()


def table_of(batches: Sequence[dict[str, Tensor]]) -> Evaluation:
    """The evaluation of rows from `Judge.rows`; blocks are numbered on from batch to batch."""
    names = [name for name in batches[0] if name != "block"]
    columns: dict[str, Floats] = {
        name: torch.cat([rows[name].detach() for rows in batches]).double().cpu().numpy() for name in names
    }
    blocks, first = [], 0
    for rows in batches:
        block = rows["block"].numpy().astype(np.float64) + first
        blocks.append(block)
        first = int(block[-1]) + 1
    return Evaluation({**columns, "block": np.concatenate(blocks)})


def require_labels(split: str, labels: Tensor, width: int, ignored: int | None) -> None:
    """Raises DataError for a label that is none of the classes that the model tells apart."""
    wrong = (labels < 0) | (labels >= width)
    if ignored is not None:
        wrong &= labels != ignored
    if bool(wrong.any()):
        label = int(labels[wrong][0])
        raise DataError(
            f"{split}: there is a label {label}, but the model tells {width} classes apart (0 to {width - 1})"
        )


# A user's function as a metric ------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnMetric:
    """`pairs` tells that the function takes targets and predictions, `outputs` that it looks at outputs' numbers."""

    metric: FunctionMetric
    pairs: bool
    outputs: bool


def own_metric(given: Callable[..., float] | FunctionMetric, goal: Goal | None) -> OwnMetric:
    """The metric of a function of (targets, predictions), or of (targets, predictions, outputs).

    Raises PlanError without a goal.
    """
    if isinstance(given, FunctionMetric):
        if goal is not None and goal != given.goal:
            raise PlanError(f"goal is {goal!r}, but the metric '{given.name}' says {given.goal!r}; leave goal out")
        return OwnMetric(given, False, any(name.startswith(("output_", "target_")) for name in given.columns))
    name = getattr(given, "__name__", None) or getattr(getattr(given, "func", None), "__name__", None)
    name = "metric" if name == "<lambda>" else name or type(given).__name__
    with_outputs = _takes_outputs(given)

    def score(columns: Any) -> float:
        arguments = [*_targets_and_predictions(columns), *([_stacked(columns, "output_")] if with_outputs else [])]
        return float(given(*arguments))

    asked = ("output_0",) if with_outputs else ()
    return OwnMetric(FunctionMetric(name, goal, score, unit=name.replace("_", " "), columns=asked), True, with_outputs)


def _takes_outputs(function: Callable[..., float]) -> bool:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a builtin
        return False
    return len(names) > 2 and names[2] == "outputs"


def _targets_and_predictions(columns: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """As the field's functions take them: class numbers as integers, one row an example."""
    if "label" in columns:
        pair = columns["label"], columns["prediction"]
        whole = "probability" in columns  # of classes
        return (pair[0].astype(np.int64), pair[1].astype(np.int64)) if whole else pair
    if "label_0" in columns:
        return _stacked(columns, "label_").astype(np.int64), _stacked(columns, "prediction_").astype(np.int64)
    return _stacked(columns, "target_"), _stacked(columns, "output_")


def _stacked(columns: Any, prefix: str) -> NDArray[Any]:
    """Columns like `output_0`, `output_1`, ... side by side (shape: examples, columns)."""
    count = sum(name.startswith(prefix) for name in columns)
    return np.stack([columns[f"{prefix}{k}"] for k in range(count)], axis=1)


def require_columns(own: OwnMetric, kind: Kind, has: Sequence[str]) -> None:
    """Raises PlanError if the table has not what the metric is made of."""
    name = own.metric.name
    if own.pairs and kind in ("places", "other"):
        raise PlanError(
            f"metric '{name}': a function of (targets, predictions) needs one class, or up to {MOST_OUTPUTS} labels or "
            f"numbers, an example; here there are only {', '.join(has)}: give a multistep.FunctionMetric of them"
        )
    if missing := [column for column in own.metric.columns if column not in has]:
        raise PlanError(
            f"metric '{name}' needs the column {missing[0]}; there are {', '.join(has)} (of outputs at most "
            f"{MOST_OUTPUTS} numbers an example)"
        )


def pieces_for(examples: int, most_calls: int) -> int:
    """How many examples are scored together where a loss must be called for each piece."""
    return max(1, math.ceil(examples / most_calls))
