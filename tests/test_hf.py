"""Nets from nothing load where people load models, in a process that never trained: the same answers everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cases_images
import cases_speech
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from multistep import api
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.tasks.language import nets
from multistep.tasks.speech.audio import read_samples
from multistep.tasks.speech.decode import best_path
from multistep.tasks.speech.use import load_recognizer


def trained(task: str, folder: Path, case: Any, steps: int, **settings: Any) -> api.Result:
    data = case.write(folder)
    content = {"task": task, "data": data, "ship": "network", "budget": f"{steps} steps", "moves": [], **case.SETTINGS}
    return api.train(plan_from(content | settings), out=folder / "run")


def fresh(script: str, **given: object) -> Any:
    """What a script prints as JSON in a process of its own;"""
    code = f"import json, sys\ngiven = json.loads(sys.argv[1])\n{script}"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Texts ----------------------------------------------------------------------------------------------

TEXTS = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
import multistep.hf
every = []
for run, texts in zip(given["runs"], given["texts"]):
    model, found = AutoModelForSequenceClassification.from_pretrained(run, output_loading_info=True)
    assert not any(map(found.get, ("missing_keys", "unexpected_keys", "mismatched_keys"))), found
    tokenizer = AutoTokenizer.from_pretrained(run)
    with torch.inference_mode():
        logits = model.eval()(**tokenizer(*texts, padding=True, return_tensors="pt")).logits
    model.save_pretrained(run + ".copy"); tokenizer.save_pretrained(run + ".copy")
    classify = pipeline("text-classification", model=run + ".copy")
    pairs = [dict(zip(("text", "text_pair"), row)) for row in zip(*texts)]
    told = classify(pairs, top_k=None, batch_size=3, truncation=True)
    every.append({"logits": logits.double().tolist(), "told": told, "labels": model.config.id2label})
print(json.dumps(every))
"""
PLEASED = ("good", "warm", "bright", "dear")
CROSS = ("bad", "cold", "dull", "sour")
KINDS = {"class": "bag", "classes": "cnn", "pairs": "cnn", "number": "bag"}


def tales(kind: str) -> list[dict[str, Any]]:
    """Rows with one label, several, a number, or of a pair of texts."""
    rows: list[dict[str, Any]] = []
    for i in range(120):
        words = [(PLEASED, CROSS)[(i + k) % 2][(i * 7 + k) % 4] for k in range(1 + i % 9)]
        row: dict[str, Any] = {"text": f"A {' '.join(words)} tale, no. {i} [UNK] isn't it?"}
        share = sum(word in PLEASED for word in words) / len(words)
        row["label"] = "pleased" if share >= 0.5 else "cross"
        if kind == "classes":
            row["label"] = [side for side, there in (("up", share > 0), ("down", share < 1)) if there]
        elif kind == "number":
            row["label"] = 40 + 3.5 * share + i / 300
        elif kind == "pairs":
            row["second"] = " ".join(PLEASED[: i % 4 + 1])
        rows.append(row)
    return rows


def net_of_texts(kind: str, folder: Path) -> str:
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tales(kind)))
    data: dict[str, Any] = {"source": str(path), "text_column": "text", "label_column": "label"}
    data |= {"second_text_column": "second"} if kind == "pairs" else {}
    data |= {"labels": "number"} if kind == "number" else {}
    content = {"task": "text-classification", "model": KINDS[kind], "ship": "network", "budget": "20 steps"}
    return str(api.train(plan_from({**content, "data": data, "moves": []}), out=folder / kind).model)


@pytest.mark.slow
def test_text_nets_from_nothing_are_the_same_in_transformers(tmp_path: Path) -> None:
    runs = {kind: net_of_texts(kind, tmp_path) for kind in KINDS}
    texts = [row["text"] for row in tales("pairs")[:7]] + ["~", "\u4f60\u597d zebra"]
    seconds = [row["second"] for row in tales("pairs")[:7]] + ["x", "good"]
    given = [[texts, seconds] if kind == "pairs" else [texts] for kind in KINDS]
    for (kind, run), found in zip(runs.items(), fresh(TEXTS, runs=list(runs.values()), texts=given), strict=True):
        pairs = [list(pair) for pair in zip(texts, seconds, strict=True)]
        told = api.predict(run, pairs if kind == "pairs" else texts)
        assert api.predict(f"{run}.copy", pairs if kind == "pairs" else texts) == told, (
            "what transformers saved is ours"
        )
        logits = torch.tensor(found["logits"], dtype=torch.float64)
        if kind == "number":
            assert logits[:, 0].tolist() == pytest.approx([float(each.output) for each in told], rel=1e-5)
            assert [row[0]["score"] for row in found["told"]] == pytest.approx(logits[:, 0].tolist(), rel=1e-6)
            continue
        shares = logits.sigmoid() if kind == "classes" else logits.softmax(1)
        for row, ours, theirs in zip(shares.tolist(), told, found["told"], strict=True):
            wanted = dict(ours.others)
            assert {found["labels"][str(k)]: share for k, share in enumerate(row)} == pytest.approx(wanted, abs=1e-6)
            assert {one["label"]: one["score"] for one in theirs} == pytest.approx(wanted, abs=1e-6)


def test_what_a_net_says_of_a_text_does_not_depend_on_its_batch() -> None:
    net = nets.initialise(nets.make(nets.TextNetConfig(nets.CNN, 2, 50, 0, 16)), 0).eval()
    with torch.no_grad():
        torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(0))
        for name, tensor in net.named_parameters():
            if name.startswith("filters") and name.endswith("bias"):
                tensor.fill_(2.0)
        ids = torch.tensor([[7, 9, 4]])
        alone, padded = (
            net(ids, ids * 0),
            net(torch.cat((ids, ids.new_zeros(1, 9)), 1), torch.zeros(1, 12, dtype=torch.long)),
        )
    assert torch.allclose(alone, padded, atol=1e-6)


# Images ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    trained("image-classification", folder, cases_images, 30)
    return folder


IMAGES = """
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
from PIL import Image
before = pipeline("image-classification", model=given["other"])(given["paths"][0])
import multistep.hf
after = pipeline("image-classification", model=given["other"])(given["paths"][0])
assert before == after and len(before) == 2, "models of other makers are touched"
classify = pipeline("image-classification", model=given["model"])
every = classify(given["paths"], top_k=3)
batched = classify(given["paths"], top_k=3, batch_size=4)
opened = classify([Image.open(path) for path in given["paths"]], top_k=3)
processor = AutoImageProcessor.from_pretrained(given["model"])
model, found = AutoModelForImageClassification.from_pretrained(given["model"], output_loading_info=True)
with torch.inference_mode():
    logits = model(**processor([Image.open(path) for path in given["paths"]], return_tensors="pt")).logits
model.save_pretrained(given["copy"]); processor.save_pretrained(given["copy"])
again = pipeline("image-classification", model=given["copy"])(given["paths"], top_k=3)
lacking = {key: sorted(map(str, found[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
print(json.dumps({"every": every, "batched": batched, "opened": opened, "again": again, "lacking": lacking,
    "softmax": logits.softmax(-1).tolist(), "labels": model.config.id2label}))
"""


@pytest.mark.slow
def test_an_image_net_from_nothing_is_the_same_in_transformers(images: Path) -> None:
    from transformers import ViTImageProcessor

    paths = cases_images.inputs(images)[::4]
    picture = Image.open(paths[0])
    odd = {"clear.png": picture.convert("RGBA"), "turned.jpg": picture.resize((30, 17)), "deep.png": None}
    holes = np.array(odd["clear.png"])
    holes[:6, :, 3] = 40
    odd["clear.png"] = Image.fromarray(holes)
    odd["deep.png"] = Image.fromarray((np.arange(144, dtype=np.uint16) * 440).reshape(12, 12))
    for name, image in odd.items():
        assert image is not None
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "turned.jpg" else 1
        image.save(images / name, exif=exif)
        paths.append(str(images / name))
    run = images / "run"
    told = api.predict(run / "model", paths)
    assert len({p.output for p in told}) > 1, "a net that always says the same shows nothing"
    other = cases_images.small_swin(images / "swin")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(other)
    found = fresh(IMAGES, model=str(run / "model"), copy=str(images / "copy"), paths=paths, other=other)
    assert not any(found["lacking"].values())
    for way in ("every", "batched", "opened", "again"):
        assert [row[0]["label"] for row in found[way]] == [p.output for p in told], way
        for row, prediction in zip(found[way], told, strict=True):
            assert {one["label"]: one["score"] for one in row} == pytest.approx(dict(prediction.others), abs=1e-5), way
    rows = [{found["labels"][str(i)]: value for i, value in enumerate(row)} for row in found["softmax"]]
    assert all(row == pytest.approx(dict(p.others), abs=1e-5) for row, p in zip(rows, told, strict=True))
    # And back: what transformers saved is a model folder of ours.
    back = api.predict(images / "copy", paths)
    assert [p.others for p in back] == [pytest.approx(dict(p.others), abs=1e-6) for p in told]


def test_net_py_alone_reads_the_folder(images: Path) -> None:
    script = """
import runpy, torch
net = runpy.run_path(given["model"] + "/net.py")
model = net["load"](given["model"])
assert not any(name.partition(".")[0] in ("multistep", "transformers") for name in sys.modules)
print(json.dumps(model(torch.full((1, 3, 12, 12), 100.0)).softmax(-1).tolist()))
"""
    path = images / "even.png"
    Image.new("RGB", (12, 12), (100, 100, 100)).save(path)
    (told,) = api.predict(images / "run" / "model", [path])
    assert max(fresh(script, model=str(images / "run" / "model"))[0]) == pytest.approx(told.probability, abs=1e-5)


# Speech ---------------------------------------------------------------------------------------------


SPEECH = """
import multistep.hf, torch, soundfile
from transformers import AutoModelForCTC, AutoProcessor, AutoTokenizer, pipeline
recognize = pipeline("automatic-speech-recognition", model=given["model"])
every = recognize(given["paths"])
batched = recognize(given["paths"], batch_size=3)
read = [soundfile.read(path, dtype="float32") for path in given["paths"]]
raw = recognize([{"raw": samples, "sampling_rate": rate} for samples, rate in read[:6]])
read = read[:5]  # of one rate
tokenizer = AutoTokenizer.from_pretrained(given["model"])
processor = AutoProcessor.from_pretrained(given["model"])
model, found = AutoModelForCTC.from_pretrained(given["model"], output_loading_info=True)
with torch.inference_mode():
    inputs = processor([samples for samples, _ in read], sampling_rate=read[0][1], return_tensors="pt")
    logits = model(**inputs).logits
    loss = []
    for (samples, rate), text in zip(read, given["texts"]):
        one = processor(samples, sampling_rate=rate, return_tensors="pt")
        loss.append(model(**one, labels=torch.tensor([tokenizer(text).input_ids])).loss.item())
best = processor.batch_decode(logits.argmax(-1))
timed = recognize(given["paths"][0], return_timestamps="char")
model.save_pretrained(given["copy"]); processor.save_pretrained(given["copy"])
again = pipeline("automatic-speech-recognition", model=given["copy"])(given["paths"])
lacking = {key: sorted(map(str, found[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
print(json.dumps({"every": every, "batched": batched, "raw": raw, "again": again, "best": best, "loss": loss,
    "timed": timed, "lacking": lacking, "class": type(processor).__name__}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [{"name": "wavenet", "layers": 3, "width": 32}, {"name": "deepspeech", "layers": 1, "width": 32}]
)
def test_a_speech_net_from_nothing_is_the_same_in_transformers(model: Mapping[str, Any], tmp_path: Path) -> None:
    steps = 120 if model["name"] == "wavenet" else 30
    result = trained("speech-recognition", tmp_path, cases_speech, steps, model=model)
    paths = cases_speech.inputs(tmp_path)[:5]
    samples, rate = soundfile.read(paths[0], dtype="float32")
    soundfile.write(tmp_path / "faster.flac", np.repeat(samples, 2), 2 * rate)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, 0.5 * samples], 1), rate)
    paths += [str(tmp_path / "faster.flac"), str(tmp_path / "stereo.wav")]
    told = api.predict(result.model, paths)
    texts, sure = [p.output for p in told], [p.probability for p in told]
    if model["name"] == "wavenet":
        assert len(set(texts)) > 2, "a net that writes nothing shows nothing"
    found = fresh(SPEECH, model=str(result.model), copy=str(tmp_path / "copy"), paths=paths, texts=texts)
    assert not any(found["lacking"].values())
    assert found["class"] == "MultistepSpeechProcessor"
    for way, count in (("every", 7), ("batched", 7), ("raw", 6), ("again", 7)):
        assert [one["text"] for one in found[way]] == texts[:count], way
        assert [one["probability"] for one in found[way]] == pytest.approx(sure[:count], abs=1e-5), way
    spelt = [(nats, p) for nats, text, p in zip(found["loss"], texts, sure, strict=False) if text]
    assert [np.exp(-nats) for nats, _ in spelt] == pytest.approx([p for _, p in spelt], abs=1e-5)
    recognizer = load_recognizer(str(result.model))
    maker = recognizer.maker
    for path, best in zip(paths, found["best"], strict=False):
        frames = torch.from_numpy(maker.frontend(read_samples(Path(path), recognizer.rate))).float()
        with torch.inference_mode():
            logits, _ = maker.logits(recognizer.model, frames[None], torch.tensor([len(frames)]))
        assert best == maker.alphabet.decode(best_path(logits[0].log_softmax(-1).numpy(), maker.alphabet))
    assert "".join(chunk["text"] for chunk in found["timed"]["chunks"]) == found["timed"]["text"]
    assert api.predict(tmp_path / "copy", paths) == told


def test_the_files_beside_the_weights_are_what_the_configs_write(images: Path, tmp_path: Path) -> None:
    """They are written without transformers, and must be what its classes would write."""
    from transformers import AutoConfig

    import multistep.hf

    written = json.loads((images / "run" / "model" / "config.json").read_text())
    config = AutoConfig.from_pretrained(images / "run" / "model")
    assert isinstance(config, multistep.hf.MultistepImageConfig)
    config.save_pretrained(tmp_path)
    own = json.loads((tmp_path / "config.json").read_text())
    assert {key: own[key] for key in written} == written
    assert set(own) - set(written) <= {"transformers_version"}
    assert api.read_result(RunDirectory(images / "run")).ships == "network"
