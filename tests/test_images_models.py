"""Image classifiers of transformers: heads kept or drawn, chance that repeats, folders that others load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases_images import LARGER, RECIPE, SHAPES, accuracy, opened, small_swin, write_folders
from safetensors.torch import load_file, save_file

from multistep import api
from multistep.engine.learner import Readiness
from multistep.engine.planfile import plan_from
from multistep.errors import PlanError
from multistep.tasks.images.decode import Form
from multistep.tasks.images.load import load_model
from multistep.tasks.images.task import ImageWorkshop
from multistep.tasks.labelled.labels import Labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    write_folders(made, {"train": 30, "val": 10, "test": 10}, LARGER)
    return made


def small_vit(folder: Path, classes: tuple[str, ...]) -> str:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "image_size": 12, "patch_size": 4}
    ViTForImageClassification(ViTConfig(**sizes, id2label=dict(enumerate(classes)))).save_pretrained(folder)
    processor: dict[str, Any] = {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def test_a_standard_resnet_is_exported_as_transformers_has_it(folder: Path, tmp_path: Path) -> None:
    learner, ready = opened(folder, "resnet-18")
    assert ready.facts.parameters > 11e6
    learner.initial(replace(RECIPE, optimizer="sgd", batch_size=45), 0)
    learner.advance([0.02])
    table = learner.evaluate("test", sample=False)
    learner.export(tmp_path, "card")
    from transformers import pipeline

    files = sorted((folder / "test").rglob("*.png"))
    said = pipeline("image-classification", str(tmp_path))([str(file) for file in files[::7]])
    for answer, row in zip(said, range(0, len(files), 7), strict=True):
        assert answer[0]["label"] == SHAPES[int(table.columns["prediction"][row])]
        assert answer[0]["score"] == pytest.approx(table.columns["probability"][row], abs=1e-3)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["ResNetForImageClassification"]


def test_any_classifier_of_transformers_keeps_its_head_where_it_knows_the_classes(folder: Path, tmp_path: Path) -> None:
    name = small_vit(tmp_path, SHAPES[::-1])
    learner, ready = opened(folder, name)
    assert ready.facts.pretrained
    assert ready.facts.able, "it is scored before it is trained"
    assert not ready.rate_open
    assert "resolution" not in ready.facts.settings
    learner.initial(ready.recipe, 0)
    domain: Any = learner._domain
    assert domain.splits.classes == SHAPES[::-1]
    assert domain.splits.form == Form(3, 12, 12)
    model: Any = learner._model
    torch.testing.assert_close(model.mean.flatten(), torch.full((3,), 127.5))
    scores = api.evaluate(name, str(folder / "test"))["scores"]
    assert scores["accuracy"]["score"] == pytest.approx(accuracy(learner.evaluate("test", sample=False)))
    with pytest.raises(
        PlanError, match=r"recipe.resolution: this vit has learnt positions, so it reads images of 12 x"
    ):
        learner.initial(replace(ready.recipe, resolution=(8, 12)), 0)


def test_a_head_for_other_classes_begins_anew(folder: Path, tmp_path: Path) -> None:
    learner, ready = opened(folder, small_vit(tmp_path, ("cat", "dog")))
    assert not ready.facts.able
    assert any(
        "its classes are not those of the data, so its last layer is trained anew" in n for n in ready.facts.notes
    )
    learner.initial(ready.recipe, 0)
    learner.advance([1e-3] * 2)
    assert len(learner.evaluate("test", sample=False)) == 30
    (tmp_path / "out").mkdir()
    learner.export(tmp_path / "out", "")
    assert load_model(str(tmp_path / "out"), None, None)[0].labels.names == SHAPES


def test_a_head_that_begins_anew_is_drawn_from_the_seed(tmp_path: Path) -> None:
    name, drawn = small_vit(tmp_path, ("cat", "dog")), []
    for global_seed, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(global_seed)
        drawn.append(load_model(name, Labels("class", SHAPES), None)[0].build(seed).state_dict())
        assert torch.initial_seed() == global_seed
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])
    assert [key for key in drawn[0] if not torch.equal(drawn[0][key], drawn[2][key])] == ["net.classifier.weight"]
    assert drawn[0]["net.classifier.weight"].std() == pytest.approx(0.02, rel=0.3)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({key: weights[key] for key in weights if "classifier" not in key}, tmp_path / "model.safetensors")
    with pytest.raises(PlanError, match=r"the weights of classifier\.\w+ are missing, so it cannot classify yet"):
        load_model(name, None, None)


def test_layers_that_are_left_out_by_lot_are_so_again(folder: Path, tmp_path: Path) -> None:
    """Stochastic depth is no dropout by the recipe; its lots follow from the step, whatever was drawn before."""
    learner, ready = opened(folder, small_swin(tmp_path / "swin", SHAPES))
    (tmp_path / "saved").mkdir()
    learner.initial(ready.recipe, 0)
    learner.advance([1e-2] * 2)
    learner.save(tmp_path / "saved")
    learner.advance([1e-2] * 2)
    straight = {key: tensor.clone() for key, tensor in learner._model.state_dict().items()}
    torch.manual_seed(17)
    learner.load(tmp_path / "saved", ready.recipe, 0)
    learner.advance([1e-2] * 2)
    assert all(torch.equal(straight[key], tensor) for key, tensor in learner._model.state_dict().items())
    learner.load(tmp_path / "saved", ready.recipe, 1)
    learner.advance([1e-2] * 2)
    assert any(not torch.equal(straight[key], tensor) for key, tensor in learner._model.state_dict().items())


def test_fine_tuning_begins_from_a_linear_probe(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "made"))
    (tmp_path / "model").mkdir()
    torch.manual_seed(0)
    name = small_vit(tmp_path / "model", ("cat", "dog"))

    def begun(**recipe: Any) -> tuple[Any, Readiness]:
        plan = plan_from(
            {"task": "image-classification", "data": str(folder), "model": name, "budget": "10m", "recipe": recipe}
        )
        return ImageWorkshop().open(plan, 0, lambda: False)

    learner, ready = begun(head="linear-probe")
    assert ready.facts.able
    assert any("begins as a linear probe: logistic regression on frozen features of 90" in n for n in ready.facts.notes)
    learner.initial(ready.recipe, 0)
    assert accuracy(learner.evaluate("validation", sample=False)) > 0.4, "of three shapes, before any training"
    (tmp_path / "out").mkdir()
    learner.export(tmp_path / "out", "")
    from transformers import pipeline

    files = sorted((folder / "test").rglob("*.png"))
    table = learner.evaluate("test", sample=False)
    said = pipeline("image-classification", str(tmp_path / "out"))([str(file) for file in files[::7]])
    for answer, row in zip(said, range(0, len(files), 7), strict=True):
        assert answer[0]["score"] == pytest.approx(table.columns["probability"][row], abs=1e-3)
    assert not begun()[1].facts.able, "of ninety images a probe says little, unless it is asked for"
