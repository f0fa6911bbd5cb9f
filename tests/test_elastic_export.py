"""What goes to Elasticsearch: the same answers from what is uploaded, and refused where it cannot give them.

Where ELAND_PYTHON names a Python that has eland[pytorch], eland itself loads, traces and uploads the folders.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from elastic_server import Elastic, elastic

from multistep import api
from multistep.errors import PlanError
from multistep.exports.elastic_models import going
from multistep.exports.order import Order
from multistep.tasks.folders import write_task
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.language.load import classifier, masked_model, new_encoder
from multistep.tasks.language.tokenizer import make_tokenizer

elasticsearch = pytest.importorskip("elasticsearch", reason="the official client is not installed")
pytest.importorskip("jsonschema", reason="the loopback server checks requests by JSON Schemas")

TEXTS = [f"Review number {i} of the film is {['Größe', 'café', 'fine', 'dull'][i % 4]}, really" for i in range(60)]
TRIED = ["A FILM of Größe, 12!", "e", "An awful, awful bore " * 20]
NLI = ("entailment", "neutral", "contradiction")


def model(folder: Path, kind: str = "class", names: tuple[str, ...] = ("good", "not-good"), **settings: Any) -> Path:
    """A tiny BERT with drawn weights, as a run writes one."""
    tokens = settings.get("tokens", "wordpiece")
    tokenizer = make_tokenizer(TEXTS, tokens, 400)
    if settings.get("strips"):
        from tokenizers import normalizers

        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    encoder = new_encoder(tokenizer, layers=2, width=32, heads=2, context=settings.get("context", 64))
    masked = kind == "mask"
    labels = Labels("number") if kind == "number" else Labels("classes" if kind == "classes" else "class", names)
    head = masked_model(encoder) if masked else classifier(encoder, labels, Scale())
    module: Any = head.build(0)
    with torch.no_grad():  # answers that are far from even
        (module.cls.predictions.bias if masked else module.classifier.weight).normal_(0, 2)
    folder.mkdir()
    head.write(module, folder)
    about: dict[str, Any] = {"context": encoder.context, "columns": {"text_column": "body"}}
    if not masked:
        about |= {"labels": labels.kind, "names": list(labels.names), "pairs": settings.get("pairs", False)}
    about |= {"calibration": {"temperature": 1.7}} if settings.get("hot") else {}
    write_task(folder, "fill-mask" if masked else "text-classification", about)
    return folder


def client_of(server: Elastic) -> Any:
    return elasticsearch.Elasticsearch(f"http://{server.url}")


def test_what_is_uploaded_says_what_the_model_says(tmp_path: Path) -> None:
    import elastic as script

    own = model(tmp_path / "model", hot=True)
    folder = api.export(own, tmp_path / "export", to="elasticsearch", hub_model_id="Me/Reviews")
    assert {path.name for path in folder.iterdir()} >= {
        "vocab.txt",
        "config.json",
        "model.safetensors",
        "pipeline.json",
    }
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"--hub-model-id {folder} --es-model-id me__reviews --task-type text_classification --start" in readme
    with elastic() as server:
        client = client_of(server)
        name = script.upload(client, folder)
        said = script.asked(client, folder, name, [{"body": text} for text in TRIED])
        for each, mine in zip(said, api.predict(own, TRIED), strict=True):
            assert each["predicted_value"] == mine.output.replace("-", "_")
            assert each["prediction_probability"] == pytest.approx(mine.probability, abs=1e-6)
            assert each["model_id"] == "me__reviews"
        script.remove(client, name)
        client.close()
        assert (server.models, server.pipelines) == ({}, {})
        assert server.wrong == []


@pytest.mark.slow
def test_the_script_for_a_real_server_passes_against_the_loopback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import elastic as script

    monkeypatch.delenv("ELAND_PYTHON", raising=False)
    with elastic(key="secret") as server:
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", "secret")
        assert script.main(f"http://{server.url}") == 0
        assert (server.models, server.pipelines, server.indices) == ({}, {}, {})
        assert server.wrong == []
    assert "its pipeline says of 20 documents what multistep says" in capsys.readouterr().out


def test_pairs_are_entailment_or_one_score(tmp_path: Path) -> None:
    nli = model(tmp_path / "nli", names=NLI, pairs=True, strips=True)
    folder = api.export(nli, tmp_path / "to-nli", to="elasticsearch", hub_model_id="nli")
    about = json.loads((folder / "elasticsearch.json").read_text())
    assert about["inference_config"]["zero_shot_classification"]["classification_labels"] == list(NLI)
    twice = model(tmp_path / "same", names=("duplicate", "not_duplicate"), pairs=True, strips=True)
    found = api.export_to(twice, tmp_path / "to-same", to="elasticsearch", hub_model_id="same")
    assert "the score of text_similarity is the log-odds of 'duplicate' against 'not_duplicate'" in found.notes
    assert json.loads((found.folder / "config.json").read_text())["id2label"] == {"0": "LABEL_0"}
    assert "text_similarity_reranker" in (found.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "classes"}, "says several labels at once"),
        ({"kind": "number"}, "says a number of a text, for which Elasticsearch has no task"),
        ({"names": ("a", "b", "c"), "pairs": True}, "tells 3 classes of pairs"),
        ({"tokens": "bpe"}, "its tokenizer is byte-pair encoding, and Elasticsearch reads"),
        ({"names": NLI, "pairs": True}, "puts labels into a sentence that begins with a capital"),
    ],
)
def test_what_elasticsearch_cannot_say_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    own = model(tmp_path / "model", **settings)
    with pytest.raises(PlanError, match=said):
        api.export(own, tmp_path / "export", to="elasticsearch", hub_model_id="name")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_names_and_tasks_that_cannot_be_are_refused(tmp_path: Path) -> None:
    own = model(tmp_path / "model")

    def refused(task: str | None = None, **given: Any) -> str:
        if task is not None:
            write_task(own, task, {})
        with pytest.raises(PlanError) as caught:
            api.export(own, tmp_path / "export", **{"to": "elasticsearch", **given})
        return str(caught.value)

    assert "--hub-model-id NAME" in refused()
    assert "allowed: NAME or OWNER/NAME" in refused(hub_model_id="a b")
    assert "goes to Elasticsearch for text_classification, not fill_mask" in refused(
        hub_model_id="n", task_type="fill_mask"
    )
    assert "are for --to elasticsearch" in refused(to="onnx", hub_model_id="n")
    assert "is for image-classification; Elasticsearch runs models that classify, fill in" in refused(
        "image-classification", hub_model_id="n"
    )


def test_a_model_that_reads_too_little_for_eland_is_uploaded_as_it_was_traced(tmp_path: Path) -> None:
    own = model(tmp_path / "model", kind="mask", context=8)
    found = api.export_to(own, tmp_path / "export", to="elasticsearch", hub_model_id="mask")
    assert any(note.startswith("eland cannot trace it: its sample has") for note in found.notes)
    line = next(line for line in (found.folder / "README.md").read_text().splitlines() if line.startswith("python -c "))
    compile(shlex.split(line)[2], "README.md", "exec")


def test_eland_loads_traces_and_uploads_them(tmp_path: Path) -> None:
    python = os.environ.get("ELAND_PYTHON")
    if not python or shutil.which(python) is None:
        pytest.skip("ELAND_PYTHON names no Python that has eland[pytorch]")
    kinds: list[tuple[dict[str, Any], str | None]] = [
        ({"hot": True}, None),
        ({"names": NLI, "pairs": True, "strips": True}, None),
        ({"names": ("no", "yes"), "pairs": True}, None),
        ({"kind": "number", "pairs": True, "strips": True}, None),
        ({"kind": "mask"}, None),
        ({"kind": "mask", "strips": True}, "text_embedding"),
    ]
    jobs, gone = [], []
    with elastic() as server:
        for number, (settings, task_type) in enumerate(kinds):
            own = model(tmp_path / f"model{number}", **settings)
            name = f"model-{number}"
            more: dict[str, Any] = {"hub_model_id": name, "task_type": task_type}
            folder = api.export(own, tmp_path / name, to="elasticsearch", **more)
            task = "fill-mask" if settings.get("kind") == "mask" else "text-classification"
            going_there = going(Order(str(own), str(own), task, task_type=task_type))
            lowers = not settings.get("strips")
            texts: list[Any] = [text.lower() if lowers else text for text in TRIED]
            if going_there.paired:
                texts = [[text, texts[(i + 1) % 3]] for i, text in enumerate(texts[:2])]
            command = ["--url", f"http://{server.url}", "--hub-model-id", str(folder), "--es-model-id", name]
            command += ["--task-type", json.loads((folder / "elasticsearch.json").read_text())["task_type"], "--start"]
            jobs.append({"folder": str(folder), "texts": texts, "command": command})
            gone.append((going_there, folder))
        (tmp_path / "jobs.json").write_text(json.dumps(jobs))
        script = Path(__file__).with_name("eland_loads.py")
        away = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, str(script), str(tmp_path / "jobs.json"), str(tmp_path / "said.json")],
            capture_output=True,
            text=True,
            check=False,
            env=away,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert server.wrong == []
        assert server.deployed == {f"model-{number}" for number in range(len(kinds))}
    said = json.loads((tmp_path / "said.json").read_text())
    for number, ((going_there, folder), job, theirs) in enumerate(zip(gone, jobs, said["models"], strict=True)):
        mine = json.loads((folder / "traced" / "config.json").read_text())
        assert theirs["config"]["inference_config"] == mine["inference_config"]
        assert theirs["vocabulary"] == json.loads((folder / "traced" / "vocabulary.json").read_text())
        assert server.vocabularies[f"model-{number}"] == theirs["vocabulary"]["vocabulary"]
        for text, row in zip(job["texts"], theirs["rows"], strict=True):
            reads = going_there.tokenizer
            reads.enable_truncation(going_there.context)
            read = reads.encode(*text) if isinstance(text, list) else reads.encode(text)
            assert read.ids == row["ids"]
            ids = torch.tensor([read.ids])
            with torch.no_grad():
                ours = going_there.ours((ids, torch.ones_like(ids), torch.tensor([read.type_ids]), torch.arange(0)))
            torch.testing.assert_close(torch.tensor(row["outputs"]), ours[0], rtol=0, atol=1e-4)
