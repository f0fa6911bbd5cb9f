"""Evaluations of predicted classes and numbers, one row an example."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.classes import class_rows, class_table, logit_rows, majority, small_enough, table_of_probabilities
from multistep.tasks.labelled.labels import Array, Labels
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.sending import sent


def table_of(logits_NC: Tensor, labels_N: Array, labels: Labels, scale: Scale) -> Evaluation:
    """The evaluation with one row an example."""
    if labels.kind == "class":
        return class_table([class_rows(logits_NC, sent(torch.from_numpy(labels_N), logits_NC.device))])
    if labels.kind == "number":
        prediction = logits_NC[:, 0].cpu().double().numpy() * scale.deviation + scale.mean
        return number_table(labels_N, prediction)
    on_cpu = logits_NC.cpu()  # in one transfer
    losses = F.binary_cross_entropy_with_logits(on_cpu.double(), torch.from_numpy(labels_N).double(), reduction="none")
    return several_table(labels_N.astype(np.float64), (on_cpu > 0).double().numpy(), losses.sum(1).numpy(), on_cpu)


def number_table(labels_N: Array, prediction_N: Array) -> Evaluation:
    """The evaluation of predicted numbers."""
    label, prediction = labels_N.astype(np.float64), prediction_N.astype(np.float64)
    if (label == np.floor(label)).all() and (prediction == np.floor(prediction)).all():
        prediction = prediction + 1e-9 * (1.0 + np.abs(prediction))  # or all would look like classes
    return Evaluation({"label": label, "prediction": prediction, "block": np.arange(len(label), dtype=np.float64)})


def several_table(labels_NK: Floats, said_NK: Floats, loss_N: Floats, logits_NK: Tensor | None = None) -> Evaluation:
    """The evaluation of several classes at once, each 0 or 1, with their log-odds if these are known."""
    columns = {"loss": loss_N, "count": np.ones(len(loss_N)), "block": np.arange(len(loss_N), dtype=np.float64)}
    for k in range(labels_NK.shape[1]):
        columns |= {f"label_{k}": labels_NK[:, k], f"prediction_{k}": said_NK[:, k]}
    if logits_NK is not None:
        columns |= {name: row.double().cpu().numpy() for name, row in logit_rows(logits_NK).items()}
    return small_enough(Evaluation(columns))


def table_of_said(said: Floats, labels_N: Array, labels: Labels) -> Evaluation:
    """The evaluation of a baseline that says numbers (N,), or each class's probability (N, classes)."""
    if labels.kind == "number":
        return number_table(labels_N, said)
    if labels.kind == "classes":
        return table_of_shares(labels_N.astype(np.float64), said)
    return table_of_probabilities(said, labels_N.astype(np.int64))


def table_of_shares(labels_NK: Floats, shares_NK: Floats) -> Evaluation:
    """The evaluation of a baseline that gives each of several labels a probability."""
    likely = np.clip(shares_NK, 1e-12, 1 - 1e-12)
    losses = -(labels_NK * np.log(likely) + (1 - labels_NK) * np.log1p(-likely)).sum(1)
    log_odds = torch.from_numpy(np.log(likely) - np.log1p(-likely))
    return several_table(labels_NK, (shares_NK > 0.5).astype(np.float64), losses, log_odds)


def constant_table(train: Array, labels_N: Array, labels: Labels) -> Evaluation:
    """The evaluation of always saying the mean of the training split, or how often each class occurs in it."""
    if labels.kind == "number":
        return number_table(labels_N, np.full(len(labels_N), float(train.mean())))
    if labels.kind == "classes":
        shares = (train.sum(0) + 1.0) / (len(train) + 2.0)
        return table_of_shares(labels_N.astype(np.float64), np.tile(shares, (len(labels_N), 1)))
    return majority(train.astype(np.int64), labels_N.astype(np.int64), len(labels.names))
