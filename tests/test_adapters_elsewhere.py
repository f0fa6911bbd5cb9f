"""Adapters of image and speech models that were pretrained: what is saved, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases_images import LARGER, SHAPES, opened, write_folders
from cases_speech import write as write_sounds
from safetensors.torch import load_file
from test_images_models import small_vit
from test_speech import tiny_wav2vec2
from torch import Tensor

from multistep.backends.torch.learner import TorchLearner
from multistep.core.values.recipe import Recipe
from multistep.engine.planfile import plan_from
from multistep.errors import PlanError
from multistep.tasks.speech.task import SpeechWorkshop

peft = pytest.importorskip("peft")
PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # which peft asks for


def small_resnet(folder: Path, classes: tuple[str, ...]) -> str:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, id2label=dict(enumerate(classes)))).save_pretrained(folder)
    return str(folder)


def trained(learner: Any, recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    """Train an adapter for a few steps, save it, load it again and export it; what was saved."""
    recipe = replace(recipe, adapter="lora", adapter_rank=2, learning_rate=1e-2, weight_decay=0.0, warmup_steps=0)
    learner.initial(recipe, 0)
    learner.advance([1e-2] * 4)
    (folder / "saved").mkdir()
    learner.save(folder / "saved")
    before = learner.evaluate("validation", sample=False).columns["loss"]
    learner.load(folder / "saved", recipe, 0)
    assert (learner.evaluate("validation", sample=False).columns["loss"] == before).all()
    (folder / "model").mkdir()
    learner.export(folder / "model", "")
    return {k.removeprefix("model."): v for k, v in load_file(folder / "saved" / "state.safetensors").items()}


@PEFT
def test_an_image_classifiers_adapter_is_loaded_by_peft(tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    write_folders(tmp_path / "images", {"train": 30, "val": 10, "test": 10}, LARGER)
    (tmp_path / "base").mkdir()
    source = small_vit(tmp_path / "base", ("cat", "dog"))
    learner, ready = opened(tmp_path / "images", source)
    tensors = trained(learner, ready.recipe, tmp_path)
    whole = [n for n in tensors if n.startswith("net.") and ".lora_" not in n]
    assert whole == ["net.classifier.bias", "net.classifier.weight"], "of the base nothing is in a checkpoint"
    assert any("q_proj.lora_A" in name for name in tensors)
    merged: Any = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    torch.manual_seed(0)
    base: Any = AutoModelForImageClassification.from_pretrained(
        source, num_labels=len(SHAPES), ignore_mismatched_sizes=True
    )
    pixels = torch.randn(3, 3, 12, 12)
    adapted: Any = peft.PeftModel.from_pretrained(base, str(tmp_path / "model" / "adapter")).eval()
    with torch.inference_mode():
        torch.testing.assert_close(adapted(pixels).logits, merged(pixels).logits, atol=1e-4, rtol=1e-4)


def test_a_model_of_convolutions_alone_gets_no_adapter(tmp_path: Path) -> None:
    write_folders(tmp_path / "images", {"train": 30, "val": 10, "test": 10}, LARGER)
    learner, ready = opened(tmp_path / "images", small_resnet(tmp_path / "base", ("cat", "dog")))
    with pytest.raises(PlanError, match=r"recipe.adapter: this model has no linear layer beside its head"):
        learner.initial(replace(ready.recipe, adapter="lora"), 0)


@PEFT
def test_a_speech_models_adapter_is_loaded_by_peft(tmp_path: Path) -> None:
    from transformers import AutoModelForCTC

    source = tiny_wav2vec2(tmp_path / "base", "ABCD")
    plan = plan_from(
        {
            "task": "speech-recognition",
            "data": write_sounds(tmp_path),
            "model": str(source),
            "budget": "4 steps",
            "recipe": {"batch_size": 4, "adapter": "lora"},
        }
    )
    learner, ready = SpeechWorkshop().open(plan, 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    tensors = trained(learner, ready.recipe, tmp_path)
    assert {name for name in tensors if name.startswith("wav2vec2.") and ".lora_" not in name} == set()
    merged: Any = AutoModelForCTC.from_pretrained(tmp_path / "model").eval()
    adapted: Any = AutoModelForCTC.from_pretrained(source)
    adapted = peft.PeftModel.from_pretrained(adapted, str(tmp_path / "model" / "adapter")).eval()
    sound = torch.randn(2, 4000)
    with torch.inference_mode():
        torch.testing.assert_close(adapted(sound).logits, merged(sound).logits, atol=1e-4, rtol=1e-4)
