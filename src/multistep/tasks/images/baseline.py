"""What a trivial model scores: logistic regression on pixels, or the majority where scikit-learn is missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.errors import PlanError
from multistep.tasks.baselines import CONSTANT, about, read_fitted, write_fitted
from multistep.tasks.classes import majority, table_of_probabilities
from multistep.tasks.images.decode import Form, Pixels
from multistep.tasks.images.splits import ImageSet

MOST_IMAGES = 10_000  # drawn by lot; on Fashion-MNIST six times as many are worth 0.006 of accuracy
MOST_PIXELS = 32  # of the longer side; larger images are averaged down
FEATURES = f"""An image as {{form}} in bytes; where its longer side has more than {MOST_PIXELS} pixels, averaged down \
to so many; each pixel's value divided by 255, less one half."""
PENALTY, ITERATIONS = 0.1, 60  # scikit-learn's C; on Fashion-MNIST ten times as much scores less


@dataclass(frozen=True)
class PixelBaseline:
    """Fitted on the training split; `model` is None where there is no scikit-learn."""

    name: str
    train: ImageSet
    classes: int
    model: Any = None

    @classmethod
    def fit(cls, train: ImageSet, classes: int) -> PixelBaseline:
        """Deterministic, in about two seconds for 10,000 images of 28 x 28."""
        try:
            from sklearn.linear_model import LogisticRegression
        except Exception:  # not installed, or made for another numpy
            return cls("majority", train, classes)
        chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST_IMAGES])
        model = LogisticRegression(C=PENALTY, max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sixty iterations are enough, converged or not
            model.fit(_numbers(train.images[chosen]), train.labels[chosen])
        some = f" of {len(chosen):,} images" if len(chosen) < len(train) else ""
        return cls(f"logistic regression on pixels{some}", train, classes, model)

    def score(self, images: ImageSet) -> Evaluation:
        """The evaluation of a split; images of one group are one block."""
        if self.model is None:
            table = majority(self.train.labels, images.labels, self.classes)
            return Evaluation({**table.columns, "block": images.blocks.astype(np.float64)})
        return scored(self.model, images, self.classes)

    def write(self, folder: Path, task: str, classes: Sequence[str], form: Form) -> str:
        """Write it as a model folder. Returns why it cannot be written, or an empty string."""
        if self.model is None:
            return CONSTANT
        content = {"labels": list(classes), **asdict(form)}
        features = FEATURES.format(form=form)
        return write_fitted(folder, task, {"model": self.model}, name=self.name, features=features, content=content)


def read_baseline(model: str) -> tuple[Any, tuple[str, ...], Form]:
    """The model of a folder that `write` filled, its classes, and what it reads.

    Raises PlanError where it is damaged or not to be trusted.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except Exception as error:
        raise PlanError(f"{model}: needs scikit-learn ({error}); pip install 'multistep[images]'") from error
    said = about(model, "labels", "channels", "height", "width", "white")
    fitted = read_fitted(model, {"model": (LogisticRegression,)})["model"]
    form = Form(said["channels"], said["height"], said["width"], said["white"])
    return fitted, tuple(str(label) for label in said["labels"]), form


def scored(model: Any, images: ImageSet, classes: int) -> Evaluation:
    """The evaluation of what a fitted model says of images."""
    table = table_of_probabilities(probabilities_of(model, images.images, classes), images.labels)
    return Evaluation({**table.columns, "block": images.blocks.astype(np.float64)})


def probabilities_of(model: Any, images: Pixels, classes: int) -> Floats:
    """Each class's probability, (N, classes), of images (N, H, W, C)."""
    found = np.zeros((len(images), classes))
    found[:, model.classes_] = model.predict_proba(_numbers(images))
    return found


def _numbers(images: Pixels) -> Floats:
    """Numbers around 0, (N, pixels)."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    if (longer := max(height, width)) > MOST_PIXELS:
        size = [max(1, round(side * MOST_PIXELS / longer)) for side in (height, width)]
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels.flatten(1).numpy().astype(np.float64) / 255 - 0.5
