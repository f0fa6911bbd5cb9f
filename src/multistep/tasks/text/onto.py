"""Folders that hold an adapter alone: it is merged into the base model that it names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from multistep.errors import PlanError
from multistep.tasks.hub import ADAPTER_CONFIG, first_line, quietly


def base_of_adapter(folder: Path) -> str | None:
    """The base model that an adapter's folder names; None where the folder holds a model of its own, or nothing.

    Raises PlanError for one that names none.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
        return None
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise PlanError(f"model: {folder / ADAPTER_CONFIG}: damaged, not JSON ({first_line(error)})") from error
    if not base:
        raise PlanError(
            f"model: {folder} is an adapter and names no base model; set base_model_name_or_path in {ADAPTER_CONFIG}"
        )
    return str(base)


def merged(base: Any, name: str, folder: Path) -> Any:
    """The base model with the adapter in its weights. Raises PlanError where it is for another model."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise PlanError(
            f"model: {folder} is an adapter, which needs the package peft; pip install 'multistep[adapters]'"
        ) from error
    try:
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers by a name that is going
            return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise PlanError(
            f"model: {folder} is an adapter for another model than {name}, which it names ({first_line(error)})"
        ) from error
