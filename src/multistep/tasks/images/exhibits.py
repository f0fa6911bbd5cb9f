"""What is shown of predictions: some of them, pictures of the worst mistakes, and what each class came to."""

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
from multistep.tasks.labelled.exhibits import by_label, farthest_off, label_words, labels_and_said
from multistep.tasks.labelled.labels import Labels

SAMPLES = 8  # predictions drawn by lot
WORST = 24  # pictures of mistakes


def exhibits_of(images: ImageSet, evaluation: Evaluation, of: Labels, split: str) -> list[Exhibit]:
    """Predictions, pictures of the worst mistakes, and of classes the confusion matrix and scores by class."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(images))[:SAMPLES]).tolist()
    if of.kind == "class":
        return [*_of_classes(images, evaluation, of.names, split, drawn)]
    if of.kind == "number":
        label, prediction = (evaluation.columns[name] for name in ("label", "prediction"))
        names = ("label", "prediction")
        words = [(f"{there:.4g}", f"{said:.4g}") for there, said in zip(label, prediction, strict=True)]
        missed, title = farthest_off(evaluation, WORST), "Farthest off"
    else:
        truth, answers = labels_and_said(evaluation, of.names)
        names = ("labels", "prediction")
        words = [
            (label_words(there, of.names), label_words(said, of.names))
            for there, said in zip(truth, answers, strict=True)
        ]
        missed, title = farthest_off(evaluation, WORST), "Labels that were missed by most"
        missed = missed[(truth != answers).any(1)[missed]]
    rows = tuple((images.names[i], *words[i]) for i in drawn)
    captions = [(int(i), f"{words[i][0]}; said: {words[i][1]}") for i in missed]
    found = [Exhibit(f"Some predictions ({split})", columns=("image", *names), rows=rows)]
    found += _pictures(f"{title} ({split})", images, captions)
    return found if of.kind == "number" else [*found, by_label(evaluation, of.names)]


def _of_classes(
    images: ImageSet, evaluation: Evaluation, classes: Sequence[str], split: str, drawn: Sequence[int]
) -> list[Exhibit]:
    columns = evaluation.columns
    labels, predictions = (columns[name].astype(int) for name in ("label", "prediction"))
    sure = [f"{value:.2f}" for value in columns["probability"]]
    rows = tuple((images.names[i], classes[labels[i]], classes[predictions[i]], sure[i]) for i in drawn)
    found = [Exhibit(f"Some predictions ({split})", columns=("image", "label", "prediction", "probability"), rows=rows)]
    worst = worst_first(evaluation, WORST)
    captions = [(int(i), f"{classes[labels[i]]}, taken for {classes[predictions[i]]} ({sure[i]})") for i in worst]
    found += _pictures(f"Mistakes made with the most certainty ({split})", images, captions)
    return [*found, confusion(evaluation, classes), per_class(evaluation, classes)]


def _pictures(title: str, images: ImageSet, captions: Sequence[tuple[int, str]]) -> list[Exhibit]:
    """The images of some numbers with what is said of each; none where there are none, or no Pillow."""
    shown = tuple(Picture(png, words) for i, words in captions if (png := png_of(images.images[i])))
    return [Exhibit(title, pictures=shown)] if shown else []


def png_of(pixels: Pixels) -> str:
    """An image (H, W, C) as base64 of a PNG; empty where there is no Pillow, which arrays do without."""
    try:
        from PIL import Image
    except Exception:
        return ""
    out = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")
