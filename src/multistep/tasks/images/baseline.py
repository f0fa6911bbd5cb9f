"""What a trivial model scores: logistic or ridge regression on pixels; without scikit-learn, always the same."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.errors import PlanError
from multistep.tasks.baselines import CONSTANT, about, read_fitted, write_fitted
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.fitting import cut
from multistep.tasks.images.about import about_labels, labels_said
from multistep.tasks.images.decode import Form, Pixels
from multistep.tasks.images.holding import Images, by_lot
from multistep.tasks.images.splits import ImageSet
from multistep.tasks.labelled.answers import of_baseline
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.score import constant_table, table_of_said

MOST_IMAGES = 10_000  # drawn by lot; on Fashion-MNIST six times as many are worth 0.006 of accuracy
AT_ONCE = 200  # images that are made small together
MOST_PIXELS = 32  # of the longer side; larger images are averaged down
# Of several labels each has a regression of its own; those of numbers are solved exactly, for each penalty.
MOST_LABELLED = 100_000  # images times labels
MOST_NUMBERS, NUMBER_PIXELS = 5_000, 16  # images, and pixels of the longer side
PENALTIES = tuple(10.0**power for power in range(-1, 6))  # the one that predicts each left-out image best is taken
FEATURES = """An image as {form} in bytes; where its longer side has more than {side} pixels, averaged down to so \
many; each pixel's value divided by 255, less one half."""
PENALTY, ITERATIONS = 0.1, 60  # scikit-learn's C; on Fashion-MNIST ten times as much scores less


@dataclass(frozen=True)
class PixelBaseline:
    """Fitted on the training split; `model` is None where there is no scikit-learn."""

    name: str
    train: ImageSet
    labels: Labels
    model: Any = None

    @classmethod
    def fit(cls, train: ImageSet, labels: Labels) -> PixelBaseline:
        """Deterministic, in about two seconds for 10,000 images of 28 x 28."""
        try:
            from sklearn.linear_model import LogisticRegression, RidgeCV
            from sklearn.multiclass import OneVsRestClassifier
        except Exception:  # not installed, or made for another numpy
            return cls("mean" if labels.kind == "number" else "majority", train, labels)
        logistic = LogisticRegression(C=PENALTY, max_iter=ITERATIONS)
        several = OneVsRestClassifier(logistic)
        model = {"class": logistic, "classes": several, "number": RidgeCV(PENALTIES)}[labels.kind]
        most = {"class": MOST_IMAGES, "classes": min(MOST_IMAGES, MOST_LABELLED // labels.outputs)}
        chosen = np.sort(by_lot(train.images, most.get(labels.kind, MOST_NUMBERS)))
        numbers = np.concatenate([_numbers(train.images[part], labels) for part in cut(chosen, AT_ONCE)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sixty iterations are enough, converged or not
            model.fit(numbers, train.labels[chosen])
        some = f" of {len(chosen):,} images" if len(chosen) < len(train) else ""
        kind = "ridge" if labels.kind == "number" else "logistic"
        return cls(f"{kind} regression on pixels{some}", train, labels, model)

    def score(self, images: ImageSet) -> Evaluation:
        """The evaluation of a split; images of one group are one block."""
        if self.model is None:
            table = constant_table(self.train.labels, images.labels, self.labels)
            return Evaluation({**table.columns, "block": images.blocks.astype(np.float64)})
        return scored(self.model, images, self.labels)

    def write(self, folder: Path, task: str, form: Form) -> str:
        """Write it as a model folder. Returns why it cannot be written, or an empty string."""
        if self.model is None:
            return CONSTANT
        content = {**about_labels(self.labels), **asdict(form)}
        features = FEATURES.format(form=form, side=_side(self.labels))
        return write_fitted(folder, task, {"model": self.model}, name=self.name, features=features, content=content)


def read_baseline(model: str) -> tuple[Any, Labels, Form]:
    """The model of a folder that `write` filled, its labels, and what it reads.

    Raises PlanError where it is damaged or not to be trusted.
    """
    try:
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.multiclass import OneVsRestClassifier
    except Exception as error:
        raise PlanError(f"{model}: needs scikit-learn ({error}); pip install 'multistep[images]'") from error
    said = about(model, "labels", "channels", "height", "width", "white")
    fitted = read_fitted(model, {"model": (LogisticRegression, OneVsRestClassifier, RidgeCV)})["model"]
    form = Form(said["channels"], said["height"], said["width"], said["white"])
    return fitted, labels_said(said), form


def scored(model: Any, images: ImageSet, labels: Labels, settled: Calibrated = Calibrated()) -> Evaluation:  # noqa: B008
    """The evaluation of what a fitted model says of images, with probabilities as they are settled."""
    said = of_baseline(said_of(model, images.images, labels), labels, settled)
    table = table_of_said(said, images.labels, labels)
    return Evaluation({**table.columns, "block": images.blocks.astype(np.float64)})


def said_of(model: Any, images: Images, labels: Labels) -> Floats:
    """Numbers (N,), or each class's probability (N, classes), of images (N, H, W, C)."""
    parts = cut(np.arange(len(images)), AT_ONCE) or [np.arange(0)]
    numbers = np.concatenate([_numbers(images[part], labels) for part in parts])
    if labels.kind == "number":
        return np.asarray(model.predict(numbers), np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that all training images have, or none
        probabilities = np.asarray(model.predict_proba(numbers), np.float64)
    if labels.kind == "classes":
        return probabilities[:, -labels.outputs :]  # of a single label, also that it is not there
    found = np.zeros((len(images), labels.outputs))
    found[:, model.classes_] = probabilities
    return found


def _side(labels: Labels) -> int:
    return NUMBER_PIXELS if labels.kind == "number" else MOST_PIXELS


def _numbers(images: Pixels, labels: Labels) -> Floats:
    """Numbers around 0, (N, pixels)."""
    most = _side(labels)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    if (longer := max(height, width)) > most:
        size = [max(1, round(side * most / longer)) for side in (height, width)]
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels.flatten(1).numpy().astype(np.float64) / 255 - 0.5
