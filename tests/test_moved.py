"""A run directory that goes elsewhere: another folder, another machine, its data elsewhere too."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cases_images
import cases_speech
import pytest
import torch
from runs import Killed, dies_at

from multistep import api
from multistep.core.values.events import Evaluated, TrialStarted
from multistep.engine.moved import going_on
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError
from multistep.tasks.begun import as_begun
from multistep.tasks.images.task import ImageWorkshop

STEPS = {"budget": "40 steps", "moves": [], "ship": "network", "recipe": {"batch_size": 16}}


def texts(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    words = {"good": ["fine", "lovely", "bright", "happy"], "bad": ["awful", "dark", "sad", "broken"]}
    for split, count in (("train", 120), ("validation", 40), ("test", 40)):
        rows = [
            f"{words[label][(i * 7 + seed) % 4]} thing number {i} of the {words[label][(i + seed) % 4]} {split},{label}"
            for i in range(count)
            for label in (("good", "bad")[i % 2],)
        ]
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


def begun(folder: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: type = Evaluated) -> Path:
    """A run that was killed, in `folder`/runs/one, by a plan whose paths are relative to `folder`."""
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        with pytest.raises(Killed):
            api.train(plan_from(content), out="runs/one", on_entry=dies_at(kind))
    return folder / "runs" / "one"


def mentions(folder: Path, name: str) -> list[str]:
    """The files of a run that name a place of before."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and name.encode() in p.read_bytes()]


CLASSES: dict[str, Any] = {"task": "text-classification", "data": "texts", "model": "cnn", **STEPS}
SPEECH: dict[str, Any] = {
    "task": "speech-recognition",
    "data": {},
    **STEPS,
    **cases_speech.SETTINGS,
    "budget": "20 steps",
}


@pytest.mark.parametrize("task", ["texts", "images", "speech"])
def test_a_project_that_is_moved_while_unfinished_goes_on_there(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tmp_path / "alices-machine", tmp_path / "bobs" / "machine"
    before.mkdir()
    if task == "texts":
        content, _ = CLASSES, texts(before / "texts")
    elif task == "images":
        cases_images.write(before)
        content = {"task": "image-classification", "data": "images", **STEPS, **cases_images.SETTINGS}
    else:
        cases_speech.write(before)
        data = {split: f"{split}.csv" for split in ("train", "validation", "test")}
        content = {**SPEECH, "data": data}
    with monkeypatch.context() as inside:
        inside.chdir(before)
        calm = api.train(plan_from(content), out=tmp_path / "calm" / "run")
    begun(before, content, monkeypatch)
    after.parent.mkdir()
    shutil.move(before, after)
    monkeypatch.chdir(tmp_path)
    result = api.resume(after / "runs" / "one")
    assert result.record["weights_sha256"] == calm.record["weights_sha256"]
    assert result.record["test"] == calm.record["test"]
    assert mentions(after / "runs" / "one", before.name) == []
    readers = {oct(p.stat().st_mode & 0o777) for p in result.model.rglob("*") if p.is_file()}
    assert len(readers) == 1, "the weights can be read by whoever can read the rest"
    assert api.evaluate(after / "runs" / "one" / "model", str(after / (task if task != "speech" else "test.csv")))


def test_data_that_lie_elsewhere_are_named_and_must_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    texts(home / "texts")
    run = begun(home, CLASSES, monkeypatch)
    calm_run = shutil.copytree(run, home / "runs" / "calm")
    with monkeypatch.context() as inside:
        inside.chdir(tmp_path)
        calm = api.resume(calm_run)
    moved = tmp_path / "server" / "run"
    moved.parent.mkdir()
    shutil.move(run, moved)
    shutil.move(home / "texts", tmp_path / "disk")
    shutil.rmtree(home)
    other = texts(tmp_path / "other", seed=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"its data are not at texts .*resume .*run --data NEWPATH"):
        api.resume(moved)
    with pytest.raises(PlanError, match=r"--data nowhere: no such file or folder"):
        api.resume(moved, data="nowhere")
    with pytest.raises(RunDirectoryError, match=r"the data of phase 1 changed since this run began"):
        api.resume(moved, data=other)
    with pytest.raises(RunDirectoryError, match=r"its data are not at texts"):
        api.resume(moved)  # what was others' data is not remembered
    with pytest.raises(Killed):
        api.resume(moved, data="disk", on_entry=dies_at(Evaluated))
    monkeypatch.chdir(tmp_path / "server")
    result = api.resume(moved)  # what was the same is
    assert result.record["weights_sha256"] == calm.record["weights_sha256"]
    assert "texts" in (moved / "plan.yaml").read_text(), "the plan stays as it was given"
    assert json.loads((moved / "resolved.json").read_text())["places"] == {"texts": str(tmp_path / "disk")}


def test_several_sources_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    texts(home / "texts")
    splits = {split: f"texts/{split}.csv" for split in ("train", "validation", "test")}
    run = begun(home, {**CLASSES, "data": splits}, monkeypatch)
    shutil.move(home / "texts", tmp_path / "disk")
    train = tmp_path / "disk" / "train.csv"
    with pytest.raises(PlanError, match=r"this run reads texts/train.csv, .*--data texts/train.csv="):
        api.resume(run, data=train)
    with pytest.raises(RunDirectoryError, match=r"--data texts/validation.csv=NEWPATH"):
        api.resume(run, data={"texts/train.csv": train})
    directory = RunDirectory(run)
    with going_on(directory, [str(tmp_path / "disk")]):
        assert directory.places == {old: str(tmp_path / "disk" / Path(old).name) for old in splits.values()}


def test_a_net_is_as_wide_as_the_machine_bore_where_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases_images.write(tmp_path)
    content = {"task": "image-classification", "data": "images", "budget": "9s", "moves": [], "ship": "network"}
    run = begun(tmp_path, content, monkeypatch, TrialStarted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    monkeypatch.chdir(tmp_path)
    plan = plan_from(content)

    def parameters() -> int:
        return ImageWorkshop().open(plan, 0, lambda: False)[1].facts.parameters

    wide = parameters()
    with as_begun(RunDirectory(run).began_on, {}):
        assert parameters() < wide, "the machine makes a difference to the size"
    monkeypatch.chdir(os.sep)
    result = api.resume(run)
    assert result.record["parameters"] < wide


@pytest.mark.parametrize(("precision", "products"), [("auto", True), ("float32", False)])
def test_a_run_that_was_begun_on_a_gpu_goes_on_on_a_cpu_and_says_what_changes(
    precision: str, products: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts(tmp_path / "texts")
    run = begun(tmp_path, {**CLASSES, "recipe": {"batch_size": 16, "precision": precision}}, monkeypatch)
    calm = shutil.copytree(run, tmp_path / "runs" / "calm")
    resolved = json.loads((run / "resolved.json").read_text())
    for key in ("versions", "began_on"):
        resolved[key] |= {"device": "NVIDIA H100", "device_type": "cuda"}
    understood = resolved["phases"][0]["facts"]["understood"]
    understood["precision"] = "bfloat16" if products else understood["precision"]
    (run / "resolved.json").write_text(json.dumps(resolved))
    monkeypatch.chdir(tmp_path)
    same = api.resume(calm)
    assert "this run began on" not in caplog.text
    went_on = api.resume(run)
    assert went_on.record["weights_sha256"] == same.record["weights_sha256"], "its sizes and its data are the same"
    (said,) = [r.getMessage() for r in caplog.records if "this run began on" in r.getMessage()]
    assert "this run began on NVIDIA H100 (cuda) and goes on on" in said
    assert ("products are computed in 32-bit instead of bfloat16" in said) == products
    assert json.loads((run / "resolved.json").read_text())["began_on"]["device"] == "NVIDIA H100"


def test_another_models_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    cases_images.write(home)
    model = cases_images.small_swin(home / "swin", cases_images.SHAPES)
    content = {"task": "image-classification", "data": "images", "model": "./swin", **STEPS}
    run = begun(home, content, monkeypatch)
    shutil.move(model, tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match=r"its model is not at ./swin .*--model NEWPATH"):
        api.resume(run)
    assert api.resume(run, model=tmp_path / "elsewhere").record["steps"] > 0
