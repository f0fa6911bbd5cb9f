"""How many examples each class has in training, what they weigh, and what always saying the same would score."""

from __future__ import annotations

import numpy as np

from multistep.core.evidence.metric import metric_named
from multistep.data.table import quoted
from multistep.errors import PlanError
from multistep.tasks.classes import balanced_weights
from multistep.tasks.labelled.labels import Array, Labels
from multistep.tasks.labelled.score import several_table


def class_weights(labels: Labels, train: Array) -> tuple[float, ...]:
    """What an example of each class weighs in a loss to which all classes contribute alike; 1 on average.

    Of several classes at once: how many examples lack a class for each that has it. Raises PlanError for numbers.
    """
    if labels.kind == "number":
        raise PlanError("data.class_weights is 'balanced', but the labels are numbers, which have no classes")
    if labels.kind == "class":
        return balanced_weights(train.astype(np.int64), len(labels.names))
    counts = train.sum(0)
    return tuple(((len(train) - counts) / np.maximum(counts, 1)).tolist())


def class_counts(labels: Labels, train: Array) -> dict[str, int]:
    """How many examples each class has; of numbers nothing."""
    if labels.kind == "number":
        return {}
    of_one = labels.kind == "class"
    totals = np.bincount(train.astype(np.int64), minlength=len(labels.names)) if of_one else train.sum(0)
    return {name: int(totals[i]) for i, name in enumerate(labels.names)}


def number_range(labels: Labels, train: Array) -> str:
    """Between which values labels lie that are numbers, for a description; of classes nothing."""
    return f"numbers from {train.min():g} to {train.max():g}" if labels.kind == "number" else ""


def majority_note(train: Array, validation: Array, labels: Labels) -> str:
    """What always saying the same scores on the validation split: the most frequent class or classes, or the mean."""
    if labels.kind == "number":
        mean = float(train.mean())
        error = float(np.square(validation - mean).mean())
        return f"always saying {mean:.4g}, the mean of train, has a mean squared error of {error:.4g} on validation"
    if labels.kind == "class":
        most = int(np.bincount(train.astype(np.int64), minlength=len(labels.names)).argmax())
        share = float((validation == most).mean())
        name = labels.names[most]
        return f"always saying '{name}', the most frequent class of train, is right {share:.1%} of validation"
    shares = train.mean(0)
    usual = shares > 0.5 if (shares > 0.5).any() else np.arange(len(shares)) == shares.argmax()
    truth = validation.astype(np.float64)
    said = np.tile(usual.astype(np.float64), (len(truth), 1))
    score = metric_named("micro_f1").score(several_table(truth, said, np.zeros(len(truth))))
    names = quoted(name for name, there in zip(labels.names, usual.tolist(), strict=True) if there)
    return f"always saying {names}, what is most frequent in train, has a micro F1 of {score:.3f} on validation"
