"""What is done with a finished classifier: score other images, say what an image shows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from multistep.backends.torch.learner import pick_device
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.images.decode import Form, Pixels, decode, require_pillow
from multistep.tasks.images.load import load_model
from multistep.tasks.images.splits import load_one
from multistep.tasks.images.task import score
from multistep.tasks.prediction import Prediction

BATCH = 256  # images
LIKELIEST = 5  # classes that a prediction tells of


def evaluate_model(model: str, data: DataSpec) -> Evaluation:
    """Score a model folder or hub id on `data`; of several splits the test split."""
    maker, _ = load_model(model, None, None)
    images, notes = load_one(data, maker.form, maker.classes)
    for note in notes:  # what could not be scored, above all
        logging.getLogger("multistep").warning(note)
    device = pick_device()
    module = maker.build(0).to(device).eval()
    form, every = maker.form, np.arange(len(images))
    with torch.inference_mode():
        return score(module, images, every, form.height, form.width, device=device)


def predict(model: str, paths: Sequence[str]) -> list[Prediction]:
    """What a model folder or hub id sees on each image file. Raises DataError that names an unreadable one."""
    require_pillow()
    maker, _ = load_model(model, None, None)
    device = pick_device()
    module = maker.build(0).to(device).eval()
    found: list[Prediction] = []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        pixels = np.stack([_read(path, maker.form) for path in some])
        with torch.inference_mode():
            probabilities = _logits(module, pixels, device).float().softmax(-1).cpu().numpy()
        for path, row in zip(some, probabilities, strict=True):
            best = np.argsort(-row, kind="stable")[:LIKELIEST]
            others = {maker.classes[i]: float(row[i]) for i in best}
            found.append(Prediction(path, maker.classes[best[0]], float(row[best[0]]), others))
    return found


def _read(path: str, form: Form) -> Pixels:
    pixels = decode(Path(path).expanduser(), form)
    if isinstance(pixels, str):
        raise DataError(f"{path}: {pixels}; name an image file")
    return pixels


def _logits(module: nn.Module, pixels: Pixels, device: torch.device) -> Tensor:
    logits: Tensor = module(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device).float())
    return logits
