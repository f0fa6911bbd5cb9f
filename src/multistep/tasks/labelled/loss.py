"""What networks are trained by and judged by, for each kind of labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from multistep.core.evidence.metric import OF_NUMBERS
from multistep.tasks.classes import class_metrics
from multistep.tasks.labelled.labels import Array, Kind, Labels
from multistep.tasks.labelled.scale import Scale

SEVERAL_METRICS = ("micro_f1", "macro_f1", "loss")
NUMBER_METRICS = (*OF_NUMBERS, "pearson", "spearman")


def targets(labels: Array, of: Labels, scale: Scale) -> Array:
    """What the loss compares logits with: class numbers, zeros and ones, or deviations from the mean."""
    if of.kind == "class":
        return labels.astype(np.int64)
    return ((labels - scale.mean) / scale.deviation).astype(np.float32)  # type: ignore[return-value]


def loss_of(
    logits_BC: Tensor,
    targets_B: Tensor,
    kind: Kind,
    weights: Tensor | None,
    label_smoothing: float,
    reduction: Literal["sum", "none"],
) -> Tensor:
    """Cross-entropy, binary cross-entropy summed over the labels, or squared error; of each example, or their sum."""
    if kind == "class":
        return F.cross_entropy(logits_BC, targets_B, weights, reduction=reduction, label_smoothing=label_smoothing)
    if kind == "classes":
        smooth = targets_B * (1.0 - label_smoothing) + 0.5 * label_smoothing
        found = F.binary_cross_entropy_with_logits(logits_BC, smooth, reduction=reduction, pos_weight=weights)
        return found if reduction == "sum" else found.sum(1)
    squares = (logits_BC[:, 0] - targets_B).square()
    return squares.sum() if reduction == "sum" else squares


def metrics_of(labels: Labels) -> tuple[str, ...]:
    """Those that labels can be judged by, the default first."""
    if labels.kind == "class":
        return class_metrics(len(labels.names))
    return SEVERAL_METRICS if labels.kind == "classes" else NUMBER_METRICS


def loss_unit(labels: Labels) -> str:
    return "squared deviations" if labels.kind == "number" else "nats per example"
