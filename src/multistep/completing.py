"""What a shell completes behind the verbs: run directories, tasks, metrics, trackers, keys of plans. Nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

JOURNAL = "journal.jsonl"
MOST = 200  # folders that are looked into


def runs(incomplete: str) -> list[str]:
    """Run directories that begin so, those in `runs` too; and folders that may hold some."""
    found: list[str] = []
    folders: list[str] = []
    where = [incomplete.rpartition("/")[0]] + ([] if incomplete else ["runs"])
    where[0] = "/" if incomplete.startswith("/") and not where[0] else where[0]
    for folder in where:
        for path in _folders(folder):
            if path.startswith(incomplete):
                (found if Path(path, JOURNAL).exists() else folders).append(path)
    return found + [f"{path}/" for path in folders]


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []
    before = f"{folder.rstrip('/')}/" if folder else ""
    return [before + name for name in sorted(names)[:MOST]]


def tasks(incomplete: str) -> list[str]:
    """The tasks by name."""
    from multistep.core.values.tasks import OWN_MODEL, TASKS

    return _beginning(incomplete, (name for name in TASKS if name != OWN_MODEL))


def metrics(incomplete: str) -> list[str]:
    """The metrics by name."""
    from multistep.core.evidence.metric import METRICS

    return _beginning(incomplete, METRICS)


def trackers(incomplete: str) -> list[str]:
    """Trackers, behind those that are named already and a comma."""
    before, comma, last = incomplete.rpartition(",")
    names = ("tensorboard", "wandb", "mlflow", "trackio")
    return [f"{before}{comma}{name}" for name in _beginning(last, names) if name not in before.split(",")]


def formats(incomplete: str) -> list[str]:
    """Formats of other runtimes that models are exported to."""
    return _beginning(incomplete, ("onnx", "tensorflow", "elasticsearch"))


def settings(incomplete: str) -> list[str]:
    """Keys of plans for --set, with their values where there are few: moves, optimizers, schedules."""
    from multistep.core.values.plan import DataSpec, ModelSpec, Plan

    if "=" not in incomplete:
        from dataclasses import fields

        from multistep.core.values.recipe import RECIPE_KEYS

        groups = {"data": [f.name for f in fields(DataSpec)], "model": [f.name for f in fields(ModelSpec)]}
        groups["recipe"] = list(RECIPE_KEYS)
        keys = [f.name for f in fields(Plan) if f.name not in (*groups, "phases")]
        return _beginning(incomplete, (f"{k}=" for k in (*keys, *(f"{g}.{k}" for g in groups for k in groups[g]))))
    key, _, value = incomplete.partition("=")
    return [f"{key}={each}" for each in _beginning(value, _values(key))]


def _values(key: str) -> Iterable[str]:
    """What a key of a plan may be set to, where that is a list of names."""
    if key == "metric":
        from multistep.core.evidence.metric import METRICS

        return METRICS
    if key == "moves":
        from multistep.core.choice.moves import NAMES

        return ("auto", *(f"[{name}]" for name in NAMES))
    from typing import get_args, get_type_hints

    from multistep.core.values.plan import DataSpec, ModelSpec, Plan
    from multistep.core.values.recipe import Recipe

    group, _, inner = key.rpartition(".")
    kinds = {"recipe": Recipe, "data": DataSpec, "model": ModelSpec, "": Plan}
    hint = get_type_hints(kinds[group]).get(inner) if group in kinds else None
    return [each for each in get_args(hint) if isinstance(each, str)]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
