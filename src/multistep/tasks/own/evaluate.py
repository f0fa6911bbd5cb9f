"""A finished module scored on other data, by the loss and the metrics that its run had."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multistep.backends.torch.devices import pick_device
from multistep.core.evidence.metric import METRICS, Evaluation, Metric
from multistep.errors import DataError, PlanError
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.folders import read_task
from multistep.tasks.notes import say
from multistep.tasks.own.checks import SPLITS, check_labels, judge_of, require_finite
from multistep.tasks.own.first import Wanted, first_examples, is_ragged
from multistep.tasks.own.found import loss_for, metric_for, module_for, target_for
from multistep.tasks.own.loaders import split_given
from multistep.tasks.own.model import OwnModel, fill
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.reader import Reader
from multistep.tasks.own.scoring import Scorer
from multistep.tasks.own.seen import told
from multistep.tasks.own.use import WEIGHTS

NAME = "data"  # what messages call the examples


@dataclass(frozen=True)
class Scored:
    """The table, the metrics that its run could be judged by, and what the loss is counted in."""

    table: Evaluation
    metrics: Mapping[str, Metric]
    loss_unit: str


def evaluate_module(
    folder: Path,
    data: Any,
    *,
    module: nn.Module | None = None,
    loss: Any = None,
    target: str | None = None,
    metric: Any = None,
    goal: Any = None,
) -> Scored:
    """Score the weights of a model folder on data as `train` takes them for validation.

    `module`, `loss`, `target` and `metric` are those of `train`, where they cannot be had by themselves. What is to be
    said is logged. Raises PlanError where code is missing or does not fit, and DataError for what cannot be read.
    """
    own_metric, named = metric_for(folder, metric, goal)
    own = OwnModel(_trainable(module_for(folder, module, "evaluate")))
    fill(own.module, folder / WEIGHTS)
    with as_at(0):
        split = split_given(NAME, data)
    if not len(split):
        raise DataError(f"{NAME}: holds no examples")
    say([*split.notes, *own.notes])
    wanted = Wanted({"train": split}, (), loss_for(folder, loss), target_for(folder, target), own_metric, named)
    tried = first_examples(own, wanted, 0)
    judge, _ = judge_of(own, tried, own_metric)
    layout = tried.layout
    if not (ragged := is_ragged(split, tried, 0)):
        layout.require_rows(tried.batch, NAME)
    if (kind := read_task(str(folder)).get("kind")) not in (None, judge.kind):
        say([f"{NAME}: output and target are taken for '{judge.kind}' here, and were '{kind}' in training"])
    copes = require_finite(NAME, split, own, judge, tried, 0)
    say([copes] if copes else [])
    if copes and "targets" in copes:
        judge = replace(judge, kind="other")  # as in training: what is no number has no score but the loss's
    device = pick_device()
    judge.loss.to(device)

    def check(name: str, wanted: Any) -> None:
        check_labels(judge, name, wanted)

    reader = Reader(split, layout, device, tried.types, check, ragged=ragged, finite=not copes)
    filled = own.build().to(device).eval()

    def scored() -> Evaluation:
        return Scorer(layout, judge, split.batch_size).table(
            reader, np.arange(len(reader)), SPLITS["test"], device, lambda tensors, _: layout.call(filled, tensors)
        )

    with torch.inference_mode(), judge.loss.standing_for(filled):
        table = Calibrated.read(str(folder)).decided(scored, str(folder.parent), hot=True)
    if known := told(reader, read_task(str(folder)).get("seen")):
        say([known])
    metrics: dict[str, Metric] = {name: METRICS[name] for name in judge.metrics if METRICS[name].applies(table)}
    if own_metric:
        metrics[own_metric.metric.name] = own_metric.metric
    if named is not None and named not in metrics:
        raise PlanError(
            f"metric '{named}' cannot be measured on this data; there are {', '.join(metrics)}, or give a function"
        )
    return Scored(table, metrics, judge.loss.unit)


def _trainable(module: nn.Module) -> nn.Module:
    """The module itself, which the loss may read; a copy of it where all its parameters were frozen since."""
    if any(parameter.requires_grad for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).requires_grad_(True)
