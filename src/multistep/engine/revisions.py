"""Which commit of a hub's repository a run read, as the caches of the hub's libraries on this machine tell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.names import is_here, may_be_hub_id

COMMIT = re.compile(r"[0-9a-f]{40}")
_SNAPSHOT = re.compile(r"(models|datasets)--(.+)/snapshots/([0-9a-f]{40})")  # a folder of the cache, given as a path


def revisions_of_phase(plan: Plan, index: int) -> Mapping[str, Mapping[str, str]]:
    """The commits of the models and data sets of a phase that are the hub's: {"models": {id: commit}, "data": ...}.

    What is a file or folder of its own, and what no cache tells, is left out.
    """
    phase = plan.phase(index)
    models = _found(model_revision(name) for name in plan.model.names)
    specs = (phase.data, phase.guard.data if phase.guard else None)
    data = _found(data_revision(name) for spec in specs if spec for name in _sources(spec))
    return {key: found for key, found in (("models", models), ("data", data)) if found}


def _sources(data: DataSpec) -> list[str]:
    return [name for name in (data.source, data.train, data.validation, data.test) if name]


def _found(revisions: Iterable[tuple[str, str] | None]) -> dict[str, str]:
    return dict(revision for revision in revisions if revision is not None)


def model_revision(name: str) -> tuple[str, str] | None:
    """The id and the commit of a model: that which `main` stood for when it was read last, or a snapshot's folder."""
    if snapshot := _snapshot(name):
        return snapshot
    if is_here(name) or not may_be_hub_id(name):
        return None
    commit = _main_of(f"models--{name.replace('/', '--')}")
    return (name, commit) if commit else None


def data_revision(name: str) -> tuple[str, str] | None:
    """The id and the commit of a data set: of what `datasets` prepared last, else what `main` stands for."""
    if snapshot := _snapshot(name):
        return snapshot
    if is_here(name) or not may_be_hub_id(name):
        return None
    own, _, configuration = name.partition(":")
    prepared = _prepared(own, configuration)
    commit = prepared or _main_of(f"datasets--{own.replace('/', '--')}")
    return (name, commit) if commit else None


def _snapshot(name: str) -> tuple[str, str] | None:
    found = _SNAPSHOT.search(name.replace(os.sep, "/"))
    return (found[2].replace("--", "/"), found[3]) if found else None


def _main_of(folder: str) -> str | None:
    from huggingface_hub import constants

    try:
        commit = (Path(constants.HF_HUB_CACHE) / folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _prepared(name: str, configuration: str) -> str | None:
    """The commit in the folder that `datasets` prepared last: owner___name/configuration/version/commit."""
    from huggingface_hub import constants

    home = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    folders = (home / name.replace("/", "___")).glob(f"{configuration or '*'}/*/*")
    commits = [folder for folder in folders if COMMIT.fullmatch(folder.name)]
    return max(commits, key=lambda folder: folder.stat().st_mtime).name if commits else None
