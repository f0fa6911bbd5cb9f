"""Several labels an image, and numbers: how each form is told, cut, scored and taken elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cases_images as images
import numpy as np
import pandas as pd
import pytest
import torch
from cases_images import SHAPES, picture, planned, png
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from multistep.core.evidence.metric import METRICS
from multistep.core.values.plan import DataSpec
from multistep.data.memory import keep
from multistep.errors import DataError, PlanError
from multistep.tasks.images.load import load_model
from multistep.tasks.images.splits import ImageSplits, load_splits, look_through
from multistep.tasks.images.task import ImageDomain, ImageWorkshop
from multistep.tasks.images.use import evaluate_model
from multistep.tasks.labelled.joined import separator_of
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.predicting import predict, predict_file
from multistep.tasks.prediction import Asked

SIXTY = 60


def load(source: Path | str, **more: Any) -> ImageSplits:
    return load_splits(look_through(DataSpec(source=str(source), **more)))


def draw(folder: Path, count: int = SIXTY) -> None:
    for i in range(count):
        Image.fromarray(picture(SHAPES[i % 3], np.random.default_rng(i))).save(folder / f"{i}.png")


def table(folder: Path, header: str, cells: Sequence[object]) -> Path:
    draw(folder, len(cells))
    lines = [f"image,{header}", *(f"{i}.png,{cell}" for i, cell in enumerate(cells))]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


def rows(found: ImageSplits) -> Counter[tuple[str, ...]]:
    """How many images of all splits have which labels."""
    return Counter(
        tuple(name for name, there in zip(found.classes, row, strict=True) if there)
        for part in (found.train, found.validation, found.test)
        for row in part.labels.tolist()
    )


# Told ------------------------------------------------------------------------------------------------

FORMS: dict[str, tuple[str, Sequence[object]]] = {
    "tags": ("tags", ["haze primary", "clear primary", "clear"]),
    "lists": ("label", ["\"['haze', 'primary']\"", "\"['clear', 'primary']\"", "['clear']"]),
    "bars": ("finding", ["haze|primary", "clear|primary", "clear"]),
    "columns": ("clear,haze,primary", ["0,1,1", "1,0,1", "1,0,0"]),
    "signs": ("clear,haze,primary", ["-1,1,1", "1,-1,1", "1,-1,-1"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_several_labels_are_told_in_every_form(form: str, tmp_path: Path) -> None:
    header, cells = FORMS[form]
    found = load(table(tmp_path, header, list(cells) * 20))
    assert (found.labels.kind, found.classes) == ("classes", ("clear", "haze", "primary"))
    assert rows(found) == {("haze", "primary"): 20, ("clear", "primary"): 20, ("clear",): 20}
    assert [len(part) for part in (found.train, found.validation, found.test)] == [42, 9, 9]
    for part in (found.validation, found.test):
        assert part.labels.sum(0).tolist() == [6.0, 3.0, 6.0], "by the rarest label of each image"
    assert "cut by rarest label into train 42, validation 9, test 9 images" in " ".join(found.notes)


def test_several_labels_of_data_in_memory(tmp_path: Path) -> None:
    shown = np.stack([picture(SHAPES[i % 3], np.random.default_rng(i)) for i in range(SIXTY)])
    names = [["haze", "primary"], ["clear", "primary"], []] * 20
    wanted = {("haze", "primary"): 20, ("clear", "primary"): 20, (): 20}
    frame = pd.DataFrame({"image": [Image.fromarray(each) for each in shown], "tags": names})
    for number, given in enumerate((frame, (shown, names))):
        found = load(keep("data", given, "image").put(tmp_path / str(number)))
        assert rows(found) == wanted
    hot = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]] * 20)
    assert rows(load(keep("data", (shown, hot), "image").put(tmp_path))) == {("1", "2"): 20, ("0", "2"): 20, (): 20}


def test_a_list_of_class_labels_of_a_hugging_face_set(tmp_path: Path) -> None:
    import datasets

    held = [{"bytes": png(Image.fromarray(picture("disc", np.random.default_rng(i)))), "path": None} for i in range(30)]
    label = datasets.Sequence(datasets.ClassLabel(names=["sea", "sky", "sun"]))
    features = datasets.Features({"image": datasets.Image(), "labels": label})
    made = datasets.Dataset.from_dict({"image": held, "labels": [[0, 2], [1], []] * 10}, features=features)
    made.save_to_disk(str(tmp_path / "set"))
    found = load(tmp_path / "set")
    assert found.classes == ("sea", "sky", "sun")
    assert rows(found) == {("sea", "sun"): 10, ("sky",): 10, (): 10}


@pytest.mark.parametrize(
    ("column", "labels", "sign"),
    [
        ("Target", ["16 0", "7 1 2 0", "5"], " "),
        ("labels", ["a", "a b", "b", "a b c", "c"], " "),
        ("labels", ["school bus", "bus", "fire truck", "truck"], None),
        ("label", ["red car", "blue car", "red bus", "blue bus", "bus", "car"], None),
        ("label", ["tench, Tinca tinca", "goldfish, Carassius auratus", "maillot", "maillot, tank suit"], None),
        ("label", ["cat,dog", "cat", "dog", "dog,horse", "cat,horse", "horse"], ","),
    ],
)
def test_names_of_two_words_are_no_two_labels(column: str, labels: list[str], sign: str | None) -> None:
    assert separator_of(labels, column) == sign


def test_what_an_empty_field_means_is_asked(tmp_path: Path) -> None:
    made = table(tmp_path, "tags", ["a b", "b", "a", ""] * 10)
    with pytest.raises(DataError, match=r"t.csv:5: 'tags' is empty; .* --set data.labels=classes if that means none"):
        load(made)
    assert rows(load(made, labels="classes")) == {("a", "b"): 10, ("b",): 10, ("a",): 10, (): 10}
    assert load(table(tmp_path, "tags", ["a b", "b", "a"] * 10), labels="class").classes == ("a", "a b", "b")


def test_numbers_are_told_and_cut_by_size(tmp_path: Path) -> None:
    found = load(table(tmp_path, "age", [f"{i + 0.5}" for i in range(SIXTY)]))
    assert found.labels == Labels("number")
    assert sorted(np.concatenate([found.train.labels, found.validation.labels, found.test.labels])) == [
        i + 0.5 for i in range(SIXTY)
    ]
    assert found.validation.labels.max() - found.validation.labels.min() > 40, "of all sizes"
    whole = table(tmp_path, "age", [20 + i % 30 for i in range(SIXTY)])
    found = load(whole)
    assert found.labels.kind == "number"
    assert "labels are 30 different whole numbers from 20 to 49, so they are to be predicted" in " ".join(found.notes)
    assert load(table(tmp_path, "turn", [3 * i - 90 for i in range(SIXTY)])).labels.kind == "number", "each stands once"
    whole = table(tmp_path, "kind", [20 + i % 30 for i in range(SIXTY)])
    said = " ".join(look_through(DataSpec(source=str(whole))).notes)
    assert "30 different whole numbers, taken for classes; to predict them as numbers, say --set data.labels=" in said
    with pytest.raises(DataError, match=r"at most 2 of one .* numbers to be predicted, say --set data.labels=number"):
        load(whole)
    assert load(whole, labels="number").labels.kind == "number"
    with pytest.raises(PlanError, match="class_weights is 'balanced', but the labels are numbers"):
        load(whole, labels="number", class_weights="balanced")
    with pytest.raises(DataError, match=r"160 different whole numbers; set data.labels to number"):
        load(table(tmp_path, "kind", [1000 + 7 * (i % 160) for i in range(480)]))
    ids = load(table(tmp_path, "class_id", [1 + i % 151 for i in range(604)]))
    assert len(ids.classes) == 151, "counted from 1 without a gap"
    for gap in ("nan", ""):
        with pytest.raises(DataError, match=rf"t.csv:3: the label '{gap}' is not a number; mend or remove the row"):
            load(table(tmp_path, "age", [20.5, gap, *[30.5] * 8]))


def test_numbers_of_arrays(tmp_path: Path) -> None:
    shown = np.stack([picture("disc", np.random.default_rng(i)) for i in range(20)])
    np.savez(tmp_path / "a.npz", images=shown, labels=np.linspace(-1.0, 1.0, 20))
    assert load(tmp_path / "a.npz").labels.kind == "number"
    np.savez(tmp_path / "a.npz", images=shown, labels=np.array([np.nan, *range(19)]))
    with pytest.raises(DataError, match=r"a.npz\[labels\]: label #0 \(from 0\) is nan"):
        load(tmp_path / "a.npz")


# Trained, scored, exported ----------------------------------------------------------------------------


def domain_of(data: DataSpec, model: dict[str, Any] | str = "resnet-18") -> ImageDomain:
    from multistep.backends.torch.learner import TorchLearner

    plan = planned(model, "x")
    learner, _ = ImageWorkshop().open(type(plan)(**{**vars(plan), "data": data}), 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    domain = learner._domain
    assert isinstance(domain, ImageDomain)
    return domain


@pytest.mark.parametrize("name", ["cnn", "swin"])
def test_a_number_is_exported_in_its_own_unit(name: str, tmp_path: Path) -> None:
    """Trained in deviations, the folder gives what was scored: through transformers, and when training goes on."""
    import multistep.hf  # noqa: F401

    data = images.write_numbers(tmp_path)
    domain = domain_of(data, images.small_swin(tmp_path / "begin") if name == "swin" else name)
    model = domain.build(0)
    with torch.no_grad():  # as if it had learnt something
        layer = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        layer.weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
        layer.bias.fill_(0.25)
    model.eval()
    with torch.inference_mode():
        table = domain.evaluate(model, "test", sample=False, device=torch.device("cpu"))
    said = table.columns["prediction"]
    assert 100 < said.mean() < 140
    assert said.std() > 0.01
    (tmp_path / "out").mkdir()
    domain.export(model, tmp_path / "out", "")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "value"})
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")  # type: ignore[no-untyped-call]
    net = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    shown = [Image.open(path) for path in images.table_inputs(tmp_path)]
    wanted = torch.tensor(table.columns["label"]).float()
    with torch.inference_mode():
        theirs = net(**processor(shown, return_tensors="pt"), labels=wanted)
    assert theirs.logits.shape == (20, 1)
    assert float(theirs.loss) == pytest.approx(METRICS["mean_squared_error"].score(table), rel=1e-3)
    np.testing.assert_allclose(theirs.logits[:, 0], said, atol=0.02)
    answer = pipeline("image-classification", str(tmp_path / "out"))(images.table_inputs(tmp_path)[0])
    assert answer[0]["score"] == pytest.approx(said[0], abs=0.02)
    on = domain_of(data, str(tmp_path / "out"))
    with torch.inference_mode():
        again = on.evaluate(on.build(1).eval(), "test", sample=False, device=torch.device("cpu"))
    np.testing.assert_allclose(again.columns["prediction"], said, atol=0.02)


def test_several_labels_are_exported_as_transformers_has_them(tmp_path: Path) -> None:
    import multistep.hf  # noqa: F401

    data = images.write_several(tmp_path)
    for name in ("cnn", "resnet-18"):
        domain = domain_of(data, name)
        model = domain.build(0).eval()
        with torch.no_grad():
            layer = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
            layer.weight.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(1))
        (tmp_path / name).mkdir()
        domain.export(model, tmp_path / name, "")
        with torch.inference_mode():
            table = domain.evaluate(model, "test", sample=False, device=torch.device("cpu"))
        first = images.table_inputs(tmp_path)[0]
        answer = {
            each["label"]: each["score"] for each in pipeline("image-classification", str(tmp_path / name))(first)
        }
        logits = np.array([table.columns[f"logit_{k}"][0] for k in range(3)])
        assert set(answer) == set(SHAPES)
        np.testing.assert_allclose([answer[name] for name in SHAPES], 1 / (1 + np.exp(-logits)), atol=1e-3)


@pytest.mark.parametrize("kind", ["several", "number"])
def test_a_baseline_says_of_files_what_was_scored(kind: str, tmp_path: Path) -> None:
    data = (images.write_several if kind == "several" else images.write_numbers)(tmp_path)
    domain = domain_of(data, "cnn")
    name, table = domain.baseline("test")
    assert name == f"{'logistic' if kind == 'several' else 'ridge'} regression on pixels"
    (tmp_path / "baseline").mkdir()
    assert domain.write_baseline(tmp_path / "baseline") == ""
    said = predict(str(tmp_path / "baseline"), images.table_inputs(tmp_path), Asked())
    agree = images.several_agree if kind == "several" else images.numbers_agree
    assert agree(said, table)
    mean = domain.splits.train.labels.mean()
    if kind == "number":
        assert METRICS["mean_squared_error"].score(table) < float(((domain.splits.test.labels - mean) ** 2).mean())
    again = evaluate_model(str(tmp_path / "baseline"), DataSpec(source=str(tmp_path / "test.csv")))
    assert all(np.allclose(again.columns[key], column) for key, column in table.columns.items())


def test_files_of_a_table_are_found_when_predicting_as_in_training(tmp_path: Path) -> None:
    """Ids without a suffix, below the table, in the folder that is called like it."""
    domain = domain_of(images.write_several(tmp_path), "cnn")
    (tmp_path / "out").mkdir()
    domain.export(domain.build(0), tmp_path / "out", "")
    (tmp_path / "test_ids.csv").write_text("id\n" + "".join(f"{i:03}\n" for i in range(5)) + "nowhere\n")
    asked = DataSpec(path_column="id")
    found = predict_file(
        str(tmp_path / "out"), [tmp_path / "test_ids.csv"], str(tmp_path / "p.csv"), asked, Asked(), done
    )
    assert (found.rows, found.without) == (6, 1)
    named = predict(str(tmp_path / "out"), images.table_inputs(tmp_path)[:5], Asked())
    table = pd.read_csv(tmp_path / "p.csv", dtype=str)
    np.testing.assert_allclose(table["probability"][:5].astype(float), [p.probability for p in named], atol=1e-6)
    assert table["prediction"].fillna("")[5] == ""


def done(_rows: int, _share: float | None) -> None:
    """Nobody watches."""


def test_a_head_for_classes_is_no_head_for_several_labels(tmp_path: Path) -> None:
    """Neither of the same size for another kind of labels, nor one for a number for two classes."""
    name = images.small_swin(tmp_path / "begin", SHAPES)
    maker, notes = load_model(name, Labels("classes", SHAPES), None)
    assert notes == [f"{name}: its classes are not those of the data, so its last layer is trained anew"]
    head = load_file(tmp_path / "begin/model.safetensors")["classifier.weight"]
    assert not torch.equal(maker.build(0).state_dict()["net.classifier.weight"], head)
    kept, notes = load_model(name, Labels("class", SHAPES[::-1]), None)
    assert (kept.labels.names, notes) == (SHAPES, [])


def test_the_loss_of_several_labels_is_that_of_each(tmp_path: Path) -> None:
    """And mixed images have a share of both losses."""
    domain = domain_of(images.write_several(tmp_path), "cnn")
    model = domain.build(0).eval()
    shown, labels, lots = domain.batch(0, 8, 0, torch.device("cpu"))
    assert labels.shape == (8, 3)
    total, count = domain.loss(model, (shown, labels, lots), 0.0)
    logits = model(shown.float())
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    assert int(count) == 8
    torch.testing.assert_close(total, each.sum())
