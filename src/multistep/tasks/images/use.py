"""What is done with a finished classifier: score other images, say what an image shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from multistep.backends.torch.devices import pick_device
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.core.values.plan import DataSpec
from multistep.data.arrays import image_in_row, pixel_columns
from multistep.data.table import Table
from multistep.errors import DataError
from multistep.tasks.as_trained import columns_of
from multistep.tasks.baselines import is_baseline
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.images.baseline import read_baseline, said_of, scored
from multistep.tasks.images.columns import image_column_of, is_pixels
from multistep.tasks.images.decode import SUFFIXES, Form, Pixels, decode, require_pillow
from multistep.tasks.images.files import held_in
from multistep.tasks.images.load import load_model
from multistep.tasks.images.splits import ImageSet, load_one
from multistep.tasks.images.task import score
from multistep.tasks.labelled.answers import of_baseline, predictions, said_by, settled_for
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.scale import UNSCALED
from multistep.tasks.notes import say
from multistep.tasks.prediction import Asked, Held, Prediction, Predictor, file_from

BATCH = 256  # images


def evaluate_model(model: str, data: DataSpec) -> Evaluation:
    """Score a model folder or hub id on `data`; of several splits the test split."""
    if is_baseline(model):
        fitted, labels, form = read_baseline(model)
        settled, images = Calibrated.read(model), images_of(data, form, labels, columns_of(model))
        return settled.decided(lambda: scored(fitted, images, labels, settled), model)
    maker, _ = load_model(model, None, None)
    images = images_of(data, maker.form, maker.labels, columns_of(model))
    device = pick_device()
    module = maker.build(0).to(device).eval()
    form, every = maker.form, np.arange(len(images))
    settled = Calibrated.read(model)
    heated = _Heated(module, settled.temperature)

    def table() -> Evaluation:
        return score(heated, images, every, form.height, form.width, maker.labels, UNSCALED, device=device)

    with torch.inference_mode():
        return settled.decided(table, model)


def images_of(data: DataSpec, form: Form, labels: Labels, columns: Mapping[str, str] | None = None) -> ImageSet:
    images, notes = load_one(data, form, labels, columns)
    say(notes)  # what could not be scored, above all
    return images


def load_predictor(model: str, asked: Asked) -> Predictor:
    """What a model folder or hub id sees on image files."""
    require_pillow()
    if is_baseline(model):
        fitted, labels, form = read_baseline(model)
        settled = settled_for(model, labels, asked)

        def guess(pixels: Pixels) -> Floats:
            return of_baseline(said_of(fitted, pixels, labels), labels, settled)

        return _predictor(form, labels, guess, asked, settled)
    maker, _ = load_model(model, None, None)
    device = pick_device()
    module = maker.build(0).to(device).eval()
    settled = settled_for(model, maker.labels, asked)

    def say(pixels: Pixels) -> Floats:
        with torch.inference_mode():
            return said_by(_logits(module, pixels, device).double(), maker.labels, settled)

    return _predictor(maker.form, maker.labels, say, asked, settled)


class _Heated(nn.Module):
    """A classifier whose logits are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixels) / self.temperature
        return logits


def _predictor(
    form: Form, labels: Labels, say: Callable[[Pixels], Floats], asked: Asked, settled: Calibrated
) -> Predictor:
    """What `say` makes of images, in numbers (N,) or probabilities (N, classes)."""

    def says(paths: Sequence[str]) -> list[Prediction | str]:
        found: list[Prediction | str] = []
        at_once = asked.batch_size or BATCH
        for start in range(0, len(paths), at_once):
            some = paths[start : start + at_once]
            read = [_read(given, form) for given in some]
            seen = [(path, each) for path, each in zip(some, read, strict=True) if not isinstance(each, str)]
            said = say(np.stack([each for _, each in seen])) if seen else np.zeros(0)
            answers = iter(predictions([path for path, _ in seen], said, labels, asked, settled))
            found += [next(answers) if not isinstance(each, str) else each for each in read]
        return found

    def find(table: Table, data: DataSpec) -> tuple[str, ...]:
        pixels = pixel_columns(table.names) if data.path_column is None else ()
        return tuple(table.names[i] for i in pixels) or (image_column_of(table, data),)

    number, several = labels.kind == "number", labels.kind == "classes"
    return Predictor(
        says, find, _image_in_row, "image file", numeric=number, several=several, probable=not number, files=SUFFIXES
    )


def _image_in_row(cells: Sequence[object], folder: Path) -> object:
    """The file that a row names, or the cells that hold the image: of each pixel one, or all of it."""
    cell = cells[0]
    if isinstance(cell, Mapping) and cell.get("bytes") is None:
        cell = cell.get("path")
    if len(cells) > 1 or (cell is not None and not isinstance(cell, str | int | float)) or is_pixels(str(cell)):
        return cells
    return file_from([cell], folder)


def _read(given: str, form: Form) -> Pixels | str:
    """An input's pixels, or the sentence why it has none."""
    if not isinstance(given, Held):
        read = decode(Path(given).expanduser(), form)
        return f"{given}: {read}; name an image file" if isinstance(read, str) else read
    try:
        cells = given.content
        image = image_in_row(given, cells) if len(cells) > 1 else held_in(cells[0], given)
    except DataError as error:
        return str(error)
    read = decode(image, form) if not isinstance(image, str) else "no image"
    return f"{given}: {read}" if isinstance(read, str) else read


def _logits(module: nn.Module, pixels: Pixels, device: torch.device) -> Tensor:
    logits: Tensor = module(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device).float())
    return logits
