"""Small pictures with structure, made by rule, for the contract and the tests of image classification."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from multistep.backends.torch.learner import TorchLearner
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Readiness
from multistep.engine.planfile import plan_from
from multistep.tasks.images.task import ImageWorkshop
from multistep.tasks.prediction import Prediction

SHAPES = ("bars", "disc", "stripes")
SIDE, LARGER = 12, 16
RECIPE = Recipe(optimizer="muon", learning_rate=0.05, batch_size=16, warmup_steps=0, gradient_clip=0.0)


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


def png(image: Image.Image, **more: Any) -> bytes:
    """The file's bytes, of a PNG or another `format`."""
    out = io.BytesIO()
    image.save(out, more.pop("format", "PNG"), **more)
    return out.getvalue()


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


# Several labels an image, and a number -------------------------------------------------------------

SIZES = {"train": 60, "validation": 16, "test": 20}


def write_several(folder: Path) -> DataSpec:
    """Any of three shapes on an image, with a column of zeros and ones for each."""
    for seed, (split, count) in enumerate(SIZES.items()):
        choose = np.random.default_rng(seed)
        there = choose.integers(0, 2, (count, len(SHAPES)))
        shown = [_some_shapes(row, choose) for row in there]
        rows = [",".join(map(str, row)) for row in there.tolist()]
        _write_table(folder, split, shown, ["file," + ",".join(SHAPES), *rows])
    return _tables(folder)


def _some_shapes(there: NDArray[np.int64], choose: np.random.Generator) -> NDArray[Any]:
    """Those shapes, over the others, which are faint."""
    strengths = zip(SHAPES, np.where(there, 1.0, 0.3), strict=True)
    found: NDArray[Any] = np.max([picture(shape, choose) * strength for shape, strength in strengths], axis=0)
    return found


def write_numbers(folder: Path) -> DataSpec:
    """How wide a disc is, in a unit in which it is far from 0: 100 to 140."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for seed, (split, count) in enumerate(SIZES.items()):
        choose = np.random.default_rng(seed)
        radii = choose.uniform(1, 5, count)
        apart = (rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2
        shown = [choose.integers(0, 60, (SIDE, SIDE, 3)) + 150 * (apart < r * r)[:, :, None] for r in radii]
        _write_table(folder, split, shown, ["file,diameter", *(f"{90 + 10 * r:.2f}" for r in radii)])
    return _tables(folder)


def _write_table(folder: Path, split: str, images: Sequence[NDArray[Any]], lines: Sequence[str]) -> None:
    (folder / split).mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / split / f"{i:03}.png")
    named = [lines[0], *(f"{split}/{i:03}.png,{line}" for i, line in enumerate(lines[1:]))]
    (folder / f"{split}.csv").write_text("\n".join(named) + "\n", encoding="utf-8")


def _tables(folder: Path) -> DataSpec:
    train, validation, test = (str(folder / f"{split}.csv") for split in SIZES)
    return DataSpec(train=train, validation=validation, test=test)


def table_inputs(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / "test").glob("*.png"))]


def several_agree(predictions: list[Prediction], table: Evaluation) -> bool:
    said = np.stack([table.columns[f"prediction_{k}"] for k in range(len(SHAPES))], 1)
    names = [",".join(name for name, there in zip(SHAPES, row, strict=True) if there) for row in said]
    return [p.output for p in predictions] == names


def numbers_agree(predictions: list[Prediction], table: Evaluation) -> bool:
    return bool(np.allclose([float(p.output) for p in predictions], table.columns["prediction"], atol=1e-2))


SETTINGS = {
    "model": {"name": "resnet-small", "width": 8},
    "recipe": {"batch_size": 16, "augmentation": 0.6, "resolution": [8, SIDE], "label_smoothing": 0.1},
}
FEW_SETTINGS = {"model": {"name": "resnet-small", "width": 8}, "recipe": {"batch_size": 16, "augmentation": 0.6}}


def small_swin(folder: Path, classes: Sequence[str] = ("cat", "dog")) -> str:
    """A Swin of two stages that leaves out half of its last layers by lot."""
    from transformers import SwinConfig, SwinForImageClassification

    sizes: dict[str, Any] = {
        "image_size": LARGER,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
    }
    config = SwinConfig(**sizes, window_size=4, drop_path_rate=0.5, id2label=dict(enumerate(classes)))
    torch.manual_seed(0)
    SwinForImageClassification(config).save_pretrained(folder)
    return str(folder)


# A learner with what it was opened by --------------------------------------------------------------


def planned(model: Any, data: Path | str = "x", **more: Any) -> Plan:
    return plan_from({"task": "image-classification", "data": str(data), "model": model, **more})


def opened(folder: Path, model: Any) -> tuple[TorchLearner, Readiness]:
    plan = planned(model, folder)
    learner, ready = ImageWorkshop().open(plan, 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    return learner, ready


def accuracy(table: Evaluation) -> float:
    return METRICS["accuracy"].score(table)
