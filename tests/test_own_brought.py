"""What people bring to a model of their own, and what once went wrong in silence: losses, metrics, data, scales."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from own_models import clouds
from safetensors.torch import load_file
from sklearn.metrics import f1_score, get_scorer, log_loss, make_scorer, mean_absolute_error, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import multistep
from multistep.api import Result
from multistep.errors import DataError, PlanError, UserError
from multistep.tasks.own.cutting import read_splits
from multistep.tasks.own.weighted import Drawn, WeightedOrder

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(200, 8, generator=GENERATOR)
Y = X @ torch.linspace(-1, 1, 8) + 0.1 * torch.randn(200, generator=GENERATOR)
YES = (Y > 0).long()


def net(outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs))


def train(folder: Path, steps: int = 6, **given: Any) -> Result:
    given = {"phases": [{"name": "only", "until": f"{steps} steps"}], **given}
    return multistep.train(out=folder / "run", **given)


def notes_of(result: Result) -> str:
    record = json.loads((result.folder / "resolved.json").read_text(encoding="utf-8"))
    return "\n".join(record["phases"][0]["facts"]["notes"])


# Losses that read the model ------------------------------------------------------------------------------


def closing_over(model: nn.Sequential) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) + sum(p.abs().sum() for p in model.parameters())


def by_default_argument(model: nn.Sequential) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(o: Tensor, t: Tensor, layers: Any = (model[0], model[2])) -> Tensor:
        total = F.cross_entropy(o, t)
        for layer in layers:
            total = total + layer.weight.abs().sum() + layer.bias.abs().sum()
        return total

    return loss


class Penalised:
    def __init__(self, model: nn.Module) -> None:
        self.parts = {"model": model}

    def __call__(self, o: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(o, t) + sum(p.abs().sum() for p in self.parts["model"].parameters())


@pytest.mark.parametrize("make", [closing_over, by_default_argument, Penalised])
def test_a_loss_that_reads_the_model_reads_what_is_trained(make: Any, tmp_path: Path) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    recipe = {"learning_rate": 0.02}
    result = train(tmp_path, 60, model=model, loss=make(model), train=(X, YES), recipe=recipe)
    weights = sum(float(tensor.abs().sum()) for tensor in load_file(result.model / "model.safetensors").values())
    assert weights < 8 < sum(float(tensor.abs().sum()) for tensor in before.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "reads the parameters of the model" in notes_of(result)


def taken_out(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    parameters = list(model.parameters())
    return lambda o, t: F.cross_entropy(o, t) + sum(p.abs().sum() for p in parameters)


def of_another(_model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    other = nn.Linear(2, 2)
    return lambda o, t: F.cross_entropy(other(o), t)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (taken_out, r"taken out of the model before \(4, of shape .*have it read them from the module"),
        (of_another, r"the loss lambda reads parameters that are none of the model's \(2, of shape "),
    ],
)
def test_parameters_that_nothing_would_train_are_refused(make: Any, message: str, tmp_path: Path) -> None:
    model = net()
    with pytest.raises(PlanError, match=message):
        train(tmp_path, model=model, loss=make(model), train=(X, YES))


def test_layers_in_a_plain_list_are_refused(tmp_path: Path) -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rest = nn.Linear(8, 4), [nn.Linear(4, 2)]

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.rest[0](self.first(x))
            return found

    with pytest.raises(
        PlanError, match=r"the model .*Hidden reads parameters that are none of the model's.*ModuleList"
    ):
        train(tmp_path, model=Hidden(), loss="cross_entropy", train=(X, YES))


def test_a_teacher_that_is_only_read_is_no_mistake(tmp_path: Path) -> None:
    teacher = net()

    def distil(o: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(X[:1]).softmax(1).expand_as(o)
        return F.cross_entropy(o, t) + F.cross_entropy(o, wanted)

    assert math.isfinite(train(tmp_path, model=net(), loss=distil, train=(X, YES)).score)


# Shapes that meet ------------------------------------------------------------------------------------------


class Focal(nn.Module):
    def __init__(self, squeezed: bool) -> None:
        super().__init__()
        self.squeezed = squeezed

    def forward(self, o: Tensor, t: Tensor) -> Tensor:
        share = o.softmax(1).gather(1, t[:, None])
        share = share.squeeze(1) if self.squeezed else share
        return ((1 - share) ** 2 * F.cross_entropy(o, t, reduction="none")).mean()


MASKS = (torch.randn(24, 3, 6, 6, generator=GENERATOR), torch.randint(0, 2, (24, 6, 6), generator=GENERATOR).float())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"model": net(1), "loss": lambda o, t: ((o - t) ** 2).mean(), "train": (X, Y)},
            r"broadcasts \(4, 1\) against \(4,\) to \(4, 4\)",
        ),
        ({"model": net(), "loss": Focal(False), "train": (X, YES)}, r"Focal broadcasts \(4, 1\) against \(4,\)"),
        (
            {"model": nn.Conv2d(3, 1, 1), "loss": lambda o, t: (o.sigmoid() * t).mean(), "train": MASKS},
            r"\(4, 1, 6, 6\) against \(4, 6, 6\) to \(4, 4, 6, 6\)",
        ),
        (
            {"model": net(4), "loss": lambda o, t: ((o - t) ** 2).mean(), "train": (X, Y)},
            r"takes 4 examples but not 2 .*broadcasts \(4, 4\) against \(4,\)",
        ),
        (
            {"model": net(1), "loss": lambda o, t: (o - t).abs().mean(), "train": (X, X[:, :3])},
            r"broadcasts the output \(4, 1\) to the target \(4, 3\): one number would be trained to several",
        ),
    ],
)
def test_a_target_that_is_broadcast_by_mistake_is_told(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=message):
        train(tmp_path, **given)


def quantiles(o: Tensor, t: Tensor) -> Tensor:
    share = torch.tensor([0.1, 0.5, 0.9])
    return torch.maximum(share * (t - o), (share - 1) * (t - o)).mean()


def ctc(o: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    labels, lengths = target
    seen = torch.full((len(o),), o.shape[1])
    return F.ctc_loss(o.log_softmax(2).transpose(0, 1), labels, seen, lengths)


FINE: dict[str, tuple[Any, Callable[[], nn.Module], Any]] = {
    "by hand, one-hot": (
        lambda o, t: -(t * o.log_softmax(1)).sum(1).mean(),
        net,
        (X, F.one_hot(YES, 2).float()),
    ),
    "focal": (Focal(True), net, (X, YES)),
    "pairs, on purpose": (
        lambda o, t: F.softplus(-(o - o.T) * torch.sign(t[:, None] - t[None])).mean(),
        lambda: net(1),
        (X, Y),
    ),
    "quantiles": (quantiles, lambda: net(3), (X, Y[:, None])),
    "a label at each place": (
        lambda o, t: F.cross_entropy(o.movedim(-1, 1), t),
        lambda: nn.Embedding(9, 4),
        (torch.randint(0, 9, (40, 5), generator=GENERATOR), torch.randint(0, 4, (40, 5), generator=GENERATOR)),
    ),
    "several targets": (
        ctc,
        lambda: nn.Linear(3, 4),
        [(torch.randn(9, 3), (torch.tensor([1, 2, 3]), 2 + i % 2)) for i in range(40)],
    ),
    "masks": (
        lambda o, t: 1 - (2 * (o.sigmoid() * t).sum() / (o.sigmoid() + t).sum()),
        lambda: nn.Conv2d(3, 1, 1),
        (MASKS[0], MASKS[1][:, None]),
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_losses_of_other_shapes_are_no_false_alarm(name: str, tmp_path: Path) -> None:
    loss, build, data = FINE[name]
    result = train(tmp_path, 3, model=build(), loss=loss, train=data)
    assert math.isfinite(result.score)
    if name == "quantiles":
        assert "broadcasts the target (4, 1) to the output (4, 3)" in notes_of(result)
    if name == "a label at each place":
        assert "token_accuracy" in result.record["scores"]["validation"]


# Functions as metrics --------------------------------------------------------------------------------------


def probabilities_of(result: Result, build: Callable[[], nn.Module], rows: slice) -> np.ndarray[Any, Any]:
    model = result.load(build())
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(X[rows]).double().softmax(1).numpy()
    return found


def mine(y_true: Any, y_prob: Any) -> float:
    return float(roc_auc_score(y_true, y_prob))


SCORED: list[tuple[Any, Any]] = [
    (roc_auc_score, lambda t, p: roc_auc_score(t, p[:, 1])),
    (mine, lambda t, p: roc_auc_score(t, p[:, 1])),
    (log_loss, log_loss),
    (get_scorer("average_precision"), lambda t, p: get_scorer("average_precision")._score_func(t, p[:, 1])),
    (make_scorer(f1_score, average="macro"), lambda t, p: f1_score(t, p.argmax(1), average="macro")),
]


@pytest.mark.parametrize(("metric", "right"), SCORED)
def test_a_function_gets_what_it_wants(metric: Any, right: Any, tmp_path: Path) -> None:
    goal = "maximize" if metric is mine else None
    test = slice(150, 200)
    given = {"metric": metric, "goal": goal, "train": (X[:150], YES[:150]), "test": (X[test], YES[test])}
    result = train(tmp_path, model=net(), **given)
    assert result.score == pytest.approx(right(YES[test].numpy(), probabilities_of(result, net, test)), rel=1e-5)


def test_scores_of_many_classes_and_the_goal_come_from_scikit_learn(tmp_path: Path) -> None:
    metric = functools.partial(roc_auc_score, multi_class="ovr")
    points, labels = clouds(60, 1)
    result = train(tmp_path, model=net(3), metric=metric, train=clouds(150, 0), test=(points, labels))
    assert result.metric == "roc_auc_score"
    with torch.no_grad():
        shares = result.load(net(3))(points).double().softmax(1).numpy()
    assert result.score == pytest.approx(roc_auc_score(labels.numpy(), shares, multi_class="ovr"), rel=1e-5)
    with pytest.raises(PlanError, match="goal is 'minimize', but of roc_auc_score scikit-learn says 'maximize'"):
        train(tmp_path, model=net(), metric=roc_auc_score, goal="minimize", train=(X, YES))
    numbers = train(tmp_path / "numbers", model=net(1), metric=mean_absolute_error, train=(X, Y[:, None]))
    assert numbers.metric == "mean_absolute_error"


def test_a_function_that_hides_a_score_of_probabilities_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"calls roc_auc_score, which wants probabilities.*or give metric='roc_auc'"):
        train(tmp_path, model=net(), metric=lambda t, p: roc_auc_score(t, p), goal="maximize", train=(X, YES))


@pytest.mark.filterwarnings("ignore:Only one class")
@pytest.mark.parametrize("metric", ["roc_auc", roc_auc_score])
def test_a_score_that_cannot_be_had_says_why(metric: Any, tmp_path: Path) -> None:
    alone = (X[:30], torch.zeros(30, dtype=torch.long))
    with pytest.raises(DataError, match=r"all 30 examples (of validation )?are of class 0, so (that|it)"):
        train(tmp_path, model=net(), metric=metric, train=(X, YES), validation=alone)


# Models that return more than a tensor ----------------------------------------------------------------------


class Named(nn.Module):
    """Computes its loss where it is given labels, as models of transformers do."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.layer, self.smoothing = nn.Linear(8, 2), smoothing

    def forward(self, x: Tensor, labels: Tensor | None = None, **_more: Any) -> dict[str, Tensor]:
        logits = self.layer(x)
        loss = {} if labels is None else {"loss": F.cross_entropy(logits, labels, label_smoothing=self.smoothing)}
        return {**loss, "logits": logits}


@pytest.mark.parametrize(("smoothing", "name"), [(0.0, "CrossEntropyLoss"), (0.1, "the model's own loss")])
def test_a_model_that_computes_its_loss_is_trained_by_it(smoothing: float, name: str, tmp_path: Path) -> None:
    items = {"x": X, "labels": YES, "weight": Y}
    result = train(tmp_path, 30, model=Named(smoothing), train=items, recipe={"learning_rate": 0.05})
    assert result.metric == "accuracy"
    assert result.score > 0.8
    assert name in notes_of(result)
    assert result.baseline["name"] == ("untrained model" if smoothing else "majority")


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(), lambda o, t: F.cross_entropy(o["logits"], t)])
def test_losses_are_given_what_they_take_of_an_output_with_names(loss: Any, tmp_path: Path) -> None:
    result = train(
        tmp_path, 30, model=Named(), loss=loss, train={"x": X, "labels": YES}, recipe={"learning_rate": 0.05}
    )
    assert result.score > 0.8
    assert result.metric == "accuracy"


def test_models_of_transformers_are_trained_as_they_come(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

    small: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "num_labels": 2}
    bert = BertForSequenceClassification(BertConfig(**small))
    tokens = torch.randint(0, 50, (60, 6), generator=GENERATOR)
    items = [{"input_ids": row.tolist(), "labels": int(row[0] > 25), "text": "unread"} for row in tokens]
    result = train(tmp_path, 3, model=bert, train=items)
    assert {"accuracy", "roc_auc"} <= set(result.record["scores"]["validation"])
    assert "the model takes no text: left out" in notes_of(result)
    words: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
    writer = GPT2LMHeadModel(GPT2Config(**words, bos_token_id=0, eos_token_id=0))
    written = train(tmp_path / "writer", 3, model=writer, train={"input_ids": tokens, "labels": tokens})
    model = written.load(GPT2LMHeadModel(writer.config))
    held_out = read_splits({"train": (tokens, tokens)}, None)[0]["validation"]
    with torch.no_grad():
        right = float(model(input_ids=tokens[held_out.indices], labels=tokens[held_out.indices]).loss)
    assert written.score == pytest.approx(right, rel=1e-4), "each place tells the next token"


def test_wrappers_leave_no_trace(tmp_path: Path) -> None:
    plain = net()
    for i, wrapped in enumerate((torch.compile(net(), backend="eager"), nn.DataParallel(net()))):
        result = train(tmp_path / str(i), model=wrapped, train=(X, YES))
        weights = load_file(result.model / "model.safetensors")
        assert set(weights) == set(plain.state_dict())
        filled: Any = result.load(nn.DataParallel(net()))
        assert torch.equal(filled.module[0].weight, weights["0.weight"])
        assert "trained and exported without" in notes_of(result)


# Numbers and places -----------------------------------------------------------------------------------------


def test_far_targets_are_trained_in_their_own_units(tmp_path: Path) -> None:
    far = 70 * Y[:, None] + 500
    given = {"model": net(1), "train": (X[:150], far[:150]), "test": (X[150:], far[150:]), "metric": "rmse"}
    given["recipe"] = {"learning_rate": 0.02}
    scaled = train(tmp_path / "a", 100, **given)
    plain = train(tmp_path / "b", 100, **given, standardize=False)
    assert scaled.score < 25 < 70 < plain.score
    assert scaled.record["baseline"]["name"] == "mean"
    assert "their mean and deviation are 5" in notes_of(scaled)
    model = scaled.load(net(1))
    with torch.no_grad():
        by_hand = float(((model(X[150:]) - far[150:]) ** 2).mean().sqrt())
    assert by_hand == pytest.approx(scaled.score, rel=1e-4), "the exported module speaks the targets' unit"
    again = train(tmp_path / "c", 1, **{**given, "model": model, "recipe": {"learning_rate": 1e-9, "warmup_steps": 0}})
    assert again.score == pytest.approx(scaled.score, rel=1e-3), "a model that was trained begins where it was"


def test_a_loss_or_a_layer_of_another_kind_keeps_its_targets(tmp_path: Path) -> None:
    far = (70 * Y[:, None] + 500).round()
    rates = train(tmp_path / "a", 3, model=net(1), loss="poisson_nll", train=(X, far / 100))
    assert "deviation" not in notes_of(rates)
    assert "inputs: their mean" not in notes_of(rates)
    cut = train(tmp_path / "b", 3, model=nn.Sequential(net(1), nn.ReLU()), train=(100 * X, far))
    assert "inputs: 8 of 8 columns lie far from 0 or 1" in notes_of(cut)
    assert "training is quicker where the data has them standardised" in notes_of(cut)
    with pytest.raises(PlanError, match=r"standardize=True: the model.s output is not that of a linear layer"):
        train(tmp_path / "c", model=nn.Sequential(net(1), nn.ReLU()), train=(X, far), standardize=True)


class Twice(nn.Module):
    """Reads its rows twice, so that no layer of it can take their scale in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.first(rows) + self.second(torch.sin(rows))
        return said


def test_columns_of_wild_scales_are_trained_on_in_units_and_exported_as_they_are(tmp_path: Path) -> None:
    units = torch.randn(900, 4, generator=torch.Generator().manual_seed(3))
    rows = units * torch.tensor([15000.0, 12.0, 1.0, 1e-4]) + torch.tensor([40000.0, 45.0, 0.0, 3e-4])
    side = (units[:, 0] - units[:, 1] + 0.5 * units[:, 3] > 0).long()
    given: dict[str, Any] = {"train": (rows[:700], side[:700]), "test": (rows[700:], side[700:])}
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    result, plain = (
        train(tmp_path / str(how), 150, model=net, **given, **({} if how else {"standardize": False}))
        for how in (True, False)
    )
    assert "inputs: 3 of 4 columns lie far from 0 or 1 (deviations of 0.0001" in notes_of(result)
    assert "standardise them in the data" in notes_of(plain)
    assert result.score > 0.95 > plain.score
    with torch.no_grad():
        said = result.load(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)))(rows[700:])
    assert float((said.argmax(1) == side[700:]).double().mean()) == result.score
    assert result.record["scores"]["test"]["loss"] == pytest.approx(float(F.cross_entropy(said, side[700:])), rel=1e-4)
    # What was trained before begins where it was, and what cannot take the scale in is left alone.
    on = train(tmp_path / "on", 2, model=result.load(net), **given, recipe={"learning_rate": 1e-9, "batch_size": 32})
    assert on.record["scores"]["test"]["loss"] == pytest.approx(result.record["scores"]["test"]["loss"], rel=1e-3)
    other = train(tmp_path / "other", 2, model=Twice(), **given)
    assert "standardise them in the data" in notes_of(other)


def test_segmentation_is_scored_by_place(tmp_path: Path) -> None:
    images = torch.randn(40, 3, 8, 8, generator=GENERATOR)
    classes = images.argmax(1)
    classes[:, 0] = 255  # places that nobody labelled
    model = nn.Conv2d(3, 3, 1)
    loss, test = nn.CrossEntropyLoss(ignore_index=255), (images[30:], classes[30:])
    result = train(
        tmp_path, 40, model=model, loss=loss, train=(images[:30], classes[:30]), test=test, metric="mean_iou"
    )
    with torch.no_grad():
        said, wanted = result.load(nn.Conv2d(3, 3, 1))(test[0]).argmax(1)[:, 1:].flatten(), test[1][:, 1:].flatten()
    shares = [((said == k) & (wanted == k)).sum() / ((said == k) | (wanted == k)).sum() for k in range(3)]
    assert result.score == pytest.approx(float(torch.stack(shares).mean()))
    scores = result.record["scores"]["test"]
    assert scores["pixel_accuracy"] == pytest.approx(float((said == wanted).float().mean()))
    assert scores["dice"] > scores["mean_iou"] > result.baseline["test"]["score"]


# Data --------------------------------------------------------------------------------------------------------


def test_numbers_that_are_none_are_told_with_their_rows(tmp_path: Path) -> None:
    broken, target = X.clone(), Y[:, None].clone()
    broken[5, 2], target[7] = float("inf"), float("nan")
    held_out: dict[str, Any] = {"validation": (X[:40], Y[:40, None])}
    with pytest.raises(DataError, match=r"train: 2 examples hold .* \(inf and nan in inputs and targets\), rows 5, 7,"):
        train(tmp_path, model=net(1), train=(broken, target), **held_out)

    class Items(Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input": X[index % 200] * (float("nan") if index == 335 else 1.0), "y": Y[index % 200, None]}

    with pytest.raises(DataError, match=r"train: 1 example holds .* \(nan in inputs\), row 335,"):
        train(tmp_path / "late", 40, model=net(1), train=Items(), validation={"input": X[:40], "y": Y[:40, None]})


def test_what_model_and_loss_cope_with_is_said_and_left(tmp_path: Path) -> None:
    target = Y[:, None].clone()
    target[7] = float("nan")

    def masked(o: Tensor, t: Tensor) -> Tensor:
        there = ~t.isnan()
        return ((o - t.nan_to_num(0)) ** 2 * there).sum() / there.sum().clamp_min(1)

    result = train(tmp_path, model=net(1), loss=masked, train=(X, target), validation=(X[:40], Y[:40, None]))
    assert "although there is nan in targets" in notes_of(result)


def test_rare_classes_are_in_every_part_of_a_cut() -> None:
    labels = torch.zeros(300, dtype=torch.long)
    labels[[3, 50, 200]] = torch.tensor([1, 1, 2])
    for form in ((X[:1].expand(300, 8), labels), [(X[0], int(label)) for label in labels]):
        splits, notes = read_splits({"train": form, "validation": 0.2, "test": 0.1}, None)
        sizes = {name: len(split) for name, split in splits.items()}
        assert sizes == {"train": 210, "validation": 60, "test": 30}
        rows = {name: split.rows(np.arange(len(split))) for name, split in splits.items()}
        assert sorted(np.concatenate(list(rows.values()))) == list(range(300))
        assert 1 in labels[rows["train"]], "of two examples one stays to be learnt from"
        assert 1 in labels[rows["validation"]]
        assert any("exchanged" in note for note in notes)


def test_weights_of_a_sampler_are_those_of_the_order(tmp_path: Path) -> None:
    weights = torch.where(YES == 1, 3.0, 1.0)
    dataset = TensorDataset(X, YES)
    sampler = WeightedRandomSampler(weights.tolist(), 200)
    for loader in (
        DataLoader(dataset, 16, sampler=sampler),
        DataLoader(dataset, batch_sampler=BatchSampler(sampler, 16, drop_last=False)),
    ):
        splits, _ = read_splits({"train": loader, "validation": (X, YES)}, None)
        drawn = splits["train"].drawn
        assert drawn is not None
        order = WeightedOrder(drawn)
        places, _ = order.indices(0, 20_000, 7)
        share = 3 * float((YES == 1).sum()) / float(weights.sum())
        assert float((YES[places] == 1).float().mean()) == pytest.approx(share, abs=0.015)
        assert np.array_equal(order.indices(4000, 16, 7)[0], WeightedOrder(drawn).indices(4000, 16, 7)[0])
    once = WeightedOrder(Drawn(np.array([1.0, 0.0, 5.0, 1.0]), replacement=False, count=3))
    assert {frozenset(once.indices(3 * i, 3, 0)[0].tolist()) for i in range(5)} == {frozenset((0, 2, 3))}

    class Balanced(BatchSampler):
        pass

    with pytest.raises(PlanError, match="the loader's Balanced cannot be kept"):
        train(tmp_path, model=net(), train=DataLoader(dataset, batch_sampler=Balanced(sampler, 16, False)))


FRAME = pd.DataFrame(X.numpy(), columns=list("abcdefgh")).assign(h=YES.numpy() > 0)
READ: dict[str, dict[str, Any]] = {
    "a table with yes and no": {"train": (FRAME, pd.Series(YES.numpy()))},
    "labels as floats": {"train": (FRAME, pd.Series(YES.numpy()).astype(float)), "loss": "cross_entropy"},
    "lists": {"train": (X.tolist(), YES.tolist())},
    "an array and a list": {"train": (X.numpy(), YES.tolist())},
    "one-hot whole numbers": {"train": (X, F.one_hot(YES, 2)), "loss": nn.CrossEntropyLoss()},
    "whole inputs": {"train": ((10 * X).int().numpy(), YES.numpy())},
    "half precision": {"train": (X.half(), YES), "model": net().bfloat16()},
}


@pytest.mark.parametrize("name", READ)
def test_data_of_other_types_is_read(name: str, tmp_path: Path) -> None:
    result = train(tmp_path, 30, **{"model": net(), "recipe": {"learning_rate": 0.02}, **READ[name]})
    assert result.metric == "accuracy"
    assert result.score > 0.7


class Lightning(nn.Linear):
    """What makes a module one of Lightning's."""

    def __init__(self) -> None:
        super().__init__(8, 2)

    def training_step(self, batch: Any, index: int) -> Tensor:
        raise AssertionError("is not called here")

    def configure_optimizers(self) -> None: ...


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": (X, YES + 1)}, "if the labels count from 1, subtract 1"),
        ({"train": (X, YES * 2 - 1)}, r"give nn.CrossEntropyLoss\(ignore_index=-1\)"),
        ({"train": (X, YES * 0.5)}, "there is a target 0.5, where class numbers are wanted"),
        ({"train": (X, YES[:, None])}, r"one an example: squeeze\(1\) in the data"),
        ({"train": (X, YES), "model": net(1)}, "one output tells no classes apart"),
        ({"train": (FRAME, pd.Series(["a", "b"] * 100))}, r"np.unique\(names, return_inverse=True\)"),
        ({"train": FRAME}, "train is a table; give its columns"),
        (
            {"train": (X, Y), "model": net(1), "loss": None},
            r"cannot be told from the data: .*unsqueeze\(1\) in the data",
        ),
        ({"train": (X, YES), "validation": 0.6, "test": 0.5}, r"validation and test take 1\.1 of train"),
        ({"train": (X, YES), "validation": 20}, r"validation is 20; .*the share of train between 0 and 1"),
        ({"train": (X, YES), "model": torch.jit.ScriptModule()}, "the model is scripted"),
        ({"train": (X, YES), "standardize": "yes"}, "standardize is 'yes'; allowed: True or False"),
        ({"train": X}, r"where the input is its own target, as for an autoencoder, give it twice: \(x, x\)"),
        ({"train": [(int(y), x, x) for x, y in zip(X, YES, strict=True)]}, "put the label last"),
        ({"train": (X, YES), "model": (net(), net())}, "model is a tuple of 2 modules; one module is trained"),
        (
            {"train": (torch.zeros(20, 8, 8, 3, dtype=torch.uint8), YES[:20]), "model": nn.Conv2d(3, 2, 3)},
            r"images are \(channels, height, width\), as floats, to most modules: x.permute",
        ),
        (
            {"train": (X, (YES * 255)[:, None].byte()), "model": net(1), "loss": nn.BCEWithLogitsLoss()},
            "target 255, but BCEWithLogitsLoss takes shares from 0 to 1: divide masks by 255",
        ),
        ({"train": (X, YES), "loss": lambda o, t: {"loss": o.sum()}}, "returned a dict; .* their sum for instance"),
        ({"train": (X, YES), "model": Lightning(), "loss": None}, "give loss= what Lightning.training_step computes"),
    ],
)
def test_common_mistakes_are_told_in_plain_words(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path, **{"model": net(), "loss": nn.CrossEntropyLoss(), **given})
    assert not (tmp_path / "run").exists()


def test_a_softmax_before_cross_entropy_is_said(tmp_path: Path) -> None:
    given: dict[str, Any] = {"loss": nn.CrossEntropyLoss(), "train": (X, YES)}
    result = train(tmp_path, model=nn.Sequential(net(), nn.Softmax(1)), **given)
    assert "CrossEntropyLoss takes the softmax of them again" in notes_of(result)
    assert "softmax" not in notes_of(train(tmp_path / "right", model=net(), **given))
