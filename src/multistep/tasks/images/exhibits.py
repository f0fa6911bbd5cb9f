"""What is shown of a classifier: some predictions, the confusions, and pictures of the worst mistakes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np

from multistep.core.evidence.metric import Evaluation
from multistep.engine.learner import Exhibit, Picture
from multistep.tasks.classes import confusion, per_class, worst_first
from multistep.tasks.images.decode import Pixels
from multistep.tasks.images.splits import ImageSet

SAMPLES = 8  # predictions drawn by lot
WORST = 24  # pictures of mistakes


def exhibits_of(images: ImageSet, evaluation: Evaluation, classes: Sequence[str], split: str) -> list[Exhibit]:
    """Predictions, the most confused pictures, the confusion matrix, and scores by class."""
    columns = evaluation.columns
    labels, predictions = (columns[name].astype(int) for name in ("label", "prediction"))
    drawn = np.sort(np.random.default_rng(0).permutation(len(images))[:SAMPLES])
    sure = [f"{value:.2f}" for value in columns["probability"]]
    rows = tuple((images.names[i], classes[labels[i]], classes[predictions[i]], sure[i]) for i in drawn)
    found = [Exhibit(f"Some predictions ({split})", columns=("image", "label", "prediction", "probability"), rows=rows)]
    worst = worst_first(evaluation, WORST)
    pictures = [
        Picture(png, f"{classes[labels[i]]}, taken for {classes[predictions[i]]} ({sure[i]})")
        for i in worst
        if (png := png_of(images.images[i]))
    ]
    if pictures:
        found.append(Exhibit(f"Mistakes made with the most certainty ({split})", pictures=tuple(pictures)))
    return [*found, confusion(evaluation, classes), per_class(evaluation, classes)]


def png_of(pixels: Pixels) -> str:
    """An image (H, W, C) as base64 of a PNG; empty where there is no Pillow, which arrays do without."""
    try:
        from PIL import Image
    except Exception:
        return ""
    out = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")
