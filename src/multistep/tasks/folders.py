"""Model folders: where they are, and which task they are for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multistep.core.values.tasks import TASKS
from multistep.errors import PlanError
from multistep.tasks.hub import first_line, quietly

TASK_FILE = "multistep.json"  # in an exported folder: its task, and what using it takes beyond config.json
_ARCHITECTURES = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
    "ForCTC": "speech-recognition",
}


def existing(model: str) -> str:
    """A run directory stands for what it ships; a folder without a model, or none at all, is the user's mistake.

    What may be a hub id is left to whoever loads it.
    """
    folder = Path(model).expanduser()
    if _ships_baseline(folder):
        return str(folder / "baseline")
    if any((folder / "model" / name).is_file() for name in ("config.json", TASK_FILE)):
        return str(folder / "model")
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", TASK_FILE)):
            raise PlanError(f"{folder}: holds no model (config.json is missing); name RUN/model of a finished run")
        return str(folder)
    if folder.exists():
        raise PlanError(f"{folder}: is a file; name the model folder")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or (folder.parent.is_dir() and "/" in model):
        raise PlanError(f"{model}: no such folder; name a model folder, RUN/model of a finished run, or a hub id")
    return model


def _ships_baseline(run: Path) -> bool:
    """Whether a folder is that of a run whose answer is its baseline. Raises PlanError if that is missing."""
    result = run / "result.json"
    if not result.is_file() or _read_object(result).get("ships") != "baseline":
        return False
    if not (run / "baseline" / TASK_FILE).is_file():
        raise PlanError(
            f"{run}: ships its baseline, but {run / 'baseline'} is missing; copy it again, or name {run / 'model'} for "
            "the network"
        )
    return True


def task_of(model: str) -> str:
    """The task that a model folder was exported for, or that its architecture is made for; also of a hub id.

    Raises PlanError for what is damaged, or neither here nor to be had from the hub.
    """
    config = Path(model) / "config.json"
    described = _read_object(config) if config.is_file() else None  # whatever the task: a damaged one is named
    if given := read_task(model).get("task"):
        if given not in TASKS:
            raise PlanError(f"{Path(model) / TASK_FILE}: unknown task '{given}'; allowed: {', '.join(TASKS)}")
        return str(given)
    if described is not None:
        names = described.get("architectures")
    else:
        names = [] if Path(model).is_dir() else _architectures_on_hub(model)
    for ending, task in _ARCHITECTURES.items():
        if any(str(name).endswith(ending) for name in names or []):
            return task
    return "text-generation"


def _architectures_on_hub(model: str) -> list[str]:
    from transformers import AutoConfig

    try:
        with quietly():
            config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise PlanError(
            f"{model}: no such folder, and it could not be fetched from the hub ({first_line(error)}); name a model "
            "folder, "
            "RUN/model of a finished run, or a hub id"
        ) from error
    return list(getattr(config, "architectures", None) or [])


def read_task(model: str) -> dict[str, Any]:
    """What `write_task` wrote; empty for a folder that somebody else made."""
    path = Path(model) / TASK_FILE
    return _read_object(path) if path.is_file() else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"{path}: damaged, not JSON ({error}); export or download the model again") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path}: damaged, not a JSON object; export or download the model again")
    return content


def write_task(folder: Path, task: str, content: Mapping[str, Any] | None = None) -> None:
    """Say beside exported weights which task they are for, and what the task needs to use them."""
    text = json.dumps({"task": task, **(content or {})}, ensure_ascii=False, indent=2)
    (folder / TASK_FILE).write_text(text, encoding="utf-8")
