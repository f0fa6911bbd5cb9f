"""A run's Keras model as it is asked afterwards, in the terms in which modules of torch are, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multistep.backends.keras.choosing import scorer_for
from multistep.core.evidence.metric import METRICS, Metric
from multistep.errors import PlanError
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.folders import read_task
from multistep.tasks.keras.data import split_of
from multistep.tasks.keras.model import KerasModel
from multistep.tasks.keras.task import KerasDomain, Wanted, understood_of
from multistep.tasks.keras.understand import TRIED
from multistep.tasks.keras.use import load, outputs, predict
from multistep.tasks.own.evaluate import Scored
from multistep.tasks.own.functions import own_metric, same_as_ours

__all__ = ["evaluate", "load", "outputs", "predict"]


def evaluate(
    folder: Path,
    data: Any,
    *,
    module: Any = None,
    loss: Any = None,
    target: str | None = None,
    metric: Any = None,
    goal: Any = None,
) -> Scored:
    """Score the trained model on data as `train` takes them for validation.

    `module` is a built model of the class that was trained, where the folder's cannot be read by itself; `loss` the
    run's, where that was a function. Raises PlanError where something is missing or does not fit, and DataError.
    """
    import keras

    if target is not None:
        raise PlanError("evaluate: target= is of torch modules; Keras takes (inputs, targets)")
    about = read_task(str(folder))
    if loss is None:
        if not about.get("loss_as"):
            raise PlanError(
                f"evaluate: this run was trained by the loss {about.get('loss', '')}, whose code is yours and cannot "
                "be had from here; give it: loss=..."
            )
        loss = keras.losses.deserialize(about["loss_as"])
    named = same_as_ours(metric, goal) if callable(metric) else None
    judged = own_metric(metric, goal) if callable(metric) and named is None else None
    model, split = KerasModel(load(folder, module)), split_of("data", data)
    model.build(split.read(np.arange(min(TRIED, len(split))))[0], 0)
    wanted = Wanted({"train": split, "test": split}, (), loss, judged, named)
    understood = understood_of(model, wanted)
    domain = KerasDomain(model, understood, wanted, scored=True)
    scorer = scorer_for(model.given, domain.rows)
    table = Calibrated.read(str(folder)).decided(
        lambda: domain.evaluate(scorer, "test", sample=False), str(folder.parent), hot=True
    )
    metrics: Mapping[str, Metric] = {n: METRICS[n] for n in understood.scores.metrics if METRICS[n].applies(table)}
    if judged is not None:
        metrics = {**metrics, judged.metric.name: judged.metric}
    return Scored(table, metrics, understood.loss.unit)
