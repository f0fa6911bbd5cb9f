"""What all classifications share: tables of predictions, the majority, and what is shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from multistep.core.evidence.calibration import LOGIT, MOST_LOGITS, without_logits
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.engine.learner import Exhibit

# The default first, as engine.learner.Readiness asks.
CLASS_METRICS = ("accuracy", "loss", "calibrated_loss", "macro_f1", "weighted_f1", "precision", "recall", "matthews")
MOST_SHOWN = 20  # classes of a confusion matrix
LEAST_PROBABILITY = 1e-12
MOST_CLASSES = 256  # of which a table keeps the logits
RULED_OUT = 1e4  # nats: a class that far behind is none
_EVERY: ContextVar[bool] = ContextVar("every_logit", default=False)


def class_metrics(classes: int) -> tuple[str, ...]:
    """The metrics that so many classes can be judged by."""
    return (*CLASS_METRICS, *(("roc_auc",) if classes == 2 else ()), *(("top5_accuracy",) if classes > 5 else ()))


def class_rows(logits_BC: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    """One number an example for each column of a classification's evaluation, on the device.

    Concatenate over batches and give to `class_table`.
    """
    logits_BC = logits_BC.float()
    probabilities_BC = logits_BC.softmax(-1)
    probability, prediction = probabilities_BC.max(-1)
    rows = {
        "label": labels_B,
        "prediction": prediction,
        "probability": probability,
        "loss": F.cross_entropy(logits_BC, labels_B, reduction="none"),
    }
    classes = logits_BC.shape[-1]
    if classes == 2:
        rows["score"] = probabilities_BC[:, 1]
    if classes > 5:
        rows["in_top5"] = (logits_BC.topk(5).indices == labels_B[:, None]).any(-1)
    return rows | logit_rows(logits_BC.log_softmax(-1))


def logit_rows(logits_BC: Tensor) -> dict[str, Tensor]:
    """The logits, a column each, by which probabilities are calibrated; none of very many classes.

    A class that a model rules out has minus infinity, which no metric could be had beside: it is cut off.
    """
    if logits_BC.shape[-1] > MOST_CLASSES:
        return {}
    kept_BC = logits_BC.float().clamp(-RULED_OUT, RULED_OUT)
    return {f"{LOGIT}{k}": kept_BC[:, k] for k in range(kept_BC.shape[-1])}


def class_table(batches: Sequence[dict[str, Tensor]]) -> Evaluation:
    """The evaluation of rows from `class_rows`, one an example, each a block of its own."""
    columns = fetched(batches, list(batches[0]))
    examples = len(columns["label"])
    table = {**columns, "count": np.ones(examples), "block": np.arange(examples, dtype=np.float64)}
    return small_enough(Evaluation(table))


def fetched(batches: Sequence[dict[str, Tensor]], names: Sequence[str]) -> dict[str, Floats]:
    """Columns (one number an example) of all batches together, from the device in one transfer."""
    first = batches[0][names[0]]
    exact = torch.float32 if first.device.type == "mps" else torch.float64  # which MPS has none of
    table = torch.stack([torch.cat([rows[name].detach() for rows in batches]).to(exact) for name in names])
    return dict(zip(names, table.cpu().double().numpy(), strict=True))


@contextmanager
def every_logit(wanted: bool) -> Iterator[None]:
    """Tables that are made within keep all logits, if `wanted`: what is said of rows is decided by them afterwards."""
    before = _EVERY.set(wanted)
    try:
        yield
    finally:
        _EVERY.reset(before)


def small_enough(evaluation: Evaluation) -> Evaluation:
    """The table, without its logits where they would be too many to be kept with every evaluation."""
    if _EVERY.get():
        return evaluation
    classes = sum(name.startswith(LOGIT) for name in evaluation.columns)
    return without_logits(evaluation) if classes * len(evaluation) > MOST_LOGITS else evaluation


def table_of_probabilities(probabilities_NC: Floats, labels_N: NDArray[np.int64]) -> Evaluation:
    """The evaluation of a baseline that gives each class a probability."""
    logits = torch.from_numpy(np.log(np.maximum(probabilities_NC, LEAST_PROBABILITY)))
    return class_table([class_rows(logits, torch.from_numpy(labels_N))])


def balanced_weights(labels_N: NDArray[np.int64], classes: int) -> tuple[float, ...]:
    """What an example of each class weighs in a loss to which all classes contribute alike; 1 on average."""
    counts = np.bincount(labels_N, minlength=classes)
    weights: list[float] = (len(labels_N) / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist()
    return tuple(weights)


def majority(train_labels_N: NDArray[np.int64], labels_M: NDArray[np.int64], classes: int) -> Evaluation:
    """The evaluation of always saying how often each class occurs in training."""
    share = (np.bincount(train_labels_N, minlength=classes) + 1.0) / (len(train_labels_N) + classes)
    return table_of_probabilities(np.tile(share, (len(labels_M), 1)), labels_M)


def confusion(evaluation: Evaluation, names: Sequence[str]) -> Exhibit:
    """How often each class was taken for which; of many classes, those that were confused most."""
    labels = evaluation.columns["label"].astype(int)
    predictions = evaluation.columns["prediction"].astype(int)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, predictions), 1)
    shown = list(range(len(names)))
    title = "Confusion: label by row, prediction by column"
    if len(names) > MOST_SHOWN:
        wrong = counts - np.diag(np.diag(counts))
        shown = sorted(np.argsort(wrong.sum(0) + wrong.sum(1))[::-1][:MOST_SHOWN].tolist())
        title += f" (the {MOST_SHOWN} of {len(names)} classes that are confused most)"
    rows = tuple((names[i], *(str(counts[i, j]) for j in shown)) for i in shown)
    return Exhibit(title, columns=("label", *(names[j] for j in shown)), rows=rows, shaded=True)


def per_class(evaluation: Evaluation, names: Sequence[str]) -> Exhibit:
    """Precision, recall and F1 of each class, with its number of examples."""
    labels = evaluation.columns["label"].astype(int)
    predictions = evaluation.columns["prediction"].astype(int)
    rows = []
    for number, name in enumerate(names):
        right = int(((labels == number) & (predictions == number)).sum())
        there, said = int((labels == number).sum()), int((predictions == number).sum())
        precision, recall = right / max(1, said), right / max(1, there)
        f1 = 2 * right / max(1, there + said)
        rows.append((name, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", str(there)))
    return Exhibit("By class", columns=("class", "precision", "recall", "F1", "examples"), rows=tuple(rows))


def worst_first(evaluation: Evaluation, count: int) -> NDArray[np.int64]:
    """The examples that were got wrong with the most certainty (at most `count`)."""
    columns = evaluation.columns
    wrong = np.flatnonzero(columns["label"] != columns["prediction"])
    return wrong[np.argsort(-columns["loss"][wrong], kind="stable")][:count]
