"""A model of the user's own keeps the promises of every task, and says clearly what it cannot take."""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import torch
from own_models import ONLY, OWN, Net, Own, Stripes, absolute, clouds, median_miss, perceptron, slopes
from runs import Killed
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import multistep
from multistep.api import Result
from multistep.core.values.events import Entry, PhaseReused, WindowDone
from multistep.core.values.history import History
from multistep.engine.journal import read_entries
from multistep.errors import DataError, PlanError, RunDirectoryError, UserError
from multistep.tasks.own.code import code_digest
from multistep.tasks.own.request import read_request


@dataclass(frozen=True)
class Made:
    own: Own
    given: nn.Module
    before: dict[str, Tensor]
    result: Result


@pytest.fixture(scope="module", params=OWN, ids=lambda own: own.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    own: Own = request.param
    torch.manual_seed(0)
    model = own.build()
    before = copy.deepcopy(model.state_dict())
    return Made(own, model, before, own.train(tmp_path_factory.mktemp(own.name) / "run", model=model))


def test_it_learns_and_its_folder_says_what_it_is(made: Made) -> None:
    result = made.result
    assert result.baseline["name"] == (
        "mean" if made.own.name in ("pairs-and-functions", "far-numbers") else "majority"
    )
    assert result.record["baseline"]["test"]["gain"]["low"] > 0, "it has learnt something"
    assert result.record["scores"]["test"][result.metric] == pytest.approx(result.score)
    assert set(load_file(result.model / "model.safetensors")) == set(made.before)
    described = json.loads((result.model / "multistep.json").read_text(encoding="utf-8"))
    assert described["task"] == "own-model"
    assert "load_state_dict" in (result.model / "README.md").read_text(encoding="utf-8")


def test_the_users_module_is_left_as_it_was(made: Made) -> None:
    assert all(torch.equal(tensor, made.before[name]) for name, tensor in made.given.state_dict().items())


def test_moves_that_apply_are_tried_against_a_control(tmp_path: Path) -> None:
    few: dict[str, Any] = {"train": TensorDataset(*clouds(100, 0)), "phases": None, "budget": "1000 steps"}
    torch.manual_seed(0)
    result = OWN[0].train(tmp_path / "run", **few, moves=["dropout-up", "smoothing-up"])
    tried = {trial["move"]: trial for trial in result.record["trials"] if trial["kind"] == "move"}
    assert {name for name in tried if "+" not in name} == {"dropout-up", "smoothing-up"}, "and further, if one helped"
    assert tried["dropout-up"]["settings"] == {"dropout": {"from": 0.1, "to": 0.2}}
    assert all(trial["verdict"] in ("leads", "behind") and trial["gain"] for trial in tried.values())


# What a run says of itself ------------------------------------------------------------------------------


def test_the_worst_predictions_are_told_by_their_place_in_the_split_that_was_sampled(tmp_path: Path) -> None:
    far = torch.arange(3000.0)[:, None]  # each its own target, so that a row tells which one it is
    split = (torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)), far)
    multistep.train(
        model=nn.Linear(2, 1),
        train=split,
        validation=split,
        loss=nn.MSELoss(),
        budget="20 steps",
        out=tmp_path / "run",
        progress=False,
    )
    [worst] = json.loads((tmp_path / "run" / "exhibits.json").read_text())
    assert worst["title"] == "The worst predictions of the validation split"
    assert len(worst["rows"]) == 12
    assert all(float(row[1]) == int(row[-1]) for row in worst["rows"])


def test_a_run_judged_by_a_function_is_shown_where_the_function_is_not(tmp_path: Path) -> None:
    result = OWN[2].train(tmp_path / "run")
    shown = json.loads(commands.multistep(tmp_path, "show", str(result.folder), "--json"))
    assert (shown["metric"], shown["goal"], shown["unit"]) == ("median_miss", "minimize", "median miss")
    assert shown["test"] == result.record["test"]
    assert shown["baseline"] == result.record["baseline"]
    assert "beats the mean baseline" in shown["answer"]
    (result.folder / "report.html").unlink()
    commands.multistep(tmp_path, "report", str(result.folder))
    assert "median_miss" in (result.folder / "report.html").read_text(encoding="utf-8")


def test_the_command_line_says_where_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    def die(entry: Entry, _history: History) -> None:
        if isinstance(entry.event, WindowDone):
            raise Killed

    with pytest.raises(Killed):
        OWN[2].train(tmp_path / "run", die)
    shown = commands.multistep(tmp_path, "show", "run")
    assert "median_miss" in shown
    assert "Go on with: multistep.train(..., out=" in shown
    refused = commands.multistep(tmp_path, "resume", "run", code=2)
    assert "multistep.train(model=..., loss=..., train=..., out=RUN)" in refused
    assert (tmp_path / "run" / "journal.jsonl").exists()


def test_the_command_line_cannot_train_what_lives_in_code(tmp_path: Path) -> None:
    given = ("--task", "own-model", "--data", "mine", "--out", "run")
    assert "live in Python code" in commands.multistep(tmp_path, "train", *given, code=2)
    assert not (tmp_path / "run").exists()


def test_a_phase_that_another_run_has_done_is_taken_from_there(tmp_path: Path) -> None:
    def train(name: str, **changes: Any) -> list[str]:
        torch.manual_seed(3)
        given = {"model": perceptron(), **OWN[0].keywords(), "out": tmp_path / name, "keep": "all", **changes}
        multistep.train(**given)
        events = read_entries(tmp_path / name / "journal.jsonl")
        return [entry.event.run for entry in events if isinstance(entry.event, PhaseReused)]

    more = [*ONLY, {"name": "more", "until": "5 steps"}]
    assert train("one") == []
    assert train("two", phases=more) == ["one"]
    assert train("three", phases=more, train=TensorDataset(*clouds(300, 9))) == []
    assert train("four", phases=more, model=nn.Sequential(nn.Linear(8, 3))) == []


def test_other_data_or_code_is_another_run(tmp_path: Path) -> None:
    own = OWN[2]
    own.train(tmp_path / "run")
    for changes in (
        {"train": slopes(240, 5)},
        {"loss": nn.HuberLoss()},
        {"metric": lambda t, p: float(abs(t - p).max())},
    ):
        with pytest.raises(RunDirectoryError, match="another plan"):
            own.train(tmp_path / "run", **changes)


def test_the_digest_of_code_sees_what_counts_and_no_more() -> None:
    def scaled(factor: float) -> Callable[[float], float]:
        def score(x: float) -> float:  # a comment
            return x * factor

        return score

    assert code_digest([scaled(2.0)]) == code_digest([scaled(2.0)])
    assert code_digest([scaled(2.0)]) != code_digest([scaled(3.0)])
    assert code_digest([perceptron()]) == code_digest([perceptron()])
    assert code_digest([nn.CrossEntropyLoss()]) != code_digest([nn.CrossEntropyLoss(label_smoothing=0.1)])
    assert code_digest([nn.Dropout(0.1)]) != code_digest([nn.Dropout(0.2)])
    inside = "import own_models as o; from multistep.tasks.own.code import code_digest\n"
    elsewhere = subprocess.run(
        [sys.executable, "-c", inside + "print(code_digest([o.Net(), o.Stripes, o.absolute, {'a', 'b'}]))"],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == code_digest([Net(), Stripes, absolute, {"a", "b"}])


# Outputs, targets and losses -----------------------------------------------------------------------------


class Twins(nn.Module):
    """Two views of an example, brought together: its loss is one of a batch's examples together."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(one), self.right(two)


def contrast(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    similar = output[0] @ output[1].T
    return nn.functional.cross_entropy(similar, torch.arange(len(target)))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(6, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        tags: Tensor = self.head(self.embedding(tokens)).transpose(1, 2)
        return tags


def tagged(examples: int, seed: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 6, (examples, 5), generator=torch.Generator().manual_seed(seed))
    tags = tokens % 3
    tags[:, -1] = -100  # a place without a label
    return tokens, tags


def several(targets: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any]) -> float:
    assert targets.shape == predictions.shape
    return float((targets == predictions).all(axis=1).mean())


def certain(targets: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> float:
    assert outputs.shape == (len(targets), 3)
    return float((outputs.argmax(1) == predictions).mean())


POINTS, LABELS = clouds(120, 4)
ONE_HOT = nn.functional.one_hot(LABELS, 3).float()
KINDS: dict[str, dict[str, Any]] = {
    "weighted classes": {
        "model": nn.Linear(8, 3),
        "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]), label_smoothing=0.1),
        "train": (POINTS, LABELS),
        "metric": "macro_f1",
        "says": {"accuracy", "loss", "matthews"},
    },
    "yes or no": {
        "model": nn.Sequential(nn.Linear(8, 1), nn.Flatten(0)),
        "loss": nn.BCEWithLogitsLoss(),
        "train": (POINTS.numpy(), (LABELS == 0).numpy().astype(int)),
        "metric": "roc_auc",
        "says": {"accuracy", "loss", "roc_auc"},
    },
    "several labels": {
        "model": nn.Linear(8, 3),
        "loss": nn.BCEWithLogitsLoss(),
        "train": {"input": POINTS, "labels": ONE_HOT},
        "metric": several,
        "goal": "maximize",
        "says": {"loss", "micro_f1", "macro_f1", "several"},
    },
    "several numbers": {
        "model": nn.Linear(8, 3, dtype=torch.float64),
        "loss": None,
        "train": (POINTS.double(), ONE_HOT.double()),
        "says": {"loss"},
    },
    "tags": {"model": Tagger(), "loss": nn.functional.cross_entropy, "train": tagged(60, 0), "says": {"loss"}},
    "contrast": {"model": Twins(), "loss": contrast, "train": (POINTS, POINTS, LABELS), "says": {"loss"}},
    "bfloat16": {
        "model": nn.Sequential(nn.Linear(8, 1), nn.Sigmoid()),
        "loss": nn.BCELoss(),
        "train": (POINTS, (LABELS == 0)[:, None]),
        "recipe": {"precision": "bfloat16"},
        "says": {"accuracy", "loss"},
    },
    "outputs": {
        "model": nn.Linear(8, 3),
        "loss": nn.MultiMarginLoss(),
        "train": (POINTS, LABELS),
        "metric": certain,
        "goal": "maximize",
        "says": {"accuracy", "loss", "certain"},
    },
    "lazy": {
        "model": nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3)),
        "train": (POINTS, LABELS),
        "says": {"loss"},
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_outputs_and_targets_of_many_kinds_are_scored(name: str, tmp_path: Path) -> None:
    given = {key: value for key, value in KINDS[name].items() if key != "says"}
    result = multistep.train(**given, out=tmp_path / "run", phases=[{"name": "only", "until": "6 steps"}])
    assert KINDS[name]["says"] <= set(result.record["scores"]["validation"])
    assert np.isfinite(result.score)
    assert result.test is None
    notes = json.dumps(json.loads((tmp_path / "run" / "resolved.json").read_text())["phases"][0]["facts"])
    assert "a tenth of train" in notes
    assert (name == "contrast") == ("whole batches" in notes)
    if name == "tags":
        assert '"tokens_per_example": 4' in notes, "the place without a label does not count"
        assert result.baseline["name"] == "majority"
    if name == "weighted classes":
        assert '"label_smoothing"' in notes


def losses_of(given: dict[str, Any]) -> tuple[Any, Any, tuple[Tensor, ...], nn.Module]:
    """A request, opened: its domain, model and a batch."""
    from multistep.core.values.recipe import Recipe
    from multistep.tasks.own.task import OwnDomain
    from multistep.tasks.own.understand import understand

    request = read_request(None, given)
    workshop = request.workshop
    opened = understand(workshop._model, workshop._wanted, 0, torch.device("cpu"))
    domain = OwnDomain(opened, torch.device("cpu"))
    model = domain.build(0)
    domain.configure(model, Recipe())
    return domain, opened, domain.batch(0, 16, 0, torch.device("cpu")), model


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0])),
        nn.MultiMarginLoss(),
        lambda output, target: nn.functional.cross_entropy(output, target),
        lambda output, target: nn.functional.cross_entropy(output, target, reduction="none"),
    ],
)
def test_the_mean_of_a_batch_is_the_users_own_loss(loss: Any) -> None:
    domain, _, batch, model = losses_of({"model": nn.Linear(8, 3), "loss": loss, "train": (POINTS, LABELS)})
    total, count = domain.loss(model, batch, 0.0)
    weighted = getattr(loss, "weight", None) is not None
    assert int(count) > 16 if weighted else int(count) == 16, "of weighted classes, the least weight counts as one"
    # Pieces of a batch add up to it, whatever their sizes and weights: memory may cut it, or several processes.
    cuts = (slice(1), slice(1, 9), slice(9, 16))
    pieces = [domain.loss(model, tuple(part[cut] for part in batch), 0.0) for cut in cuts]
    for at, whole in enumerate((total, count)):
        assert sum(float(piece[at].detach()) for piece in pieces) == pytest.approx(float(whole.detach()), rel=1e-5)
    with torch.no_grad():
        assert float(total / count) == pytest.approx(float(loss(model(batch[0]), batch[1]).mean()), rel=1e-5)
    table = domain.evaluate(model, "validation", sample=False, device=torch.device("cpu"))
    whole = domain._readers["validation"].batch(np.arange(12), torch.device("cpu"))
    by_rows = table.columns["loss"].sum() / table.columns["count"].sum()
    assert by_rows == pytest.approx(float(loss(model(whole[0]), whole[1]).mean().detach()), rel=1e-5)
    assert len(table) == 12


def test_shares_of_classes_at_places_have_torchs_mean() -> None:
    """The loss that was trained on was too large by the number of places."""
    shares = torch.rand((64, 3, 5, 5), generator=torch.Generator().manual_seed(0)).softmax(1)
    images, loss = torch.randn((64, 2, 5, 5), generator=torch.Generator().manual_seed(1)), nn.CrossEntropyLoss()
    domain, _, batch, model = losses_of({"model": nn.Conv2d(2, 3, 1), "loss": loss, "train": (images, shares)})
    total, count = domain.loss(model, batch, 0.0)
    assert float((total / count).detach()) == pytest.approx(float(loss(model(batch[0]), batch[1]).detach()), rel=1e-5)


def test_a_mask_among_targets_stays_one() -> None:
    """As whole numbers it chose the first two rows again and again."""
    values, mask = torch.randn((64, 3), generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3 > 0

    def masked(output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        return ((output - target[0]) ** 2)[target[1]].mean()

    pairs = [(POINTS[i], (values[i], mask[i])) for i in range(64)]
    domain, _, batch, model = losses_of({"model": nn.Linear(8, 3), "loss": masked, "train": pairs})
    assert batch[2].dtype is torch.bool
    total, count = domain.loss(model, batch, 0.0)
    assert float((total / count).detach()) == pytest.approx(
        float(masked(model(batch[0]), (batch[1], batch[2])).detach()), rel=1e-5
    )


class Backbone(nn.Module):
    """Keeps the statistics of a layer that came trained, as its own `train` says."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.own, self.head = nn.BatchNorm1d(8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.register_buffer("grid", torch.arange(8.0).expand(4, 8))
        self.steps = nn.Parameter(torch.zeros(1, dtype=torch.long), requires_grad=False)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.own(self.norm(x)) + self.get_buffer("grid")[0])
        return found


def test_statistics_that_a_module_keeps_are_kept_and_what_is_no_float_is_no_hindrance(tmp_path: Path) -> None:
    net = Backbone()
    net.norm.running_mean.fill_(5.0)  # type: ignore[union-attr]
    recipe = {"batch_size": 9, "micro_batch": 4}  # whose last piece was a single example
    result = multistep.train(model=net, train=(POINTS, LABELS), budget="30 steps", recipe=recipe, out=tmp_path / "run")
    trained = result.load(Backbone())
    assert torch.equal(trained.get_buffer("norm.running_mean"), torch.full((8,), 5.0))
    assert not torch.equal(trained.get_buffer("own.running_mean"), torch.zeros(8))
    assert torch.equal(trained.get_buffer("grid"), net.get_buffer("grid"))


def test_frozen_parameters_and_shares_of_dropout_stay_the_users(tmp_path: Path) -> None:
    net = Net()
    net.body.requires_grad_(False)
    result = OWN[1].train(tmp_path / "run", model=net)
    trained = result.load(Net())
    assert torch.equal(trained.get_parameter("body.0.weight"), net.get_parameter("body.0.weight"))
    assert not torch.equal(trained.get_parameter("head.weight"), net.get_parameter("head.weight"))
    pytest.importorskip("peft")
    adapted = OWN[1].train(tmp_path / "adapted", model=net, recipe={"adapter": "lora"}).load(Net())
    assert torch.equal(adapted.get_parameter("body.0.weight"), net.get_parameter("body.0.weight"))
    two = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.4), nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 3))
    domain, opened, _, _ = losses_of({"model": two, "train": (POINTS, LABELS)})
    model: Any = domain.build(0)
    opened.model.set_dropout(model, 0.2)
    assert (model[1].p, model[3].p) == (0.2, 0.05)
    assert domain.settings == ("dropout", "label_smoothing")


# Data ----------------------------------------------------------------------------------------------------


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        yield from ((point, int(label)) for point, label in zip(POINTS, LABELS, strict=True))


def ragged(items: list[Any]) -> tuple[Tensor, Tensor]:
    points = [torch.as_tensor(item[0]) for item in items]
    return nn.utils.rnn.pad_sequence(points, batch_first=True), torch.tensor([int(item[1]) for item in items])


def test_data_of_any_form_is_the_same_data() -> None:
    pairs = list(zip(POINTS, LABELS, strict=True))
    dataset = TensorDataset(POINTS, LABELS)
    forms = [
        (POINTS, LABELS),
        [POINTS.numpy(), LABELS.numpy().astype(np.int32)],
        pairs,
        dataset,
        Stream(),
        DataLoader(dataset, batch_size=7, shuffle=True),
        DataLoader(Subset(dataset, range(120)), batch_size=7, collate_fn=ragged),
        DataLoader(Stream(), batch_size=7),
    ]
    batches = []
    for form in forms:
        _, opened, batch, _ = losses_of({"model": nn.Linear(8, 3), "train": form})
        batches.append(batch)
        assert opened.batch_size == (7 if isinstance(form, DataLoader) else None)
        assert (len(opened.readers["train"]), len(opened.readers["validation"])) == (108, 12)
    for batch in batches:
        assert all(torch.equal(mine, first) for mine, first in zip(batch, batches[0], strict=True))


def test_a_loader_of_some_indices_gives_those_alone() -> None:
    dataset = TensorDataset(POINTS, LABELS)
    train = DataLoader(dataset, batch_size=8, sampler=SubsetRandomSampler(range(100)))
    validation = DataLoader(dataset, batch_size=8, sampler=SubsetRandomSampler(range(100, 120)))
    _, opened, _, _ = losses_of({"model": nn.Linear(8, 3), "train": train, "validation": validation})
    held_out = opened.readers["validation"].batch(np.arange(20), torch.device("cpu"))
    assert torch.equal(held_out[0], POINTS[100:])
    assert len(opened.readers["train"]) == 100


def test_what_a_data_set_draws_is_a_function_of_the_place() -> None:
    domain, _, _, _ = losses_of({"model": Net(), "train": Stripes(60, 0, noisy=True)})
    first, again, other = (domain.batch(place, 8, 0, torch.device("cpu"))[0] for place in (16, 16, 76))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Mistakes --------------------------------------------------------------------------------------------------

NORMED = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
GOOD: dict[str, Any] = {"model": nn.Linear(8, 3), "loss": nn.CrossEntropyLoss(), "train": (POINTS, LABELS)}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"task": "image-classification"}, "task is 'image-classification', but model is a Linear"),
    ({"train": None}, "train is missing"),
    ({"train": "photos/"}, "train is 'photos/'"),
    ({"train": 3}, "train is a int; allowed: a dataset with __len__"),
    ({"trian": 3}, "unknown keyword 'trian'.*Did you mean 'train'"),
    ({"data": "corpus.txt"}, "data= names files"),
    ({"model": nn.Linear}, "model is the class Linear; give an instance"),
    ({"model": "gpt2"}, "model is 'gpt2'; give model=a torch.nn.Module"),
    ({"model": None}, "but model is missing"),
    ({"loss": nn.MSELoss}, "loss is the class MSELoss"),
    ({"loss": "mce"}, "loss is 'mce'; allowed: cross_entropy, nll, .*Did you mean 'mse'"),
    ({"loss": None, "train": (POINTS, POINTS)}, "loss is missing and cannot be told"),
    ({"loss": lambda output, target: 0.5}, "returned a float"),
    ({"loss": lambda output, target: target.float().mean()}, "has no gradient"),
    ({"loss": nn.MSELoss(), "model": nn.Linear(8, 1), "train": (POINTS, POINTS[:, 0])}, "compare each with all others"),
    ({"metric": "acuracy"}, "unknown metric 'acuracy'"),
    ({"metric": median_miss}, "metric 'median_miss': goal is missing"),
    ({"metric": median_miss, "goal": "up"}, "goal is 'up'; allowed: 'minimize' or 'maximize'"),
    ({"goal": "maximize"}, "leave goal out"),
    ({"metric": "pearson"}, "metric 'pearson' cannot be measured for own-model on this data"),
    ({"train": (POINTS, LABELS[:5])}, "one row an example each"),
    ({"train": (POINTS, LABELS + 1)}, "label 3, but the model tells 3 classes apart"),
    ({"train": (POINTS[:, :5], LABELS)}, r"cannot be called with a batch of train, float32 \(4, 5\)"),
    ({"train": {"input": POINTS, "label": LABELS, "y": LABELS}}, "label and y may both be the target"),
    ({"train": {"input": POINTS, "label": LABELS}, "target": "lable"}, "Did you mean 'label'"),
    ({"train": {"image": POINTS, "label": LABELS}}, "the model takes input"),
    ({"train": [(POINTS[0], "cat")] * 30}, "'cat'|str; a batch may hold tensors"),
    ({"train": (POINTS[:5], LABELS[:5])}, "too few to cut validation from"),
    ({"train": [(POINTS[0, : i % 3 + 1], 0) for i in range(30)]}, "cannot be joined to a batch"),
    (
        {"validation": DataLoader(TensorDataset(POINTS, LABELS), sampler=WeightedRandomSampler([1.0] * 120, 9))},
        "validation: is scored on each example once",
    ),
    ({"recipe": {"dropout": 0.1}}, "Linear has no nn.Dropout"),
    ({"recipe": {"augmentation": 0.1}}, "a model of your own has none"),
    ({"phases": [{"until": "2 steps", "data": "x"}]}, "data is the same for all phases"),
    ({"validation": (POINTS[:0], LABELS[:0])}, "validation: holds no examples"),
    (
        {"test": (POINTS[:9, :5], LABELS[:9])},
        r"cannot be called with a batch of test, float32 \(4, 5\) \(RuntimeError: ",
    ),
    ({"validation": (POINTS[:1, :5], LABELS[:1])}, r"cannot be called with a batch of validation, float32 \(1, 5\)"),
    ({"test": (POINTS, LABELS[:, None])}, r"test cannot be scored by the loss CrossEntropyLoss \(.*int64 \(4, 1\)"),
    (
        {"model": nn.Linear(8, 1), "loss": nn.MSELoss(), "train": (POINTS, POINTS[:, :1]), "test": (POINTS, POINTS)},
        r"test: the model gives float32 \(4, 1\), the target is float32 \(4, 8\): MSELoss would compare each",
    ),
    ({"test": (POINTS, LABELS + 1)}, "test: there is a label 3, but the model tells 3 classes apart"),
    (
        {"model": NORMED, "recipe": {"batch_size": 1}},
        "batch_size is 1, with which batch normalisation in Sequential cannot train",
    ),
    (
        {"metric": lambda targets, predictions: float("nan"), "goal": "maximize"},
        "metric 'metric' returned nan of 12 examples whose outputs are finite numbers; it must give one",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_mistakes_are_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        multistep.train(**{**GOOD, "out": tmp_path / "run", "phases": ONLY, **changes})
    assert not (tmp_path / "run").exists()


def test_batch_normalisation_over_places_takes_single_examples(tmp_path: Path) -> None:
    result = OWN[1].train(tmp_path / "run", phases=[{"until": "3 steps"}], recipe={"batch_size": 1})
    assert np.isfinite(result.score)


def test_a_function_that_gives_no_number_late_is_told_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What a run has won by then is worth more than the message; where all predictions are alike, nothing is said."""
    broken = False

    def fickle(targets: Any, predictions: Any) -> float:
        return math.nan if broken or np.ptp(predictions) == 0 else float((targets == predictions).mean())

    given = {"model": nn.Linear(8, 3), "train": (POINTS, LABELS), "validation": clouds(80, 1)}
    domain, _, _, model = losses_of({**given, "metric": fickle, "goal": "maximize"})
    look = functools.partial(domain.evaluate, split="validation", sample=True, device=torch.device("cpu"))
    zero = nn.Linear(8, 3)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    for one in (zero, model):
        look(one)
    assert not caplog.messages
    broken = True
    assert len(look(model)) == 80
    (said,) = caplog.messages
    assert said.startswith("metric 'fickle' returned nan of 80 examples")
    assert said.endswith("the run takes that for divergence")


def test_a_name_that_is_taken_is_no_name_for_a_function(tmp_path: Path) -> None:
    def accuracy(targets: Any, predictions: Any) -> float:
        return float((targets == predictions).mean())

    with pytest.raises(PlanError, match="which is a metric already"):
        multistep.train(**GOOD, metric=accuracy, goal="maximize", out=tmp_path / "run")


def test_weights_of_another_model_are_refused(made: Made) -> None:
    with pytest.raises(PlanError, match="do not fit Linear"):
        made.result.load(nn.Linear(2, 2))


def test_a_label_that_turns_up_late_is_told(tmp_path: Path) -> None:
    class Late(Stripes):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return super().__getitem__(index) | ({"label": 7} if index == 59 else {})

    with pytest.raises(DataError, match="validation: there is a label 7"):
        OWN[1].train(tmp_path / "run", validation=Late(60, 1))
