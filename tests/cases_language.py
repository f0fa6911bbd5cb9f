"""Small tables of texts with labels that follow from their words, for tests that train in a second."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np

from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.tasks.prediction import Prediction

GOOD = ["a lovely film", "what a joy", "warm and clever", "I laughed and cried", "the best of its year"]
BAD = ["a dull film", "what a bore", "cold and stupid", "I left after an hour", "the worst of its year"]
ENDS = ["", " indeed", " , says my friend", " and so is the other one", " from the first to the last minute"]
SIZES = {"train": 240, "validation": 60, "test": 40}
SETTINGS = {
    "model": {"layers": 1, "width": 32, "vocabulary": 300},
    "recipe": {"batch_size": 16, "dropout": 0.1, "sharpness": 0.0},
}


def opinions(count: int, seed: int) -> list[tuple[str, int]]:
    """Texts with 1 for a good word in them and 0 for a bad one."""
    choose = random.Random(seed)
    found = []
    for _ in range(count):
        label = choose.randrange(2)
        found.append((choose.choice(GOOD if label else BAD) + choose.choice(ENDS), label))
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_classes(folder: Path) -> DataSpec:
    for seed, (split, count) in enumerate(SIZES.items()):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["review", "label"])
            writer.writerows((text, "good" if label else "bad") for text, label in opinions(count, seed))
    return _spec(folder, "csv")


def class_inputs(folder: Path) -> list[str]:
    return [row["review"] for row in rows_of(folder / "test.csv")]


def class_agree(predictions: list[Prediction], table: Evaluation) -> bool:
    said = [float(p.output == "good") for p in predictions]
    sure = [p.probability or 0.0 for p in predictions]
    return said == table.columns["prediction"].tolist() and bool(
        np.allclose(sure, table.columns["probability"], atol=1e-5)
    )


def write_several(folder: Path) -> DataSpec:
    """Pairs of texts; which of them are good, as a list."""
    for seed, (split, count) in enumerate(SIZES.items()):
        first, second = opinions(count, 2 * seed), opinions(count, 2 * seed + 1)
        lines = [
            {"text1": a, "text2": b, "labels": [*(["first"] if x else []), *(["second"] if y else [])]}
            for (a, x), (b, y) in zip(first, second, strict=True)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return _spec(folder, "jsonl")


def several_inputs(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    return [f"{line['text1']} ||| {line['text2']}" for line in lines]


def several_agree(predictions: list[Prediction], table: Evaluation) -> bool:
    first, second = (table.columns[f"prediction_{k}"] for k in range(2))
    names = [
        ",".join(n for n, there in (("first", a), ("second", b)) if there) for a, b in zip(first, second, strict=True)
    ]
    return [p.output for p in predictions] == names


def write_numbers(folder: Path) -> DataSpec:
    """How good a text is, from 30 to 70: a unit that a head has to learn."""
    for seed, (split, count) in enumerate(SIZES.items()):
        lines = [f"{text}\t{50 + 20 * (2 * label - 1) + 0.01 * len(text):.2f}" for text, label in opinions(count, seed)]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tscore", *lines]) + "\n", encoding="utf-8")
    return _spec(folder, "tsv")


def number_inputs(folder: Path) -> list[str]:
    lines = (folder / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[0] for line in lines]


def number_agree(predictions: list[Prediction], table: Evaluation) -> bool:
    return bool(np.allclose([float(p.output) for p in predictions], table.columns["prediction"], atol=1e-3))


def _spec(folder: Path, kind: str) -> DataSpec:
    train, validation, test = (str(folder / f"{split}.{kind}") for split in SIZES)
    return DataSpec(train=train, validation=validation, test=test)


RECIPE = {"batch_size": 16, "learning_rate": 0.01}
SMALL_NETS = (
    ("text-classification-bag", "bag", write_classes, class_inputs, class_agree),
    ("text-classification-cnn", "cnn", write_classes, class_inputs, class_agree),
    ("text-classification-several-bag", "bag", write_several, several_inputs, several_agree),
    ("text-classification-several-cnn", "cnn", write_several, several_inputs, several_agree),
    ("text-classification-number-bag", "bag", write_numbers, number_inputs, number_agree),
    ("text-classification-number-cnn", "cnn", write_numbers, number_inputs, number_agree),
)
CLASSIFICATIONS = (
    ("text-classification", write_classes, class_inputs, class_agree),
    ("text-classification-several", write_several, several_inputs, several_agree),
    ("text-classification-number", write_numbers, number_inputs, number_agree),
)
