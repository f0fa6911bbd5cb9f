"""What a run ships as a SavedModel of TensorFlow: the same answers, for inputs of any size."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import cases_images
import cases_speech
import numpy as np
import pytest
import torch
from cases_export import say, started_once  # noqa: F401
from test_hf import net_of_texts, tales, trained
from torch import nn

from multistep import api
from multistep.engine.planfile import plan_from
from multistep.errors import PlanError

for needed in ("tensorflow", "onnx", "onnxscript"):
    if importlib.util.find_spec(needed) is None:  # to import TensorFlow takes seconds
        pytest.skip(f"needs multistep[tensorflow]: {needed} is not installed", allow_module_level=True)
pytestmark = [pytest.mark.usefixtures("started_once"), pytest.mark.filterwarnings("ignore")]


def called(folder: Path, **given: Any) -> dict[str, Any]:
    import tensorflow as tf

    model = tf.saved_model.load(str(folder / "model" / "1"))
    call = model.signatures["serving_default"]
    return {name: each.numpy() for name, each in call(**{k: tf.constant(v) for k, v in given.items()}).items()}


def test_nets_of_texts_say_the_same_without_torch_and_those_of_images_take_any_number(tmp_path: Path) -> None:
    model = net_of_texts("pairs", tmp_path)
    found = api.export_to(Path(model).parent, tmp_path / "graph", to="tensorflow")
    assert found.difference < 1e-4
    row = tales("pairs")[8]
    (wanted,) = api.predict(model, [[row["text"], row["second"]]])
    assert say(found.folder, row["text"], row["second"]) == pytest.approx(dict(wanted.others), abs=1e-5)
    with pytest.raises(PlanError, match="int8 is for --to onnx"):
        api.export(model, tmp_path / "other", to="tensorflow", quantize=True)
    (tmp_path / "shown").mkdir()
    result = trained("image-classification", tmp_path / "shown", cases_images, 4)
    shown = api.export_to(result.folder, tmp_path / "images", to="tensorflow")
    assert shown.difference < 1e-4
    assert called(shown.folder, pixels=np.zeros((11, 3, 12, 12), np.float32))["logits"].shape[0] == 11


def test_recurrent_layers_hear_recordings_of_any_length(tmp_path: Path) -> None:
    data = cases_speech.write(tmp_path)
    content = {"task": "speech-recognition", "data": data, "budget": "6 steps", "moves": [], "ship": "network"}
    plan = plan_from({**content, **cases_speech.SETTINGS, "model": {"name": "deepspeech", "layers": 2, "width": 16}})
    found = api.export_to(api.train(plan, out=tmp_path / "run").folder, to="tensorflow")
    assert found.difference < 1e-4
    assert found.folder == tmp_path / "run" / "tensorflow"
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 9_000)).astype(np.float32)
    assert called(found.folder, samples=sound, lengths=np.array([9_000, 3_000]))["steps"].tolist() == [57, 19]


class Odd(nn.Module):
    """Of operators that encoders have, and the one that is given."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1, groups=2), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.first(x))
        return found.flatten(1).mean(1, keepdim=True).clamp(-1, 1)


def test_what_tensorflow_says_is_checked_and_what_is_not_translated_is_named(tmp_path: Path) -> None:
    import multistep
    from multistep.exports import tf_operators

    def run(last: nn.Module, name: str) -> str:
        x = torch.randn(40, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        data = {"x": x, "y": x.mean((1, 2, 3))[:, None]}
        result = multistep.train(
            model=Odd(last), loss="mse", train=data, validation=data, budget="4 steps", out=tmp_path / name, moves=[]
        )
        found = multistep.export(result.folder, tmp_path / f"{name}.graph", to="tensorflow", data=x[:9])
        return str(found)

    shutil.rmtree(run(nn.MaxPool2d(2, padding=1), "pool"))
    with pytest.raises(PlanError, match=r"Odd has no form in TensorFlow here: the operators HardSwish.*--to onnx"):
        run(nn.Hardswish(), "odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tf_operators.OPERATORS, "Clip", lambda at, x, *ends: x + 0.003)
        with pytest.raises(PlanError, match=r"the TensorFlow graph .*'output' differs by 0\.003.*nothing was written"):
            run(nn.MaxPool2d(2, padding=1), "wrong")
    assert not list(tmp_path.glob("*.graph"))
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
