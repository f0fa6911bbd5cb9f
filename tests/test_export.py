"""What a run ships as an ONNX graph: the same answers where there is no torch, and refused where they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import cases_images
import cases_language
import numpy as np
import pytest
import torch
from cases_export import say, started_once  # noqa: F401
from test_hf import net_of_texts, tales, trained

import multistep
from multistep import api
from multistep.engine.planfile import plan_from
from multistep.errors import PlanError
from multistep.exports import onnx

pytest.importorskip("onnx", reason="needs multistep[onnx]")
pytest.importorskip("onnxscript", reason="needs multistep[onnx]")
runtime = pytest.importorskip("onnxruntime", reason="needs multistep[onnx]")
pytestmark = [pytest.mark.usefixtures("started_once"), pytest.mark.filterwarnings("ignore")]  # the exporter's own


def about(folder: Path) -> Any:
    return json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model folder of a net that says several labels, and its graph."""
    folder = tmp_path_factory.mktemp("several")
    model = net_of_texts("classes", folder)
    return model, api.export(Path(model).parent, folder / "graph", to="onnx")


@pytest.mark.parametrize("kind", ["classes", "number", pytest.param("pairs", marks=pytest.mark.slow)])
def test_nets_of_texts_say_the_same_without_torch(kind: str, several: tuple[str, Path], tmp_path: Path) -> None:
    model, folder = several
    if kind != "classes":
        model = net_of_texts(kind, tmp_path)
        folder = api.export(Path(model).parent, tmp_path / "graph", to="onnx")
    row = tales(kind)[8]
    texts = [row["text"], *([row["second"]] if kind == "pairs" else [])]
    (wanted,) = api.predict(model, [json.dumps(texts) if kind == "pairs" else texts[0]])
    told = say(folder, *texts)
    if kind == "number":
        assert told["value"] == pytest.approx(float(wanted.output), rel=1e-4)
    else:
        assert told == pytest.approx(dict(wanted.others), abs=1e-5)
    assert about(folder)["checked"]["largest_difference"] < 1e-4


def test_an_encoder_has_its_tokenizer_beside_it_and_int8_is_scored(tmp_path: Path) -> None:
    result = trained("text-classification", tmp_path, _Encoder, 20)
    found = api.export_to(result.folder, to="onnx", quantize=True)
    assert callable(multistep.export)  # and no package of that name, which an import would put in its place
    assert found.folder == Path(result.folder) / "onnx"
    assert found.megabytes["model-int8.onnx"] < found.megabytes["model.onnx"]
    held = {name: each["score"] for name, each in found.scores.items()}
    assert held["accuracy"] == result.evaluate(tmp_path / "validation.csv")["scores"]["accuracy"]["score"]
    assert found.quantized["accuracy"]["n"] == cases_language.SIZES["validation"]
    text = "a lovely film from the first to the last minute"
    assert say(found.folder, text) == pytest.approx(dict(result.predict([text])[0].others), abs=1e-5)


class _Encoder:
    write = staticmethod(cases_language.write_classes)
    SETTINGS: ClassVar[dict[str, Any]] = {
        **cases_language.SETTINGS,
        "model": {"name": "bert", "layers": 1, "width": 32, "vocabulary": 300},
    }


def test_a_net_of_images_reads_files_as_predict_does(tmp_path: Path) -> None:
    result = trained("image-classification", tmp_path, cases_images, 4)
    folder = api.export(result.folder, tmp_path / "graph", to="onnx")
    for path in cases_images.inputs(tmp_path)[:3]:
        assert say(folder, path) == pytest.approx(dict(result.predict([path])[0].others), abs=1e-5)
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    (pixels,) = session.get_inputs()
    assert pixels.shape[0] == "batch"
    assert len(session.run(None, {"pixels": np.zeros((11, *pixels.shape[1:]), np.float32)})[0]) == 11


def test_a_graph_that_says_something_else_is_refused_and_leaves_nothing(
    several: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = several

    def off(graph: Any, path: Path) -> None:
        shutil.copyfile(folder / "model.onnx", path)
        with torch.no_grad():
            graph.module.module.head.bias.add_(3e-3)

    monkeypatch.setattr(onnx, "to_onnx", off)
    with pytest.raises(PlanError, match=r"'logits' differs by 0\.00[123].*0\.0001 is allowed; nothing was written"):
        api.export(Path(model).parent, tmp_path / "graph", to="onnx")
    assert not list(tmp_path.glob("*graph*"))


def test_what_has_no_graph_is_said(several: tuple[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(several[0], tmp_path / "model")
    with pytest.raises(PlanError, match="to is 'tflite'; allowed: onnx"):
        api.export(model, tmp_path / "graph", to="tflite")
    with pytest.raises(PlanError, match="name some with --data FILE"):
        api.export(model, tmp_path / "graph", to="onnx")


@pytest.mark.slow
def test_conversations_are_answered_by_the_same_words(tmp_path: Path) -> None:
    import cases_chat
    from test_chat_runs import planned

    (tmp_path / "begin").mkdir()
    begin = cases_chat.small_llama(tmp_path / "begin")
    plan = planned(cases_chat.write(tmp_path), begin, budget="20 steps", moves=[], **cases_chat.SETTINGS)
    result = api.train(plan, out=tmp_path / "run")
    found = api.export_to(result.folder, to="onnx", quantize=True)
    assert found.difference < 1e-4
    loss = result.evaluate(tmp_path / "validation.jsonl")["scores"]["loss"]["score"]
    assert found.scores["loss"]["score"] == pytest.approx(loss, rel=1e-4)
    prompt = cases_chat.inputs(tmp_path)[0]
    assert say(found.folder, prompt, "12")["text"] == str(result.predict([prompt], tokens=12)[0].output)


@pytest.mark.parametrize("net", ["deepspeech", pytest.param("wavenet", marks=pytest.mark.slow)])
def test_a_net_of_speech_hears_samples_and_features_are_in_the_graph(net: str, tmp_path: Path) -> None:
    import cases_speech

    data = cases_speech.write(tmp_path)
    content = {"task": "speech-recognition", "data": data, "budget": "6 steps", "moves": [], "ship": "network"}
    plan = plan_from({**content, **cases_speech.SETTINGS, "model": {"name": net, "layers": 2, "width": 16}})
    result = api.train(plan, out=tmp_path / "run")
    found = api.export_to(result.folder, tmp_path / "graph", to="onnx")
    assert found.difference < 1e-4
    assert isinstance(say(found.folder, cases_speech.inputs(tmp_path)[0])["text"], str)


def test_a_module_of_ones_own_is_exported_by_examples_of_its_inputs(tmp_path: Path) -> None:
    from test_own_use import Two, named, run

    result = run(tmp_path / "run", model=Two(), train=named(0, 200), budget="10 steps")
    found = api.export_to(result.folder, tmp_path / "graph", to="onnx", data=named(0, 9))
    assert found.difference < 1e-4
    session = runtime.InferenceSession(str(found.folder / "model.onnx"))
    given = {name: tensor.numpy() for name, tensor in named(20, 27).items() if name != "label"}
    (logits,) = session.run(["logits"], given)
    assert logits == pytest.approx(result.outputs(named(20, 27)).numpy(), abs=1e-5)
    with pytest.raises(PlanError, match=r"known by examples alone.*data=INPUTS"):
        api.export(result.folder, tmp_path / "other", to="onnx")
    with pytest.raises(PlanError, match="there is no score"):
        api.export(result.folder, tmp_path / "other", to="onnx", data=named(0, 9), quantize=True)
    assert not (tmp_path / "other").exists()


def test_the_page_shows_the_script_that_is_written() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    script = Path(onnx.__file__).with_name("scripts") / "encoder.py"
    assert script.read_text(encoding="utf-8") in page
