"""Try an Elasticsearch server: read an index, upload a classifier, have its pipeline ask it, compare the answers.

python bench/elastic.py URL, with ELASTICSEARCH_API_KEY (cluster privileges manage_ml, manage_ingest_pipelines; all on
indices multistep-try-*) and ELASTICSEARCH_CA_CERTS where they are needed. Where ELAND_PYTHON names a Python that has
eland[pytorch] of the server's major version, eland's own program uploads, else the official client uploads what was
traced here. What it makes there it removes. `make elasticsearch` runs it with ELASTICSEARCH_URL.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
PART = 4 * 2**20  # bytes of a model's definition that are sent at once
WORDS = {"good": ("fine", "lovely", "Größe", "great"), "bad": ("dull", "poor", "café", "awful")}


def reviews(count: int = 120) -> dict[str, dict[str, Any]]:
    """Documents whose topic one word gives away."""
    kinds = list(WORDS)
    return {
        f"r{i:04}": {
            "body": f"Review number {i} of the Film is {WORDS[kinds[i % 2]][i // 2 % 4]}{' indeed' * (i % 5)}",
            "about": {"topic": kinds[i % 2]},
        }
        for i in range(count)
    }


def upload(client: Any, folder: Path) -> str:
    """Upload the traced model of an exported folder and start it; returns its id."""
    name = str(json.loads((folder / "elasticsearch.json").read_text(encoding="utf-8"))["model_id"])
    traced = folder / "traced"
    client.ml.put_trained_model(model_id=name, **json.loads((traced / "config.json").read_text(encoding="utf-8")))
    model = (traced / "traced_pytorch_model.pt").read_bytes()
    parts = [model[start : start + PART] for start in range(0, len(model), PART)]
    for number, part in enumerate(parts):
        client.ml.put_trained_model_definition_part(
            model_id=name,
            part=number,
            definition=base64.b64encode(part).decode(),
            total_definition_length=len(model),
            total_parts=len(parts),
        )
    vocabulary = json.loads((traced / "vocabulary.json").read_text(encoding="utf-8"))
    client.ml.put_trained_model_vocabulary(model_id=name, **vocabulary)
    client.options(request_timeout=120).ml.start_trained_model_deployment(
        model_id=name, wait_for="started", timeout="100s"
    )
    return name


def asked(client: Any, folder: Path, name: str, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the folder's ingest pipeline on the server, and what it makes of documents."""
    body = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
    client.ingest.put_pipeline(id=name, **body)
    said = client.ingest.simulate(id=name, docs=[{"_source": document} for document in documents])
    target = next(step["inference"]["target_field"] for step in body["processors"] if "inference" in step)
    found = []
    for each in said["docs"]:
        at = each["doc"]["_source"]
        for part in target.split("."):
            at = at[part]
        found.append(dict(at))
    return found


def remove(client: Any, name: str) -> None:
    """Remove a model and its pipeline, as far as they are there."""
    quiet = client.options(ignore_status=[404, 400])
    quiet.ingest.delete_pipeline(id=name)
    quiet.ml.stop_trained_model_deployment(model_id=name, force=True)
    quiet.ml.delete_trained_model(model_id=name)


def main(url: str) -> int:
    """Returns how many of the steps failed."""
    from elasticsearch import Elasticsearch, helpers

    import multistep
    from multistep import api
    from multistep.data.elastic import fetched

    secrets: dict[str, Any] = {}
    if key := os.environ.get("ELASTICSEARCH_API_KEY"):
        secrets["api_key"] = key
    if url.startswith("https") and (certs := os.environ.get("ELASTICSEARCH_CA_CERTS")):
        secrets["ca_certs"] = certs
    client = Elasticsearch(url, request_timeout=60, **secrets)
    print(f"{url}: Elasticsearch {client.info()['version']['number']}")
    unique = uuid.uuid4().hex[:8]
    index, name = f"multistep-try-{unique}", f"multistep-try-{unique}"
    documents, failed = reviews(), 0

    def step(what: str, *, well: bool, seconds: float) -> None:
        nonlocal failed
        failed += not well
        print(f"{'ok    ' if well else 'FAILED'} {what} ({seconds:.1f}s)")

    try:
        began = time.monotonic()
        actions = ({"_index": index, "_id": id_, "_source": document} for id_, document in documents.items())
        helpers.bulk(client, actions)
        client.indices.refresh(index=index)
        where = url.replace("https://", "elasticsearch+https://").replace("http://", "elasticsearch://").rstrip("/")
        source = f"{where}/{index}?text=body&label=about.topic"
        lines = fetched(source).read_text(encoding="utf-8").splitlines()
        wanted = [{"text": d["body"], "label": d["about"]["topic"]} for d in documents.values()]
        well = [json.loads(line) for line in lines] == wanted
        step(f"{len(lines)} documents are read from {index}", well=well, seconds=time.monotonic() - began)

        with tempfile.TemporaryDirectory() as there:
            began = time.monotonic()
            model = {"name": "bert", "layers": 2, "width": 32, "heads": 2, "context": 64, "tokenizer": "wordpiece"}
            result = multistep.train(
                task="text-classification",
                data=source,
                model=model,
                budget="100 steps",  # after fewer, both classes are as likely, and a threshold tells them apart
                moves=[],
                ship="network",
                out=Path(there) / "run",
                progress=False,
            )
            folder = api.export(result.folder, Path(there) / "export", to="elasticsearch", hub_model_id=name)
            step("a classifier is trained on them and exported", well=True, seconds=time.monotonic() - began)
            began = time.monotonic()
            if python := os.environ.get("ELAND_PYTHON"):
                command = [python, "-m", "eland.cli.eland_import_hub_model", "--url", url, "--start"]
                command += ["--hub-model-id", str(folder), "--es-model-id", name, "--task-type", "text_classification"]
                command += ["--es-api-key", key] if key else []
                command += ["--ca-certs", secrets["ca_certs"]] if "ca_certs" in secrets else []
                away = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
                subprocess.run(command, check=True, env=away)
            else:
                upload(client, folder)
            by = "eland" if python else "the client"
            step(f"it is uploaded by {by} and started", well=True, seconds=time.monotonic() - began)
            began = time.monotonic()
            chosen = list(documents.values())[:20]
            said = asked(client, folder, name, chosen)
            own = api.predict(result.folder / "model", [d["body"] for d in chosen])  # whatever ships
        apart = max(
            abs(each["prediction_probability"] - float(mine.probability or 0))
            if each["predicted_value"] == mine.output
            else 1.0
            for each, mine in zip(said, own, strict=True)
        )
        what = f"its pipeline says of {len(chosen)} documents what multistep says; largest difference {apart:.1g}"
        step(what, well=apart <= TOLERANCE, seconds=time.monotonic() - began)
    finally:
        remove(client, name)
        client.options(ignore_status=[404]).indices.delete(index=index)
        client.close()
    return failed


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("http"):
        sys.exit(str(__doc__))
    sys.exit(main(sys.argv[1]))
