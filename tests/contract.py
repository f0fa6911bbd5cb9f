"""What each task must show of itself for the one contract that all of them pass (test_contract.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases_images as images
import cases_language as language
import cases_speech as speech
from corpora import english

from multistep.core.metric import Evaluation
from multistep.core.plan import DataSpec
from multistep.tasks.prediction import Prediction


@dataclass(frozen=True)
class Case:
    """A task with data that is made in a moment and settings under which some dozens of steps take seconds.

    `write` puts the data into a folder and returns where each split is; `examples` is what the test split's
    evaluation has rows. `inputs` are what `predict` is given: the test split's examples in their order. `agree`
    says whether predictions are those of which the evaluation holds the scores.
    """

    name: str
    task: str
    write: Callable[[Path], DataSpec]
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 40
    examples: int | None = None
    inputs: Callable[[Path], list[str]] | None = None
    agree: Callable[[list[Prediction], Evaluation], bool] | None = None


def _texts(folder: Path) -> DataSpec:
    sizes = {"train": 2500, "validation": 400, "test": 400}
    for seed, (split, sentences) in enumerate(sizes.items()):
        (folder / f"{split}.txt").write_text(english(sentences, seed), encoding="utf-8")
    train, validation, test = (str(folder / f"{split}.txt") for split in sizes)
    return DataSpec(train=train, validation=validation, test=test)


SMALL_TEXT = {"model": {"layers": 2, "width": 32, "context": 32, "tokenizer": "characters"}}
CASES: tuple[Case, ...] = (
    Case("text-generation", "text-generation", _texts, SMALL_TEXT),
    Case(
        "image-classification",
        "image-classification",
        images.write,
        images.SETTINGS,
        examples=36,
        inputs=images.inputs,
        agree=images.agree,
    ),
    *(
        Case(name, "text-classification", write, language.SETTINGS, examples=40, inputs=inputs, agree=agree)
        for name, write, inputs, agree in language.CLASSIFICATIONS
    ),
    Case(
        "speech-recognition",
        "speech-recognition",
        speech.write,
        speech.SETTINGS,
        examples=16,
        inputs=speech.inputs,
        agree=speech.agree,
    ),
    Case("fill-mask", "fill-mask", language.write_classes, language.SETTINGS, examples=40),
)
