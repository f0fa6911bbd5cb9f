"""Model folders: where they are, and which task they are for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multistep.errors import PlanError

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
    """A run directory stands for the model in it; a folder without one is the user's mistake."""
    folder = Path(model)
    if any((folder / "model" / name).is_file() for name in ("config.json", TASK_FILE)):
        return str(folder / "model")
    if folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", TASK_FILE)):
        raise PlanError(f"{folder}: holds no model (config.json is missing); name RUN/model of a finished run")
    return model


def task_of(model: str) -> str:
    """The task that a model folder was exported for, or that its architecture is made for.

    A hub id, which cannot be looked into without loading it, is taken for a causal model.
    """
    if task := read_task(model).get("task"):
        return str(task)
    config = Path(model) / "config.json"
    if config.is_file():
        names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
        for ending, task in _ARCHITECTURES.items():
            if any(str(name).endswith(ending) for name in names):
                return task
    return "text-generation"


def read_task(model: str) -> dict[str, Any]:
    """What `write_task` wrote; empty for a folder that somebody else made."""
    path = Path(model) / TASK_FILE
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_task(folder: Path, task: str, content: Mapping[str, Any] | None = None) -> None:
    """Say beside exported weights which task they are for, and what the task needs to use them."""
    text = json.dumps({"task": task, **(content or {})}, ensure_ascii=False, indent=2)
    (folder / TASK_FILE).write_text(text, encoding="utf-8")
