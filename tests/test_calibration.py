"""Temperatures and thresholds: found on a validation table, measured on another, folded into what is exported."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_images import picture
from rich.console import Console
from torch import nn

from multistep import api
from multistep.core.evidence.calibration import (
    HALF,
    at_threshold,
    calibrate,
    fit_temperature,
    reliability,
)
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.engine.calibrated import _sentence
from multistep.engine.clock import BudgetClock
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import PlanError
from multistep.report.check import print_scores
from multistep.report.table import print_run
from multistep.tasks.calibrated import fold
from multistep.tasks.classes import class_rows, class_table
from multistep.tasks.labelled.score import several_table

Spread = Callable[[int, int], Evaluation]


def overconfident(rows: int, seed: int, *, times: float = 3.0, classes: int = 4) -> Evaluation:
    """Labels that are drawn by some logits, and a model that says these logits times as loud."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(rows, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return class_table([class_rows(logits * times, labels)])


def rare(rows: int, seed: int) -> Evaluation:
    """Two classes, the second one of 12 rows, told apart with some error."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(rows, generator=generator) < 1 / 12).long()
    told = labels * 2.0 - 3.5 + torch.randn(rows, generator=generator)
    return class_table([class_rows(torch.stack((torch.zeros(rows), told), 1), labels)])


def several(rows: int, seed: int) -> Evaluation:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(rows, 3, generator=generator) < 0.2).double()
    logits = 2.0 * labels - 2.5 + 0.8 * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)
    return several_table(labels.numpy(), (logits > 0).double().numpy(), loss.numpy(), logits)


def test_the_temperature_is_found_and_helps_on_rows_that_it_was_not_found_on() -> None:
    for times in (0.5, 1.0, 3.0):
        validation, test = (overconfident(3000, seed, times=times) for seed in (1, 2))
        temperature = fit_temperature(validation)
        assert temperature == pytest.approx(times, rel=0.06)
        before, after = reliability(test, 1.0), reliability(test, temperature)
        assert before.nll == pytest.approx(METRICS["loss"].score(test), rel=1e-5), "at 1 it is the loss"
        if times != 1.0:
            assert after.nll < before.nll - 0.02
            assert after.ece < 0.5 * before.ece
    assert fit_temperature(overconfident(3000, 5, times=1.004)) in (1.0, pytest.approx(1.0, abs=0.06))


def test_a_split_without_a_mistake_makes_nobody_infinitely_sure() -> None:
    logits = torch.eye(4).repeat(25, 1) * 6.0
    table = class_table([class_rows(logits, logits.argmax(1))])
    assert fit_temperature(table) == 1.0, "a mistake in 101 is thought possible, and the logits say one in 200"
    assert fit_temperature(class_table([class_rows(logits / 4, logits.argmax(1))])) == pytest.approx(0.27, abs=0.01)


def test_a_nearly_clean_split_does_not_make_the_next_mistake_dear() -> None:
    """As on 252 photographs with one mistake: the fit alone was 0.27, and test went from 0.11 nats to 0.27."""
    generator = torch.Generator().manual_seed(0)

    def table(rows: int, mistakes: tuple[float, ...]) -> Evaluation:
        logits = torch.zeros(rows, 4)
        logits[:, 0] = 3.0 + 4.0 * torch.rand(rows, generator=generator)
        logits[: len(mistakes), 0] = -torch.tensor(mistakes)
        return class_table([class_rows(logits, torch.zeros(rows, dtype=torch.long))])

    found = fit_temperature(table(252, (0.3,)))
    assert 0.6 < found <= 1.0
    test = table(304, (0.9, 1.3, 2.1, 8.0))
    assert reliability(test, found).nll < reliability(test, 1.0).nll + 0.03


def test_the_calibration_error_is_that_of_a_count_by_hand() -> None:
    sure = np.array([0.9, 0.9, 0.9, 0.6, 0.6])
    right = np.array([1, 1, 0, 1, 0])
    logits = torch.from_numpy(np.log(np.stack((sure, 1 - sure), 1)))
    table = class_table([class_rows(logits, torch.from_numpy(1 - right))])
    expected = 3 / 5 * abs(0.9 - 2 / 3) + 2 / 5 * abs(0.6 - 0.5)
    assert reliability(table, 1.0).ece == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("made", "metric"), [(rare, "macro_f1"), (several, "micro_f1"), (several, "macro_f1")])
def test_a_threshold_is_chosen_by_what_decides_and_pays_on_other_rows(made: Spread, metric: str) -> None:
    validation, test = made(2500, 1), made(2500, 2)
    found = calibrate(validation, metric)
    assert found is not None
    assert found.threshold is not None
    assert (found.threshold.by, found.threshold.used) == (metric, True)
    assert found.threshold.value < HALF
    there, half = (METRICS[metric].score(at_threshold(test, found, cut)) for cut in (found.cut, HALF))
    assert half == pytest.approx(METRICS[metric].score(test)), "at 0.5 nothing is said that was not scored"
    assert there > half + 0.03


def test_decided_by_the_loss_or_without_a_sure_gain_the_classes_are_said_as_they_were_scored() -> None:
    by_loss = calibrate(rare(2500, 1), "loss")
    assert by_loss is not None
    assert by_loss.threshold is not None
    assert (by_loss.threshold.by, by_loss.threshold.used, by_loss.cut) == ("macro_f1", False, HALF)
    by_chance = [calibrate(overconfident(800, seed, classes=2), "accuracy") for seed in range(8)]
    moved = sum(found is not None and found.cut != HALF for found in by_chance)
    assert moved <= 1, "however loud: where the order of probabilities is right, accuracy is best at 0.5"
    unsure = calibrate(overconfident(60, 3, classes=2, times=1.0), "macro_f1")
    assert unsure is not None
    assert unsure.cut == HALF
    three = calibrate(overconfident(200, 3, classes=3), "macro_f1")
    assert three is not None
    assert three.threshold is None
    assert calibrate(Evaluation({"loss": np.ones(3), "count": np.ones(3), "block": np.arange(3.0)}), "loss") is None


def test_folding_is_exact_or_undone() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    before = net(x)
    assert fold(net, 2.5, 3, lambda: net(x))
    assert torch.allclose(net(x) * 2.5, before, atol=1e-6)
    residual = nn.Linear(6, 6)
    kept = residual.weight.clone()
    assert not fold(residual, 2.5, 6, lambda: residual(x) + x), "the last layer is not all of the logits"
    assert torch.equal(residual.weight, kept)


# Whole runs -------------------------------------------------------------------------------------------


def write_rare(folder: Path, misled: float = 0.12) -> str:
    """Remarks of which few are rude, most of those told by one word, which is in some of the others too."""
    generator = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    with (folder / "rare.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["remark", "rude"])
        for _ in range(1500):
            rude = generator.random() < 0.1
            text = list(generator.choice(words, 6))
            if generator.random() < (0.8 if rude else misled):
                text.insert(int(generator.integers(6)), "blockhead")
            writer.writerow([" ".join(text), "yes" if rude else "no"])
    return str(folder / "rare.csv")


def run(folder: Path, content: dict[str, Any], steps: int) -> api.Result:
    length = {"phases": [{"name": "only", "until": f"{steps} steps"}]}
    plan = plan_from({"ship": "network", **content, **length})
    return api.run(plan, RunDirectory(folder / "run"), clock=BudgetClock(FakeClock().now))


def test_the_score_at_the_threshold_stands_beside_the_one_at_a_half_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run compares is at 0.5; what predict and evaluate say is at the threshold. Both are named."""
    rows = Path(write_rare(tmp_path)).read_text(encoding="utf-8").splitlines()
    splits = {"train": rows[1:801], "validation": rows[801:1301], "test": rows[1301:]}
    for name, part in splits.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([rows[0], *part]), encoding="utf-8")
    data = {name: str(tmp_path / f"{name}.csv") for name in splits}
    recipe = {"batch_size": 32, "learning_rate": 0.01}
    content = {"task": "text-classification", "data": data, "model": "bag", "metric": "macro_f1", "recipe": recipe}
    result = run(tmp_path, content, 60)
    threshold = result.record["calibration"]["threshold"]
    assert threshold["used"]
    at = threshold["test"]
    again = api.evaluate(result.folder, data["test"])
    scored = again["scores"]["macro_f1"]
    assert again["threshold"] == threshold["value"]
    assert result.test is not None
    assert result.test.score == pytest.approx(at["at_half"]) == scored["at_half"]
    assert scored["score"] == pytest.approx(at["at_threshold"]) == result.score != result.test.score
    assert (scored["low"], scored["high"]) == pytest.approx((at["low"], at["high"]))
    assert "at_half" not in again["scores"]["loss"]
    name, value = f"above {threshold['value']:.2f}", f"{at['at_threshold']:.3f}"
    assert re.search(rf"^  {name} +{value} .*as predict and evaluate say labels", repr(result), re.MULTILINE)
    capsys.readouterr()
    print_run(RunDirectory(result.folder), Console(width=160))
    assert re.search(rf"^  {name} +{value} .*as predict and evaluate say labels", capsys.readouterr().out, re.MULTILINE)
    api.write_report(result.folder)
    page = result.report.read_text(encoding="utf-8")
    assert f"labels {name}, as predict says them" in page
    print_scores(again)
    assert re.search(rf"macro F1.*{value}.*{at['at_half']:.3f}", capsys.readouterr().out)


def test_the_folder_of_a_run_says_calibrated_probabilities_and_labels_at_the_threshold(tmp_path: Path) -> None:
    data = write_rare(tmp_path)
    recipe = {"batch_size": 32, "learning_rate": 0.01}
    content = {"task": "text-classification", "data": data, "model": "bag", "metric": "macro_f1", "recipe": recipe}
    result = run(tmp_path, content, 60)
    found = result.record["calibration"]
    about = json.loads((result.model / "multistep.json").read_text(encoding="utf-8"))["calibration"]
    assert (about["temperature"], about["folded"]) == (found["temperature"], True)
    assert found["threshold"]["used"]
    assert found["test"]["after"]["nll"] < found["test"]["before"]["nll"]
    assert found["sentence"].endswith("with a threshold of 0.5.")
    with Path(data).open(encoding="utf-8", newline="") as file:
        texts = [row["remark"] for row in csv.DictReader(file)][:40]
    said = api.predict(result.model, texts)
    cut = found["threshold"]["value"]
    assert [p.output for p in said] == ["yes" if p.others["yes"] > cut else "no" for p in said]
    assert {p.output for p in said} == {"yes", "no"}
    assert [p.output for p in api.predict(result.model, texts, threshold=1.0)] == ["no"] * 40
    import runpy

    # The folder's own file, which knows nothing of temperatures.
    net = runpy.run_path(str(result.model / "net.py"))["load"](str(result.model))
    alone = [float(net(*net.read(text)).detach().softmax(-1)[0, 1]) for text in texts]
    assert alone == pytest.approx([p.others["yes"] for p in said], abs=1e-5)
    about["folded"] = False
    path = result.model / "multistep.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**whole, "calibration": about}), encoding="utf-8")
    again = [p.others["yes"] for p in api.predict(result.model, texts)]
    logit = np.log(np.array(alone)) - np.log1p(-np.array(alone))
    assert again == pytest.approx(1 / (1 + np.exp(-logit / about["temperature"])), abs=1e-5), "else it is divided here"
    path.write_text(json.dumps({**whole, "calibration": {"threshold": {"used": True}}}), encoding="utf-8")
    with pytest.raises(PlanError, match=r"multistep.json: damaged, what it says of the calibration is no such"):
        api.predict(result.model, texts)


def test_a_baseline_that_ships_has_its_own_threshold(tmp_path: Path) -> None:
    content = {"task": "text-classification", "data": write_rare(tmp_path, 0.03), "model": "cnn", "metric": "macro_f1"}
    recipe = {"batch_size": 32, "learning_rate": 1e-9}
    result = run(tmp_path, {**content, "recipe": recipe, "ship": "auto"}, 2)
    assert result.ships == "baseline"
    found = result.record["calibration"]
    assert found["of"] == "baseline"
    about = json.loads((result.model / "multistep.json").read_text(encoding="utf-8"))
    assert about["calibration"]["temperature"] == found["temperature"]
    assert about["columns"] == {"text_column": "remark", "label_column": "rude"}
    said = api.predict(tmp_path / "run", ["w1 blockhead w2", "w1 w2 w3"])
    assert [p.output for p in said] == ["yes", "no"]
    if found["threshold"]["used"]:
        score = api.evaluate(tmp_path / "run", str(tmp_path / "rare.csv"))["scores"]["macro_f1"]["score"]
        assert score > found["threshold"]["test"]["at_half"]


def test_images_are_folded_too_and_a_threshold_is_refused_for_more_than_two(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for shape in ("disc", "bars", "stripes"):
        (tmp_path / "images" / shape).mkdir(parents=True)
        for i in range(30):
            noise = generator.integers(-90, 91, (12, 12, 3))
            pixels = np.clip(picture(shape, generator, 12).astype(int) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"images/{shape}/{i}.png")
    names = sorted(path.relative_to(tmp_path) for path in (tmp_path / "images").rglob("*.png"))
    rows = [f"{name},{name.parent.name},{name.stem}.png" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["shot,kind,image", *rows]) + "\n", encoding="utf-8")
    content = {
        "task": "image-classification",
        "data": {"source": str(tmp_path / "list.csv"), "path_column": "shot", "label_column": "kind"},
        "model": {"name": "resnet-small", "width": 8},
        "recipe": {"batch_size": 16},
    }
    result = run(tmp_path, content, 10)
    found = result.record["calibration"]
    assert json.loads((result.model / "multistep.json").read_text())["calibration"]["folded"]
    assert found["threshold"] is None
    assert found["validation"]["after"]["nll"] < found["validation"]["before"]["nll"]
    with pytest.raises(PlanError, match=r"threshold is 0.3, but .* tells 3 classes apart; a threshold is for two"):
        api.predict(result.model, [tmp_path / "images/disc/0.png"], threshold=0.3)
    assert api.evaluate(result.model, str(tmp_path / "images"))["examples"] == 90
    done = api.predict_file(result.model, tmp_path / "list.csv", tmp_path / "out.jsonl")
    assert (done.rows, done.without) == (90, 0)
    assert "list.csv: image file from 'shot' (of 'shot', 'kind', 'image'), as in training" in caplog.text


def test_what_is_left_as_it_is_is_not_said_to_be_best() -> None:
    """Of rows that are all right, a colder temperature is better on them; a mistake would cost more than that."""
    columns = {"label": np.ones(30), "logit_0": np.zeros(30), "logit_1": np.full(30, np.log(50.0))}
    table = Evaluation({**columns, "prediction": np.ones(30), "block": np.arange(30.0)})
    assert fit_temperature(table) == 1.0
    assert reliability(table, 0.8).nll < reliability(table, 1.0).nll
    measures = {"before": {"ece": 0.09, "nll": 0.1}, "after": {"ece": 0.09, "nll": 0.1}}
    record = {"of": "network", "temperature": 1.0, "validation": measures, "threshold": None}
    assert "no temperature makes them better by more than one further mistake would cost" in _sentence(record)
