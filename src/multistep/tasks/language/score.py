"""Evaluations of predicted classes and numbers, one row an example."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.classes import class_rows, class_table, logit_rows, small_enough
from multistep.tasks.language.labels import Array, Labels
from multistep.tasks.language.models import Scale


def table_of(logits_NC: Tensor, labels_N: Array, labels: Labels, scale: Scale) -> Evaluation:
    """The evaluation with one row an example."""
    truth = torch.from_numpy(labels_N).to(logits_NC.device)
    if labels.kind == "class":
        return class_table([class_rows(logits_NC, truth)])
    if labels.kind == "number":
        prediction = logits_NC[:, 0].double().cpu().numpy() * scale.deviation + scale.mean
        return number_table(labels_N, prediction)
    losses = F.binary_cross_entropy_with_logits(logits_NC.double(), truth.double(), reduction="none").sum(1)
    said = (logits_NC > 0).double().cpu().numpy()
    return several_table(labels_N.astype(np.float64), said, losses.cpu().numpy(), logits_NC)


def number_table(labels_N: Array, prediction_N: Array) -> Evaluation:
    """The evaluation of predicted numbers."""
    block = np.arange(len(labels_N), dtype=np.float64)
    return Evaluation(
        {"label": labels_N.astype(np.float64), "prediction": prediction_N.astype(np.float64), "block": block}
    )


def several_table(labels_NK: Floats, said_NK: Floats, loss_N: Floats, logits_NK: Tensor | None = None) -> Evaluation:
    """The evaluation of several classes at once, each 0 or 1, with their log-odds if these are known."""
    columns = {"loss": loss_N, "count": np.ones(len(loss_N)), "block": np.arange(len(loss_N), dtype=np.float64)}
    for k in range(labels_NK.shape[1]):
        columns |= {f"label_{k}": labels_NK[:, k], f"prediction_{k}": said_NK[:, k]}
    if logits_NK is not None:
        columns |= {name: row.double().cpu().numpy() for name, row in logit_rows(logits_NK).items()}
    return small_enough(Evaluation(columns))
