"""A user's function as a metric: what it is called with, and which way it is better.

scikit-learn's functions are told by scikit-learn's own table of scorers; others by the names of their arguments.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import ALIASES, METRICS, Goal
from multistep.errors import PlanError
from multistep.tasks.own.code import is_own

# predictions: class numbers, or numbers; scores: probabilities; margins: their logarithms, or log odds where there are
# two classes; outputs: the model's own numbers.
Second = Literal["predictions", "scores", "margins", "outputs"]
SCORES = ("probabilities", "probability", "probs", "proba", "scores", "y_score", "y_scores", "y_prob", "y_proba")
SCORE_ARGUMENTS = (*SCORES, "y_pred_proba", "probas_pred")
MARGINS = ("pred_decision", "decision_function", "margins")
SAID_FIRST = ("predictions", "prediction", "preds", "pred", "y_pred", "y_hat", "yhat", "output", "outputs")
WANTED_SECOND = ("targets", "target", "y_true", "labels", "label", "y")
SHARES: tuple[str, ...] = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "jaccard", "roc_auc")
SHARES += ("average_precision", "top_k_accuracy")  # functions of scikit-learn's between 0 and 1, without their _score
LEAST = 1e-12  # of a probability, before its logarithm is taken
OURS: Mapping[str, str] = {"roc_auc_score": "roc_auc", "log_loss": "loss", "top_k_accuracy_score": "top5_accuracy"}
# What scikit-learn has no scorer for, and what others call such functions.
OF_SCORES: tuple[str, ...] = ("roc_auc_score", "average_precision_score", "log_loss", "brier_score_loss", "roc_curve")
OF_SCORES += ("precision_recall_curve", "top_k_accuracy_score", "ndcg_score", "dcg_score", "hinge_loss", "det_curve")


@dataclass(frozen=True)
class OwnMetric:
    """A function as metric. `pairs` tells that it takes targets and something of the model; `outputs` and `scores`
    that this is, or that there is beside it, the model's own numbers or probabilities.

    `hidden` is a function of scores that it calls although it is given class numbers.
    """

    metric: FunctionMetric
    pairs: bool
    outputs: bool = False
    scores: bool = False
    hidden: str | None = None


@dataclass(frozen=True)
class _Known:
    """A function with what scikit-learn's table, or a scorer, says of it."""

    function: Callable[..., Any]
    scores: bool
    goal: Goal


def own_metric(given: Any, goal: Goal | None) -> OwnMetric:
    """The metric of a function of (targets, predictions), one of scikit-learn's, or a scorer of scikit-learn's.

    A second argument that is named like one of SCORES is given probabilities; a third one named so, or `outputs`,
    is given them beside the predictions. Raises PlanError without a goal that anyone could know.
    """
    if isinstance(given, FunctionMetric):
        if goal is not None and goal != given.goal:
            raise PlanError(f"goal is {goal!r}, but the metric '{given.name}' says {given.goal!r}; leave goal out")
        return OwnMetric(given, False, any(name.startswith(("output_", "target_")) for name in given.columns))
    known = _known(given)
    name = _name(known.function if known else given)
    if known and goal is not None and goal != known.goal:
        raise PlanError(f"goal is {goal!r}, but of {name} scikit-learn says {known.goal!r}; leave goal out")
    function = known.function if known else given
    second, third, turned = _arguments(function)
    if known:
        second, goal = ("scores" if known.scores else "predictions"), known.goal

    def score(columns: Any) -> float:
        pair = [_targets(columns), _said(columns, second)]
        more = [_said(columns, third)] if third else []
        named = _labels_named(function, pair[1]) if known and known.scores else {}
        return float(function(*(reversed(pair) if turned else pair), *more, **named))

    outputs = "outputs" in (second, third)
    scores = not {"scores", "margins"}.isdisjoint((second, third))
    asked = ("output_0",) if outputs else ()
    bounds = (0.0, 1.0) if known and name.removesuffix("_score") in SHARES else None
    if known and name in (*METRICS, *ALIASES):
        name = f"sklearn_{name}"  # with arguments of its own it is another
    metric = FunctionMetric(name, goal, score, unit=name.replace("_", " "), columns=asked, bounds=bounds)
    hidden = None if known or outputs or scores else next(_called(function, set()), None)
    return OwnMetric(metric, True, outputs, scores, hidden)


def same_as_ours(given: Any, goal: Goal | None) -> str | None:
    """The metric of the house that a function of scikit-learn's is, as it stands; None if it is none.

    Raises PlanError for a goal that is not its own.
    """
    known = _known(given)
    function = known.function if known else None
    fixed = isinstance(function, functools.partial) and bool(function.keywords or function.args)
    name = ALIASES.get(_name(function), _name(function))
    if function is None or fixed or name not in METRICS:
        return None
    own_metric(given, goal)
    return name


def _name(given: Any) -> str:
    while isinstance(given, functools.partial):
        given = given.func
    name = getattr(given, "__name__", None)
    return "metric" if name == "<lambda>" else name or type(given).__name__


def _known(given: Any) -> _Known | None:
    """What scikit-learn says of one of its functions (with some arguments fixed, perhaps), or of a scorer."""
    score_function = getattr(given, "_score_func", None)
    if score_function is not None:
        response = getattr(given, "_response_method", "predict")
        fixed = functools.partial(score_function, **getattr(given, "_kwargs", {}))
        return _Known(fixed, response != "predict", "maximize" if getattr(given, "_sign", 1) > 0 else "minimize")
    bare = given
    while isinstance(bare, functools.partial):
        bare = bare.func
    found = _table().get(getattr(bare, "__name__", "")) if _is_sklearns(bare) else None
    return _Known(given, *found) if found else None


def _is_sklearns(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("sklearn.")


@functools.cache
def _table() -> Mapping[str, tuple[bool, Goal]]:
    """Of each function with a scorer in scikit-learn: whether it wants scores, and which way it is better."""
    if "sklearn.metrics" not in sys.modules:
        return {}  # whoever gives a function of it has imported it
    from sklearn.metrics import get_scorer, get_scorer_names

    scorers = [get_scorer(name) for name in get_scorer_names()]
    return {
        s._score_func.__name__: (s._response_method != "predict", "maximize" if s._sign > 0 else "minimize")
        for s in scorers
    }


def _arguments(function: Callable[..., Any]) -> tuple[Second, Second | None, bool]:
    """What the second and third arguments are, and whether the first two are turned round."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a builtin
        return "predictions", None, False
    turned = len(names) > 1 and names[0] in (*SAID_FIRST, *SCORE_ARGUMENTS, *MARGINS) and names[1] in WANTED_SECOND
    said = names[0 if turned else 1] if len(names) > 1 else ""
    second = _meant(said, SCORE_ARGUMENTS) or "predictions"
    last = names[2] if len(names) > 2 else ""
    return second, "outputs" if last == "outputs" else _meant(last, SCORES), turned


def _meant(name: str, scores: tuple[str, ...]) -> Second | None:
    return "scores" if name in scores else "margins" if name in MARGINS else "outputs" if name == "logits" else None


def _called(function: Any, seen: set[int]) -> Iterator[str]:
    """The functions of scores that a user's function calls, itself or through others of the user's."""
    while isinstance(function, functools.partial | types.MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if not isinstance(function, types.FunctionType):
        function = type(function).__dict__.get("__call__")
    if not isinstance(function, types.FunctionType) or id(function) in seen or not is_own(function.__module__):
        return
    seen.add(id(function))
    inside = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    for name in _names(function.__code__):
        used = function.__globals__.get(name)
        if name in OF_SCORES or getattr(used, "__name__", "") in OF_SCORES:
            yield name
        inside.append(used)
    for used in inside:
        if getattr(used, "__name__", "") in OF_SCORES:
            yield used.__name__
        elif isinstance(used, types.FunctionType):
            yield from _called(used, seen)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a function that refers to itself before it has a name
        return False


# Columns --------------------------------------------------------------------------------------------


def _targets(columns: Any) -> NDArray[Any]:
    """As the field's functions take them: class numbers as integers, one row an example."""
    if "label" in columns:
        return _whole(columns, columns["label"])
    if "label_0" in columns:
        return _stacked(columns, "label_").astype(np.int64)
    return _stacked(columns, "target_")


def _said(columns: Any, what: Second) -> NDArray[Any]:
    """What the model says. Scores are those of class 1 where there are two, else one column a class or label."""
    if what == "outputs":
        return _stacked(columns, "output_")
    if what == "margins" and ("score" in columns or "score_0" in columns):
        share = np.clip(_said(columns, "scores"), LEAST, 1 - LEAST)
        return np.asarray(np.log(share) - (np.log1p(-share) if share.ndim == 1 else 0.0))
    if what == "scores" and "score" in columns:
        return np.asarray(columns["score"])
    if what == "scores" and "score_0" in columns:
        scores = _stacked(columns, "score_")
        # Those of classes were single precision, of which scikit-learn complains.
        return scores / scores.sum(axis=1, keepdims=True) if "label" in columns else scores
    if "label" in columns:
        return _whole(columns, columns["prediction"])
    return _stacked(columns, "prediction_").astype(np.int64) if "label_0" in columns else _stacked(columns, "output_")


def _whole(columns: Any, column: NDArray[Any]) -> NDArray[Any]:
    """Class numbers as integers; a table of classes has a probability beside them."""
    return column.astype(np.int64) if "probability" in columns else column


def _stacked(columns: Any, prefix: str) -> NDArray[Any]:
    """Columns like `output_0`, `output_1`, ... side by side (shape: examples, columns)."""
    count = sum(name.startswith(prefix) and name[len(prefix) :].isdigit() for name in columns)
    return np.stack([columns[f"{prefix}{k}"] for k in range(count)], axis=1)


def _labels_named(function: Callable[..., Any], scores: NDArray[Any]) -> dict[str, Any]:
    """`labels` where the function asks for them: a part of the split may lack a class."""
    fixed = function.keywords if isinstance(function, functools.partial) else {}
    if scores.ndim < 2 or "labels" not in inspect.signature(function).parameters or "labels" in fixed:
        return {}
    return {"labels": np.arange(scores.shape[1])}


def require_columns(own: OwnMetric, kind: str, has: list[str], most_outputs: int) -> None:
    """Raises PlanError if the table has not what the metric is made of."""
    name = own.metric.name
    if own.pairs and kind in ("places", "mask", "other"):
        raise PlanError(
            f"metric '{name}': a function of (targets, predictions) needs one class, or up to {most_outputs} labels or "
            f"numbers, an example; here there are only {', '.join(has)}: give a multistep.FunctionMetric of them"
        )
    if own.hidden and kind in ("classes", "yes-no", "labels"):
        ours = f", or give metric='{OURS[own.hidden]}'" if own.hidden in OURS else ""
        raise PlanError(
            f"metric '{name}' calls {own.hidden}, which wants probabilities, but is given class numbers; name its "
            f"second argument probabilities, or take a third one of that name{ours}"
        )
    asked = list(own.metric.columns)
    if own.scores and kind in ("classes", "labels") and "score" not in has:
        asked.append("score_0")
    if missing := [column for column in asked if column not in has]:
        raise PlanError(
            f"metric '{name}' needs the column {missing[0]}; there are {', '.join(has)} (of outputs at most "
            f"{most_outputs} numbers an example)"
        )
