"""`multistep.train(model=keras_model, loss=..., train=..., ...)`: what is asked, as a plan and what opens it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import metric_named
from multistep.core.values.plan import Plan
from multistep.core.values.tasks import OWN_MODEL
from multistep.engine.elsewhere import SHORT_KEYS, hint
from multistep.errors import PlanError
from multistep.tasks.keras.data import labels_of, split_of
from multistep.tasks.keras.model import KerasModel
from multistep.tasks.keras.task import KerasWorkshop, Wanted
from multistep.tasks.keras.understand import TRIED
from multistep.tasks.keras.use import remember
from multistep.tasks.own.code import code_digest
from multistep.tasks.own.functions import own_metric, same_as_ours
from multistep.tasks.own.parting import split_up
from multistep.tasks.own.planned import OF_THE_PLAN, plan_of
from multistep.tasks.own.randomness import as_at

OWN = ("model", "loss", "train", "validation", "test", "goal", "pretrained")
ELSEWHERE: Mapping[str, str] = {
    "target": "Keras takes (inputs, targets); leave target out",
    "standardize": "put a keras.layers.Normalization into the model; leave standardize out",
    "data": "data= names files for a task by name; a Keras model takes train=, validation= and test=",
}


@dataclass(frozen=True)
class Request:
    """A plan, what opens it, the function that judges it, if there is one, and the user's model."""

    plan: Plan
    workshop: KerasWorkshop
    metric: FunctionMetric | None
    model: KerasModel

    def borrowed(self) -> AbstractContextManager[None]:
        """While the run has the user's model, which afterwards is as it was."""
        return self.model.given_back()

    def remember(self, folder: Path) -> None:
        """Have the model's classes at hand for whoever uses the run in this process."""
        remember(folder, self.model.given)


def read_request(plan: object, given: Mapping[str, Any]) -> Request:
    """Understand the keywords of `train`. Raises PlanError or DataError for what cannot be carried out."""
    import keras

    model = given["model"]
    if isinstance(model, type):
        raise PlanError(f"model is the class {model.__name__}; give an instance: model={model.__name__}(...)")
    _require_known(plan, given)
    own = KerasModel(model)
    if callable(metric := given.get("metric")) and (ours := same_as_ours(metric, given.get("goal"))) is not None:
        given = {**given, "metric": ours, "goal": None}
    judged = _metric(given.get("metric"), given.get("goal"))
    asked = {name: given.get(name) for name in ("train", "validation", "test")}
    splits, notes = split_up(asked, split_of, labels_of)
    if len(splits["train"]) < 2:
        raise PlanError(f"train: {len(splits['train'])} example is too few")
    with as_at(0):
        inputs, _, _ = splits["train"].read(np.arange(min(TRIED, len(splits["train"]))))
        own.build(inputs, 0)
    loss = given.get("loss")
    if loss is None:
        loss = own.compiled_loss[0]
    if loss is None:
        raise PlanError(
            "loss is missing: give loss='sparse_categorical_crossentropy', another of keras.losses, or a function "
            "(targets, outputs) -> losses; or compile the model with one"
        )
    told = loss.get_config() if isinstance(loss, keras.losses.Loss) else loss
    data = [split.fingerprint() for split in splits.values()]
    identity = code_digest(
        [
            "keras",
            own.digest(),
            type(loss),
            str(told) if isinstance(told, dict) else told,
            metric,
            given.get("goal"),
            *data,
        ]
    )
    pretrained = bool(given.get("pretrained", False))
    name = f"{type(model).__module__}:{own.name}" + (f" ({own.weights_hash()})" if pretrained else "")
    plan = plan_of(given, splits, model=name, identity=identity, metric=judged.metric.name if judged else None)
    named = metric_named(given["metric"]).name if isinstance(given.get("metric"), str) else None
    workshop = KerasWorkshop(own, Wanted(splits, notes, loss, judged, named), identity, pretrained=pretrained)
    return Request(plan, workshop, judged.metric if judged else None, own)


def _require_known(plan: object, given: Mapping[str, Any]) -> None:
    """Raises PlanError for keywords that mean nothing here, or that are missing."""
    if plan is not None:
        raise PlanError("a plan names its model; give either a plan, or model= with train=")
    for key, told in ELSEWHERE.items():
        if given.get(key) is not None:
            raise PlanError(f"{key}: {told}")
    if given.get("task") not in (None, OWN_MODEL):
        raise PlanError(f"task is '{given['task']}', but model is a Keras model; leave one of them out")
    allowed = (*OWN, *OF_THE_PLAN, *SHORT_KEYS)
    for key in given:
        if key not in allowed and key != "task":
            close = hint(key, allowed, given[key], group="", typed=False)
            raise PlanError(f"unknown keyword '{key}'; allowed: {', '.join(allowed)}.{close}")
    if given.get("train") is None:
        raise PlanError("train is missing: give (inputs, targets), a tf.data.Dataset or a keras.utils.PyDataset")
    for phase in given.get("phases") or ():
        for key in ("task", "data", "metric"):
            if isinstance(phase, Mapping) and phase.get(key) is not None:
                raise PlanError(f"phases: {key} is the same for all phases of a model of your own; leave it out")


def _metric(given: Any, goal: Any) -> Any:
    """The user's function; None for a metric by name. Raises PlanError for a name that is none, or a missing goal."""
    if given is None or isinstance(given, str):
        if goal is not None:
            raise PlanError("goal says which way a function is better, but metric is none; leave goal out")
        if given is not None:
            metric_named(given)
        return None
    if not callable(given) and not isinstance(given, FunctionMetric):
        raise PlanError(f"metric is {given!r}; allowed: a name, or a function (targets, predictions) -> number")
    return own_metric(given, goal)
