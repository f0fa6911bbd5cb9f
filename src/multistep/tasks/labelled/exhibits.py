"""What is shown of several labels at once and of numbers, whatever the examples are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.engine.learner import Exhibit

NO_LABEL = "(none)"


def label_words(row: Floats, names: Sequence[str]) -> str:
    """The names of the labels that a row of zeros and ones has."""
    return ", ".join(name for name, there in zip(names, row, strict=True) if there) or NO_LABEL


def labels_and_said(table: Evaluation, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Labels and predictions, zeros and ones (shape: rows, labels; both)."""
    truth, said = (
        np.stack([table.columns[f"{kind}_{k}"] for k in range(len(names))], 1) for kind in ("label", "prediction")
    )
    return truth, said


def by_label(table: Evaluation, names: Sequence[str]) -> Exhibit:
    """Precision, recall and F1 of each of several labels, with its number of examples."""
    truth, said = labels_and_said(table, names)
    rows = []
    for k, name in enumerate(names):
        right = float((truth[:, k] * said[:, k]).sum())
        there, predicted = float(truth[:, k].sum()), float(said[:, k].sum())
        f1 = 2 * right / max(1.0, there + predicted)
        numbers = (right / max(1.0, predicted), right / max(1.0, there), f1)
        rows.append((name, *(f"{value:.3f}" for value in numbers), str(int(there))))
    return Exhibit("By class", columns=("class", "precision", "recall", "F1", "examples"), rows=tuple(rows))


def farthest_off(table: Evaluation, count: int) -> npt.NDArray[np.intp]:
    """The rows of several labels with the largest loss, or those whose number was missed by most, the worst first."""
    off = table.columns.get("loss")
    if off is None:
        off = np.abs(table.columns["label"] - table.columns["prediction"])
    return np.argsort(-off, kind="stable")[:count]
