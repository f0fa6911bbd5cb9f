"""What a trivial model scores: logistic regression on pixels, or the majority where scikit-learn is missing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.classes import majority, table_of_probabilities
from multistep.tasks.images.splits import ImageSet

MOST_IMAGES = 10_000  # drawn by lot; on Fashion-MNIST six times as many are worth 0.006 of accuracy
MOST_PIXELS = 32  # of the longer side; larger images are averaged down
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
            model.fit(_pixels(train, chosen), train.labels[chosen])
        some = f" of {len(chosen):,} images" if len(chosen) < len(train) else ""
        return cls(f"logistic regression on pixels{some}", train, classes, model)

    def score(self, images: ImageSet) -> Evaluation:
        """The evaluation of a split; images of one group are one block."""
        if self.model is None:
            table = majority(self.train.labels, images.labels, self.classes)
        else:
            probabilities = np.zeros((len(images), self.classes))
            probabilities[:, self.model.classes_] = self.model.predict_proba(_pixels(images, np.arange(len(images))))
            table = table_of_probabilities(probabilities, images.labels)
        return Evaluation({**table.columns, "block": images.blocks.astype(np.float64)})


def _pixels(images: ImageSet, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    """Numbers around 0, (N, pixels)."""
    pixels = torch.from_numpy(images.images[chosen]).permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    if (longer := max(height, width)) > MOST_PIXELS:
        size = [max(1, round(side * MOST_PIXELS / longer)) for side in (height, width)]
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels.flatten(1).numpy().astype(np.float64) / 255 - 0.5
