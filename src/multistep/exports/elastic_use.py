"""What goes with a model to Elasticsearch: the ingest pipeline that asks it, the commands that upload and use it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError
from multistep.tasks.as_trained import columns_of

FIELD = "text_field"  # what eland calls the input of every model
LOWERED = "multistep_lowered"  # a field of the pipeline's own
_ID = re.compile(r"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
MOST = 64  # characters of an id
TO_REPLACE = "REPLACE ME"


def model_id(hub_model_id: str | None) -> str:
    """The id by which Elasticsearch knows a model, as eland makes it. Raises PlanError for a name that gives none."""
    if not hub_model_id:
        raise PlanError("name the model for Elasticsearch: --hub-model-id NAME, or OWNER/NAME")
    found = hub_model_id.replace("/", "__").lower()[-MOST:].removeprefix("__")
    if not _HUB_ID.fullmatch(hub_model_id) or not _ID.fullmatch(found):
        raise PlanError(
            f"--hub-model-id is '{hub_model_id}'; allowed: NAME or OWNER/NAME of letters, digits, hyphens, underscores "
            f"and dots, beginning and ending with a letter or digit (Elasticsearch would call it '{found}')"
        )
    return found


@dataclass(frozen=True)
class Use:
    """What the commands are made of. `fields` are the documents' own, of one text or of two."""

    id: str
    task: str
    fields: Sequence[str]
    lowered: bool
    masked: bool
    traced: bool = False  # whether the traced model is uploaded, where eland cannot trace one

    @property
    def result(self) -> str:
        return f"ml.inference.{re.sub(r'[^a-z0-9_]', '_', self.id)}"


def fields_of(model: str) -> list[str]:
    """The columns that the run's texts were in; of a run on an index, its fields."""
    columns = columns_of(model)
    names = [columns.get(key) for key in ("text_column", "second_text_column")]
    found = [str(name) for name in names if name] or ["text"]
    run = RunDirectory(Path(model).parent)
    try:
        phases = run.resolved_phases() if run.exists else []
    except RunDirectoryError:
        phases = []
    asked: Mapping[str, str] = {}
    for phase in phases:
        for told in phase.get("queries", {}).values():
            asked = told.get("fields") or asked
    return [asked.get(name, name) for name in found]


def pipeline(use: Use) -> dict[str, Any]:
    """The body of `PUT _ingest/pipeline/ID`."""
    field = use.fields[0]
    steps: list[dict[str, Any]] = []
    if use.lowered:
        steps.append({"set": {"field": LOWERED, "copy_from": field}})
        steps.append({"lowercase": {"field": LOWERED}})
        if use.masked:
            steps.append({"gsub": {"field": LOWERED, "pattern": r"\[mask\]", "replacement": "[MASK]"}})
    asked: dict[str, Any] = {
        "model_id": use.id,
        "target_field": use.result,
        "field_map": {LOWERED if use.lowered else field: FIELD},
    }
    if use.task == "zero_shot_classification":
        asked["inference_config"] = {use.task: {"labels": [f"{TO_REPLACE} by your labels"], "multi_label": False}}
    if use.task == "text_similarity":
        asked["inference_config"] = {use.task: {"text": f"{TO_REPLACE} by the text to compare with"}}
    steps.append({"inference": asked})
    if use.lowered:
        steps.append({"remove": {"field": LOWERED}})
    return {"description": f"{use.task} of '{field}' by {use.id}, exported by multistep", "processors": steps}


def commands(use: Use, folder: str) -> tuple[str, str]:
    """What uploads the model and starts it, and what puts the pipeline beside it."""
    here = shlex.quote(folder)
    key = '--es-api-key "$ELASTICSEARCH_API_KEY"'
    if use.traced:
        return _upload_traced(use, folder), _put(use, folder)
    upload = (
        f'eland_import_hub_model --url "$ELASTICSEARCH_URL" {key} --hub-model-id {here} --es-model-id {use.id} '
        f"--task-type {use.task} --start"
    )
    return upload, _put(use, folder)


def _upload_traced(use: Use, folder: str) -> str:
    """eland uploads what is traced already; it asks for the three files that its own program would make."""
    files = {"model_path": "traced_pytorch_model.pt", "config_path": "config.json", "vocab_path": "vocabulary.json"}
    given = ", ".join(f"{key}={f'{folder}/traced/{name}'!r}" for key, name in files.items())
    script = (
        "import os; from elasticsearch import Elasticsearch; from eland.ml.pytorch import PyTorchModel; "
        'server = Elasticsearch(os.environ["ELASTICSEARCH_URL"], api_key=os.environ.get("ELASTICSEARCH_API_KEY")); '
        f'model = PyTorchModel(server, "{use.id}"); model.import_model({given}); model.start()'
    )
    return f"python -c {shlex.quote(script)}"


def _put(use: Use, folder: str) -> str:
    header = '-H "Authorization: ApiKey $ELASTICSEARCH_API_KEY" -H "Content-Type: application/json"'
    place = shlex.quote(f"{folder}/pipeline.json")
    return f'curl -X PUT "$ELASTICSEARCH_URL/_ingest/pipeline/{use.id}" {header} --data-binary @{place}'


def write_use(use: Use, folder: Path, called: str, notes: Sequence[str]) -> None:
    """pipeline.json, and README.md with the commands; `called` is the folder as it will be."""
    text = json.dumps(pipeline(use), ensure_ascii=False, indent=2) + "\n"
    (folder / "pipeline.json").write_text(text, encoding="utf-8")
    upload, put = commands(use, called)
    field = use.fields[0]
    parts = [
        f"# {use.id}: {use.task} for Elasticsearch",
        "Upload and start it, with eland in an environment of its own (`pip install 'eland[pytorch]'`, of the server's "
        "major version):",
        f"```sh\n{upload}\n```",
        f"Put the ingest pipeline beside it, which asks it about `{field}` and writes to `{use.result}`:",
        f"```sh\n{put}\n```",
        f"Documents are asked about as they are indexed with `?pipeline={use.id}`.",
    ]
    if TO_REPLACE in text:
        parts.append(f"Before that, edit `pipeline.json` where it says {TO_REPLACE}.")
    if use.lowered:
        parts.append(
            "Texts have to be in lower case, accents kept, which Elasticsearch's tokenizer cannot do: the pipeline "
            "does it; whoever asks the model otherwise (`_infer`, queries) has to."
        )
    if use.task == "text_similarity":
        body = {
            "service": "elasticsearch",
            "service_settings": {"model_id": use.id, "num_allocations": 1, "num_threads": 1},
        }
        parts.append(
            f"To rank what a search finds, `PUT _inference/rerank/{use.id}` with the body below, and search with the "
            f"retriever `text_similarity_reranker` (`inference_id`, `inference_text`, `field`: `{use.fields[-1]}`):"
        )
        parts.append(f"```json\n{json.dumps(body, indent=2)}\n```")
    parts += list(notes)
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
