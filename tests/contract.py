"""What each task must show of itself for the one contract that all of them pass (test_contract.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases_chat as chat
import cases_images as images
import cases_language as language
import cases_speech as speech
import numpy as np
import torch
from corpora import english
from own_models import OWN, Own

from multistep import api
from multistep.api import Result
from multistep.core.evidence.calibration import (
    HALF,
    Calibration,
    Threshold,
    at_threshold,
    is_several,
    probabilities_at,
)
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Learner, Readiness
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.interface.view import OnEntry
from multistep.tasks import workshop_for
from multistep.tasks.own.request import read_request
from multistep.tasks.prediction import Prediction

Agree = Callable[[list[Prediction], Evaluation, Path], bool]
SLOW = {"learning_rate": 1e-9, "warmup_steps": 0}


@dataclass(frozen=True)
class Case:
    """A task with data that is made in a moment and settings under which some dozens of steps take seconds.

    `write` puts the data into a folder and returns where each split is; `model` writes what is trained there, where
    that is a folder too. `examples` is what the test split's evaluation has rows. `inputs` are what `predict` is
    given: the test split's examples in their order. `agree` says whether predictions are those of which the
    evaluation holds the scores; both are given the folder.
    """

    name: str
    task: str
    write: Callable[[Path], DataSpec]
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 40
    examples: int | None = None  # rows of the test split's table
    asked: int | None = None  # how many `inputs` there are, where not one for each row
    inputs: Callable[[Path], list[str]] | None = None
    agree: Agree | None = None
    model: Callable[[Path], str] | None = None
    refused: str = ""  # what `predict` says where there are no inputs

    def prepare(self, folder: Path) -> DataSpec:
        if self.model is not None:
            (folder / "begin").mkdir()
            self.model(folder / "begin")
        return self.write(folder)

    def plan(self, folder: Path, data: DataSpec, **changes: object) -> Plan:
        begin = {"model": str(folder / "begin")} if self.model else {}
        length = {"phases": [{"name": "only", "until": f"{self.steps} steps"}]}
        content = {"task": self.task, "data": data, "ship": "network", **self.settings, **begin, **length}
        return plan_from({**content, **changes})

    def run(
        self, folder: Path, data: DataSpec, out: Path, on_entry: OnEntry | None = None, **changes: object
    ) -> Result:
        plan = self.plan(folder, data, **changes)
        return api.run(plan, RunDirectory(out), clock=BudgetClock(FakeClock().now), on_entry=on_entry)

    def go_on(self, folder: Path, data: DataSpec, out: Path, result: Result) -> Result:
        """Another run from the model folder, of hardly a step."""
        recipe = {**self.settings.get("recipe", {}), **SLOW}
        phases = [{"name": "on", "until": "2 steps"}]
        return self.run(folder, data, out, model=str(result.model), recipe=recipe, phases=phases)

    def score(self, data: DataSpec, result: Result) -> float | None:
        """What the folder scores on the test split by itself; None where nothing outside the run names that split."""
        scores = api.evaluate(result.model, data.test or str(data))["scores"]
        return float(scores[result.metric]["score"]) if data.test else None

    def open(self, folder: Path, data: DataSpec) -> tuple[Learner, Readiness]:
        plan = self.plan(folder, data)
        return workshop_for(plan).open(plan, 0, lambda: False)


@dataclass(frozen=True)
class OwnCase(Case):
    """A model of the user's own: model and data live in Python code, and are the same at each call."""

    own: Own = OWN[0]

    def prepare(self, folder: Path) -> DataSpec:
        return DataSpec(source="in memory")

    def run(
        self, folder: Path, data: DataSpec, out: Path, on_entry: OnEntry | None = None, **changes: object
    ) -> Result:
        if not out.exists():  # a run that goes on is given another module, with other first weights
            torch.manual_seed(0)
        return self.own.train(out, on_entry, **changes)

    def go_on(self, folder: Path, data: DataSpec, out: Path, result: Result) -> Result:
        model, phases = result.load(self.own.build()), [{"name": "on", "until": "2 steps"}]
        return self.own.train(out, model=model, pretrained=True, recipe=SLOW, phases=phases)

    def score(self, data: DataSpec, result: Result) -> float | None:
        return self.own.right(result.load(self.own.build()))

    def open(self, folder: Path, data: DataSpec) -> tuple[Learner, Readiness]:
        torch.manual_seed(0)
        request = read_request(None, {"model": self.own.build(), **self.own.keywords()})
        return request.workshop.open(request.plan, 0, lambda: False)


def as_shipped(table: Evaluation, record: Mapping[str, Any]) -> Evaluation:
    """A split's table as what ships says it: with the temperature and the threshold that the run found."""
    found = record["calibration"]
    if found is None:
        return table
    chosen = found["threshold"]
    threshold = Threshold(chosen["value"], chosen["by"], chosen["used"]) if chosen else None
    calibration = Calibration(found["temperature"], threshold)
    if calibration.cut != HALF:
        table = at_threshold(table, calibration, calibration.cut)
    if is_several(table):
        return table
    shares = probabilities_at(table, calibration.temperature)
    said = shares[np.arange(len(table)), table.columns["prediction"].astype(int)]
    return Evaluation({**table.columns, "probability": said})


def _texts(folder: Path) -> DataSpec:
    sizes = {"train": 2500, "validation": 400, "test": 400}
    for seed, (split, sentences) in enumerate(sizes.items()):
        (folder / f"{split}.txt").write_text(english(sentences, seed), encoding="utf-8")
    train, validation, test = (str(folder / f"{split}.txt") for split in sizes)
    return DataSpec(train=train, validation=validation, test=test)


def _of_two(agree: Callable[[list[Prediction], Evaluation], bool]) -> Agree:
    return lambda predictions, table, _folder: agree(predictions, table)


# Hidden words: the texts of the test split with those hidden that its evaluation hides --------------------------


def _hidden(folder: Path) -> list[tuple[str, list[str], bool]]:
    """Of each text what is shown of it, the hidden tokens, and whether the evaluation shows it in the same way."""
    from multistep.tasks.language.load import load_encoder
    from multistep.tasks.language.mask import SEED, masker_for
    from multistep.tasks.language.spans import load_all, read_spans

    encoder = load_encoder(str(folder / "run" / "model"))
    tokenizer, rows = encoder.tokenizer, np.arange(40)
    spans = read_spans(tokenizer, load_all(DataSpec(source=str(folder / "test.csv"))), encoder.context)
    tokens, words, _, inside = spans.encoded.padded(rows, encoder.pad)
    shown, labels = masker_for(encoder)(tokens, words, SEED, np.zeros_like(rows), rows)
    found = []
    for text, own, label, length in zip(tokens, shown, labels, inside.sum(1), strict=True):
        masked = np.where(label >= 0, int(encoder.mask or 0), text).astype(int)[:length].tolist()
        written = tokenizer.decode(masked[1:-1], skip_special_tokens=False)  # without [CLS] and [SEP]
        same = own[:length].tolist() == masked == tokenizer.encode(written).ids
        found.append((written, [tokenizer.decode([int(i)]).strip() for i in label[label >= 0]], same))
    return found


def _words_agree(predictions: list[Prediction], table: Evaluation, folder: Path) -> bool:
    """What stood there has the probability that was scored, and what is put there at least as much."""
    exact, right = 0, True
    for p, (_, words, same), loss in zip(predictions, _hidden(folder), table.columns["loss"], strict=True):
        scored = float(np.exp(-loss))
        if same:
            right &= (p.probability or 0.0) >= scored - 1e-5
            if len(words) == 1 and words[0] in p.others:
                right &= bool(np.isclose(p.others[words[0]], scored, atol=1e-5))
                exact += 1
    return right and exact >= 5


# One folder of images, which the run cuts, and a classifier of transformers for other classes --------------------


def _one_folder(folder: Path) -> DataSpec:
    images.write_folders(folder / "images", {"all": 40}, images.LARGER)
    return DataSpec(source=str(folder / "images/all"))


def _cut_inputs(folder: Path) -> list[str]:
    from multistep.tasks.images.splits import load_splits, look_through

    return list(load_splits(look_through(DataSpec(source=str(folder / "images/all")))).test.names)


SMALL_TEXT = {"model": {"layers": 2, "width": 32, "context": 32, "tokenizer": "characters"}}
CASES: tuple[Case, ...] = (
    Case("text-generation", "text-generation", _texts, SMALL_TEXT, refused="multistep generate"),
    Case(
        "conversations",
        "text-generation",
        chat.write,
        {**chat.SETTINGS, "metric": "token_f1"},
        examples=31,  # turns of the assistant
        asked=24,  # conversations
        model=chat.small_llama,
        inputs=chat.inputs,
        agree=chat.agree,
    ),
    Case(
        "conversations-from-nothing",
        "text-generation",
        chat.write,
        {
            "metric": "token_f1",
            "model": {"layers": 2, "width": 32, "tokenizer": "characters"},
            "recipe": {"batch_size": 16},
        },
        examples=31,  # turns of the assistant
        asked=24,  # conversations
        inputs=chat.inputs,
        agree=chat.agree,
    ),
    Case(
        "image-classification",
        "image-classification",
        images.write,
        images.SETTINGS,
        examples=36,
        inputs=images.inputs,
        agree=_of_two(images.agree),
    ),
    *(
        Case(
            f"image-classification-{kind}",
            "image-classification",
            write,
            images.FEW_SETTINGS,
            examples=images.SIZES["test"],
            inputs=images.table_inputs,
            agree=_of_two(agree),
        )
        for kind, write, agree in (
            ("several", images.write_several, images.several_agree),
            ("number", images.write_numbers, images.numbers_agree),
        )
    ),
    Case(
        "images-of-one-folder-by-a-swin",
        "image-classification",
        _one_folder,
        {"recipe": {"batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 0}},
        examples=18,
        inputs=_cut_inputs,
        agree=_of_two(images.agree),
        model=images.small_swin,
    ),
    *(
        Case(name, "text-classification", write, language.SETTINGS, examples=40, inputs=inputs, agree=_of_two(agree))
        for name, write, inputs, agree in language.CLASSIFICATIONS
    ),
    *(
        Case(
            name,
            "text-classification",
            write,
            {"model": {"name": model, "width": 8}, "recipe": language.RECIPE},
            examples=40,
            inputs=inputs,
            agree=_of_two(agree),
        )
        for name, model, write, inputs, agree in language.SMALL_NETS
    ),
    Case(
        "speech-recognition",
        "speech-recognition",
        speech.write,
        speech.SETTINGS,
        examples=16,
        inputs=speech.inputs,
        agree=_of_two(speech.agree),
    ),
    Case(
        "fill-mask",
        "fill-mask",
        language.write_classes,
        language.SETTINGS,
        examples=40,
        inputs=lambda folder: [text for text, _, _ in _hidden(folder)],
        agree=_words_agree,
    ),
    *(
        OwnCase(
            f"own-model-{own.name}",
            "own-model",
            lambda folder: DataSpec(source="in memory"),
            examples=own.test_examples,
            own=own,
        )
        for own in OWN
    ),
)
