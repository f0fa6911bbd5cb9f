"""What is done with a finished classifier: score other images, say what an image shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from multistep.backends.torch.learner import pick_device
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.core.values.plan import DataSpec
from multistep.data.table import Table
from multistep.errors import PlanError
from multistep.tasks.baselines import is_baseline
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.images.baseline import probabilities_of, read_baseline, scored
from multistep.tasks.images.columns import image_column_of
from multistep.tasks.images.decode import SUFFIXES, Form, Pixels, decode, require_pillow
from multistep.tasks.images.load import load_model
from multistep.tasks.images.splits import ImageSet, load_one
from multistep.tasks.images.task import score
from multistep.tasks.notes import say
from multistep.tasks.prediction import Asked, Prediction, Predictor, file_from

BATCH = 256  # images


def evaluate_model(model: str, data: DataSpec) -> Evaluation:
    """Score a model folder or hub id on `data`; of several splits the test split."""
    if is_baseline(model):
        fitted, classes, form = read_baseline(model)
        table = scored(fitted, _images(data, form, classes), len(classes))
        return Calibrated.read(model).decided(table, model, hot=True)
    maker, _ = load_model(model, None, None)
    images = _images(data, maker.form, maker.classes)
    device = pick_device()
    module = maker.build(0).to(device).eval()
    form, every = maker.form, np.arange(len(images))
    settled = Calibrated.read(model)
    with torch.inference_mode():
        heated = _Heated(module, settled.temperature)
        return settled.decided(score(heated, images, every, form.height, form.width, device=device), model)


def _images(data: DataSpec, form: Form, classes: Sequence[str]) -> ImageSet:
    images, notes = load_one(data, form, classes)
    say(notes)  # what could not be scored, above all
    return images


def load_predictor(model: str, asked: Asked) -> Predictor:
    """What a model folder or hub id sees on image files."""
    require_pillow()
    if is_baseline(model):
        fitted, classes, form = read_baseline(model)
        settled = _settled(model, classes, asked)

        def guess(pixels: Pixels) -> Floats:
            return settled.probabilities(np.log(np.maximum(probabilities_of(fitted, pixels, len(classes)), 1e-12)))

        return _predictor(form, classes, guess, asked, settled)
    maker, _ = load_model(model, None, None)
    device = pick_device()
    module = maker.build(0).to(device).eval()
    settled = _settled(model, maker.classes, asked)

    def say(pixels: Pixels) -> Floats:
        with torch.inference_mode():
            return settled.probabilities(_logits(module, pixels, device).double().cpu().numpy())

    return _predictor(maker.form, maker.classes, say, asked, settled)


def _settled(model: str, classes: Sequence[str], asked: Asked) -> Calibrated:
    """What the folder says of probabilities. Raises PlanError for a threshold of what has none."""
    if asked.threshold is not None and len(classes) != 2:
        raise PlanError(
            f"threshold is {asked.threshold:g}, but {model} has {len(classes)} classes, and a threshold is for two"
        )
    return Calibrated.read(model, asked.threshold)


class _Heated(nn.Module):
    """A classifier whose logits are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixels) / self.temperature
        return logits


def _predictor(
    form: Form, classes: Sequence[str], say: Callable[[Pixels], Floats], asked: Asked, settled: Calibrated
) -> Predictor:
    """What `say` makes of images, in its probabilities (N, classes)."""

    def seen(path: str, row: Floats) -> Prediction:
        best = np.argsort(-row, kind="stable")[: asked.told]
        others = {classes[i]: float(row[i]) for i in best}
        first = settled.likeliest(row)
        return Prediction(path, classes[first], float(row[first]), others)

    def says(paths: Sequence[str]) -> list[Prediction | str]:
        found: list[Prediction | str] = []
        at_once = asked.batch_size or BATCH
        for start in range(0, len(paths), at_once):
            some = paths[start : start + at_once]
            read = [decode(Path(path).expanduser(), form) for path in some]
            pixels = [each for each in read if not isinstance(each, str)]
            rows = iter(say(np.stack(pixels)) if pixels else ())
            found += [
                f"{path}: {each}; name an image file" if isinstance(each, str) else seen(path, next(rows))
                for path, each in zip(some, read, strict=True)
            ]
        return found

    def find(table: Table, data: DataSpec) -> tuple[str, ...]:
        return (image_column_of(table, data),)

    return Predictor(says, find, file_from, "image file", files=SUFFIXES)


def _logits(module: nn.Module, pixels: Pixels, device: torch.device) -> Tensor:
    logits: Tensor = module(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device).float())
    return logits
