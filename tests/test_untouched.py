"""The model before training is scored first: what did training bring, and was it worth it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_command_line import multistep
from test_text_models import maker

TEXT = "".join(f"The river number {i % 7} runs through valley {i % 11} to the sea. " for i in range(2500))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    made = maker("llama", num_key_value_heads=1)
    made.write(made.build(0), tmp_path / "base")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "base"


def trained(folder: Path, base: Path, **settings: Any) -> dict[str, Any]:
    more = [f"--set=recipe.{key}={value}" for key, value in settings.items()]
    what = ["--task", "text-generation", "--data", str(folder / "text.txt"), "--model", str(base)]
    multistep(folder, "train", *what, "--budget", "60 steps", "--out", "run", *more)
    found: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return found


def test_what_training_brought_stands_beside_the_baseline(tmp_path: Path, base: Path) -> None:
    found = trained(tmp_path, base)
    assert found["trials"][0]["kind"] == "base"
    assert found["trials"][0]["steps"] == 0
    assert found["base"]["leads"] is False
    assert found["base"]["validation"]["score"] == pytest.approx(5.7, abs=0.1)  # the logarithm of 300: it knew nothing
    gain = found["base"]["test"]["gain"]
    assert gain["improvement"] == pytest.approx(found["base"]["test"]["score"] - found["test"]["score"], abs=1e-6)
    assert gain["low"] > 0.5
    shown = multistep(tmp_path, "show", "run")
    assert "before training" in shown
    assert "Training made the model better by" in shown


def test_a_model_that_training_makes_worse_is_left_as_it_was(tmp_path: Path, base: Path) -> None:
    found = trained(tmp_path, base, learning_rate=100.0, warmup_steps=0)
    assert found["leader"]["trial"] == "0.base"
    assert found["base"]["leads"] is True
    assert "Chosen: the model as it was before training" in found["leader"]["sentence"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "model"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
