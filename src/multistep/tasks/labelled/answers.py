"""What a model says of inputs -> predictions: a class, the labels above a threshold, or a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from multistep.core.evidence.brief import in_single_precision
from multistep.core.evidence.metric import Floats
from multistep.errors import PlanError
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.prediction import Asked, Prediction


def settled_for(model: str, labels: Labels, asked: Asked) -> Calibrated:
    """What the folder says of probabilities. Raises PlanError for a threshold of what has none."""
    if asked.threshold is not None and (labels.kind == "number" or (labels.kind == "class" and labels.outputs != 2)):
        what = "predicts numbers" if labels.kind == "number" else f"tells {labels.outputs} classes apart"
        raise PlanError(
            f"threshold is {asked.threshold:g}, but {model} {what}; a threshold is for two classes, or for several "
            "labels"
        )
    return Calibrated.read(model, asked.threshold)


def said_by(logits_NC: Tensor, labels: Labels, settled: Calibrated) -> Floats:
    """Numbers (N,), or each class's probability (N, classes), of logits at the folder's temperature."""
    if labels.kind == "number":
        return np.asarray(logits_NC[:, 0].double().cpu().numpy(), np.float64)
    logits_NC = logits_NC / settled.temperature
    shares = logits_NC.sigmoid() if labels.kind == "classes" else logits_NC.softmax(-1)
    return np.asarray(shares.double().cpu().numpy(), np.float64)


def of_baseline(said: Floats, labels: Labels, settled: Calibrated) -> Floats:
    """The same of what a baseline says by itself: numbers (N,), or probabilities (N, classes)."""
    if labels.kind == "number":
        return said
    if labels.kind == "classes":
        return settled.of_several(said)
    return settled.probabilities(np.log(np.maximum(said, 1e-12)))


def predictions(
    inputs: Sequence[str], said: Floats, labels: Labels, asked: Asked, settled: Calibrated
) -> list[Prediction]:
    """Of numbers (N,), or of each class's probability (N, classes)."""
    if labels.kind == "number":
        return [Prediction(text, in_single_precision(value)) for text, value in zip(inputs, said.tolist(), strict=True)]
    several = labels.kind == "classes"
    found: list[Prediction] = []
    for text, probabilities in zip(inputs, said.tolist(), strict=True):
        best = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])[: asked.told]
        others = {labels.names[k]: probabilities[k] for k in best}
        if several:
            likely = [name for name, p in zip(labels.names, probabilities, strict=True) if p > settled.cut]
            # Of the whole answer, as if the classes had nothing to do with each other.
            sure = float(np.prod([p if p > settled.cut else 1.0 - p for p in probabilities]))
            found.append(Prediction(text, ",".join(likely), sure, others))
        else:
            first = settled.likeliest(np.asarray(probabilities))
            found.append(Prediction(text, labels.names[first], probabilities[first], others))
    return found
