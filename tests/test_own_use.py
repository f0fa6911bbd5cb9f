"""A finished module of one's own in use: predictions and scores, in this process and in another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import multistep
from multistep.api import Result
from multistep.errors import DataError, PlanError
from multistep.tasks.own import found

X = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
SIDE = (X[:, 0] > 0.3 * X[:, 1]).long()
HEIGHT = 500 + 70 * X[:, :1] - 30 * X[:, 1:2]


class Two(nn.Module):
    """Two inputs by name; says several things."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, width), nn.Embedding(3, width), nn.Linear(width, 2)

    def forward(self, points: Tensor, kind: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.first(points) + self.second(kind))
        return {"hidden": hidden, "logits": self.head(hidden)}


def run(out: Path, **keywords: Any) -> Result:
    return multistep.train(**{"budget": "60 steps", "out": out, "progress": False, **keywords})


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Classes, told from two inputs by name, with a test split and a metric of one's own."""
    return run(
        tmp_path_factory.mktemp("sides") / "run",
        model=Two(),
        train=named(0, 400),
        test=named(400, 500),
        metric=cohen_kappa_score,
        goal="maximize",
    )


def named(first: int, last: int) -> dict[str, Tensor]:
    return {"points": X[first:last], "kind": torch.arange(first, last) % 3, "label": SIDE[first:last]}


def test_what_is_scored_again_is_what_the_run_scored(sides: Result) -> None:
    again = sides.evaluate(named(400, 500))
    assert sides.test is not None
    assert again["scores"]["cohen_kappa_score"]["score"] == pytest.approx(sides.test.score, abs=1e-6)
    assert again["examples"] == 100
    assert again["notes"] == []
    said = sides.outputs(named(400, 500))
    assert again["scores"]["loss"]["score"] == pytest.approx(float(F.cross_entropy(said, SIDE[400:])), rel=1e-5)
    accuracy = float((said.argmax(1) == SIDE[400:]).float().mean())
    found = again["scores"]["accuracy"]
    assert found["score"] == pytest.approx(accuracy)
    assert found["low"] < accuracy < found["high"]
    # A loader of items, one metric, and the same through the run's directory.
    rows: Any = [{key: part[i] for key, part in named(400, 500).items()} for i in range(100)]
    items = DataLoader(rows, batch_size=7)
    alone = multistep.evaluate(sides.folder, items, metric="f1")
    assert list(alone["scores"]) == ["macro_f1"]
    assert alone["scores"]["macro_f1"] == again["scores"]["macro_f1"]


def test_scores_on_what_the_run_was_trained_on_are_said_to_be_such(sides: Result) -> None:
    whole = sides.evaluate(named(0, 400))["notes"]
    assert any(note.startswith("data: all of the examples that this run was trained on are in it") for note in whole)
    half = sides.evaluate(named(0, 200))["notes"]
    assert any("% of the examples that this run was trained on are in it" in note for note in half)


def test_inputs_are_taken_in_every_form(sides: Result) -> None:
    wanted = sides.outputs(named(0, 6))
    kinds = torch.arange(6) % 3
    forms: list[Any] = [
        {"points": X[:6].double().numpy(), "kind": kinds.tolist()},
        (X[:6], kinds),
        TensorDataset(X[:6], kinds, SIDE[:6]),
        [{"points": X[i], "kind": kinds[i], "name": "a"} for i in range(6)],
        [(X[i], kinds[i]) for i in range(6)],
        ((X[i], kinds[i], SIDE[i]) for i in range(6)),
        DataLoader(TensorDataset(X[:6], kinds, SIDE[:6]), batch_size=4, shuffle=True),
    ]
    for form in forms:
        assert torch.equal(sides.outputs(form), wanted), form
    said = sides.predict(forms[0])
    shares = wanted.double()
    assert [each.output for each in said] == [str(k) for k in shares.argmax(1).tolist()]
    temperature = sides.record["calibration"]["temperature"]
    sure = (shares / temperature).softmax(1).max(1).values
    assert [each.probability for each in said] == pytest.approx(sure.tolist(), rel=1e-6)
    for wrong, told in (
        ({"points": X[:6]}, "'kind' is missing; the model takes points, kind"),
        (X[:6], "1 parts an example, but the model takes 2 \\(points, kind\\)"),
        ((X[:6, :2], kinds), r"cannot be called with a batch of them, \(6, 2\), \(6,\) named points, kind"),
        ([], "holds no example"),
    ):
        with pytest.raises(DataError, match=told):
            sides.predict(wrong)


def test_numbers_come_in_the_unit_of_the_targets_and_tables_with_a_column_more(tmp_path: Path) -> None:
    frame = pd.DataFrame(X.numpy(), columns=["a", "b", "c", "d"])
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    result = run(tmp_path / "run", model=net, train=(frame[:400], HEIGHT[:400].numpy()), budget="300 steps")
    said = result.predict(X[400:])
    assert said.shape == (100,)
    assert float((said - HEIGHT[400:, 0]).abs().mean()) < 20
    shuffled = frame[400:][["d", "b", "a", "c"]].assign(prediction="taken")
    answered = result.predict(shuffled)
    assert list(answered.columns) == ["d", "b", "a", "c", "prediction", "prediction_"]
    assert np.allclose(answered["prediction_"], said, rtol=1e-5)
    row = {name: [value] for name, value in frame.iloc[400].items()}
    assert float(result.predict(row)) == pytest.approx(float(said[0]), rel=1e-5)
    scores = result.evaluate((frame[400:], HEIGHT[400:].numpy()), metric=["rmse", "r2"])["scores"]
    rmse = float((said - HEIGHT[400:, 0]).square().mean().sqrt())
    assert scores["root_mean_squared_error"]["score"] == pytest.approx(rmse, rel=1e-5)
    with pytest.raises(PlanError, match="metric 'accuracy' cannot be measured here; there are loss"):
        result.evaluate((frame, HEIGHT.numpy()), metric="accuracy")


def test_yes_and_no_and_several_labels_are_said_at_the_threshold(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    result = run(tmp_path / "one", model=net, loss=nn.BCEWithLogitsLoss(), train=(X, SIDE[:, None].float()))
    said = result.predict(X[:50])
    assert {each.output for each in said} == {"0", "1"}
    odds = result.outputs(X[:50]).double()[:, 0] / result.record["calibration"]["temperature"]
    assert [each.others["1"] for each in said] == pytest.approx(odds.sigmoid().tolist(), rel=1e-6)
    few = multistep.predict(result.folder, X[:50], threshold=0.99)
    assert [each.output for each in few] == ["1" if share > 0.99 else "0" for share in odds.sigmoid()]
    three = torch.stack([(X[:, k] > 0).float() for k in range(3)], 1)
    several = run(tmp_path / "three", model=nn.Linear(4, 3), loss="bce_with_logits", train=(X, three))
    labels = [each.output for each in several.predict(X[:20])]
    on = several.outputs(X[:20]) > 0
    assert labels == [",".join(str(k) for k in range(3) if row[k]) for row in on]


def test_another_process_has_the_code_by_its_name_or_says_what_to_give(
    sides: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that can be imported and takes no arguments is made; of other code the message says what to pass."""
    before = sides.predict(named(400, 410))
    monkeypatch.setattr(found, "_trained", {})
    again = multistep.resume(sides.folder, progress=False)
    assert again.predict(named(400, 410)) == before
    scored = again.evaluate(named(400, 500))
    assert "cohen_kappa_score" not in scored["scores"]
    assert any("give it to have its score: metric=cohen_kappa_score" in note for note in scored["notes"])
    kappa = again.evaluate(named(400, 500), metric=cohen_kappa_score, goal="maximize")["scores"]["cohen_kappa_score"]
    assert sides.test is not None
    assert kappa["score"] == pytest.approx(sides.test.score, abs=1e-6)

    (tmp_path / "script.py").write_text(
        "import torch, multistep\n"
        "class Net(torch.nn.Linear):\n    pass\n"
        "def loss(output, target):\n    return ((output - target) ** 2).mean()\n"
        "x = torch.randn(200, 3)\n"
        "multistep.train(model=Net(3, 1), loss=loss, train=(x, x[:, :1]), budget='5 steps', out='run')\n"
    )
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True)
    gone = multistep.resume(tmp_path / "run", progress=False)
    points = torch.ones(30, 3)
    with pytest.raises(PlanError, match=r"the code of Net is yours: it stood in a script or a notebook.*model=Net\("):
        gone.predict(points)
    assert gone.predict(points, model=nn.Linear(3, 1)).shape == (30,)
    with pytest.raises(PlanError, match=r"trained by the loss loss, whose code is yours .*: loss=\.\.\."):
        gone.evaluate((points, points[:, :1]), model=nn.Linear(3, 1))
    given = gone.evaluate((points, points[:, :1]), model=nn.Linear(3, 1), loss="mse")["scores"]["loss"]["score"]
    with torch.no_grad():
        wanted = F.mse_loss(gone.load(nn.Linear(3, 1))(points), points[:, :1])
    assert given == pytest.approx(float(wanted), rel=1e-5)


def test_a_loss_of_torch_is_had_again_with_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), ignore_index=-1)
    result = run(tmp_path / "run", model=nn.Linear(4, 2), loss=loss, train=(X, SIDE), budget="5 steps")
    here = result.evaluate((X[:50], SIDE[:50]), metric="loss")["scores"]
    monkeypatch.setattr(found, "_trained", {})
    assert result.evaluate((X[:50], SIDE[:50]), metric="loss", model=nn.Linear(4, 2))["scores"] == here
    with torch.no_grad():
        wanted = loss(result.load(nn.Linear(4, 2))(X[:50]), SIDE[:50])
    assert here["loss"]["score"] == pytest.approx(float(wanted), rel=1e-5)


def test_a_model_of_transformers_is_made_again_from_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called by names, says a ModelOutput, computes its own loss, and loads where such models load."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3}
    config = BertConfig(**sizes, vocab_size=30, intermediate_size=16, max_position_embeddings=12)
    config.id2label = {0: "low", 1: "middle", 2: "high"}
    net = BertForSequenceClassification(config)
    tokens = torch.randint(1, 30, (120, 10), generator=torch.Generator().manual_seed(1))
    rows = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens[:, 0] % 3}
    result = run(tmp_path / "run", model=net, train=rows, budget="8 steps")
    said = result.outputs(rows)
    assert [each.output for each in result.predict(rows)] == [config.id2label[int(k)] for k in said.argmax(1)]
    assert torch.allclose(result.outputs({"input_ids": tokens}), said, atol=1e-6), "the mask may be left out"
    monkeypatch.setattr(found, "_trained", {})
    assert torch.equal(multistep.resume(tmp_path / "run", progress=False).outputs(rows), said)
    scores = result.evaluate(rows)["scores"]
    assert scores["loss"]["score"] == pytest.approx(float(F.cross_entropy(said, rows["labels"])), rel=1e-5)
    loaded: Any = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(tokens).logits, said, atol=1e-6)
