"""Small pictures with structure, made by rule, for the contract and the tests of image classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multistep.core.metric import Evaluation
from multistep.core.plan import DataSpec
from multistep.tasks.prediction import Prediction

SHAPES = ("bars", "disc", "stripes")
SIDE = 12


def picture(shape: str, choose: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """Upright bars, level stripes or a disc, in some colour on noise: (side, side, 3)."""
    rows, columns = np.mgrid[:side, :side]
    phase = int(choose.integers(3))
    x, y = choose.integers(3, side - 3, 2)
    shown = {
        "bars": (columns + phase) % 3 == 0,
        "stripes": (rows + phase) % 3 == 0,
        "disc": (rows - y) ** 2 + (columns - x) ** 2 < (side / 4) ** 2,
    }[shape]
    noise = choose.integers(0, 60, (side, side, 3))
    made: NDArray[np.uint8] = (noise + 150 * shown[:, :, None] * choose.uniform(0.5, 1.0, 3)).astype(np.uint8)
    return made


def write_folders(folder: Path, splits: dict[str, int], side: int = SIDE) -> None:
    """SPLIT/CLASS/NUMBER.png, so many of each class."""
    choose = np.random.default_rng(0)
    for split, count in splits.items():
        for shape in SHAPES:
            (folder / split / shape).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(shape, choose, side)).save(folder / split / shape / f"{i:03}.png")


def write(folder: Path) -> DataSpec:
    """Splits of class folders, each named in the plan."""
    write_folders(folder / "images", {"train": 40, "val": 12, "test": 12})
    train, validation, test = (str(folder / "images" / split) for split in ("train", "val", "test"))
    return DataSpec(train=train, validation=validation, test=test)


def inputs(folder: Path) -> list[str]:
    """The test split's files, in its order."""
    return [str(path) for path in sorted((folder / "images/test").rglob("*.png"))]


def agree(predictions: list[Prediction], table: Evaluation) -> bool:
    """Whether they are what the evaluation has."""
    same = [SHAPES[int(number)] for number in table.columns["prediction"]] == [p.output for p in predictions]
    probabilities = [p.probability or 0.0 for p in predictions]
    return same and bool(np.allclose(probabilities, table.columns["probability"], atol=1e-4))


SETTINGS = {
    "model": {"name": "resnet-small", "width": 8},
    "recipe": {"batch_size": 16, "augmentation": 0.6, "resolution": [8, SIDE], "label_smoothing": 0.1},
}
