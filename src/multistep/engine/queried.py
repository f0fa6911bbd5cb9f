"""Rows that were read from a server, once, and lie in a file of the cache since: which, and what a run records of them.

A plan names such rows by a query, `elasticsearch://host:9200/index?text=body&label=topic`. What a server answers may be
another tomorrow, so a run reads the file that it began with, and says so where it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.moved import sources_of
from multistep.engine.names import is_query
from multistep.engine.rundir import RunDirectory
from multistep.errors import RunDirectoryError

KIND = "elasticsearch"  # the folder of the cache
ABOUT = "about.json"  # beside the rows


def queries_of(plan: Plan) -> list[str]:
    """The queries that a plan reads, in its order."""
    return [source for source in sources_of(plan, range(plan.phase_count)) if is_query(source)]


def about(rows: str | Path) -> dict[str, Any] | None:
    """What is recorded of a file of rows: the query, how many documents, their hash; None of any other file."""
    path = Path(rows)
    if path.parent.parent.name != KIND:
        return None
    try:
        found = json.loads((path.parent / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def queries_of_phase(plan: Plan, index: int, places: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What is recorded of each query of a phase, by the plan's name for it."""
    phase = plan.phase(index)
    specs = (phase.data, phase.guard.data if phase.guard else None)
    named = [name for data in specs if data for name in _sources(data) if is_query(name)]
    return {name: known for name in named if (known := about(places.get(name, ""))) is not None}


def require_rows(plan: Plan, directory: RunDirectory) -> list[str]:
    """The queries of a plan that its run has not read yet.

    Raises RunDirectoryError where rows that it read are gone, or others are put in their place.
    """
    unread: list[str] = []
    if not (queries := queries_of(plan)):
        return unread  # nothing of the folder is read, which may be no run's
    phases = directory.resolved_phases()
    began = {source: told for phase in phases for source, told in phase.get("queries", {}).items()}
    for source in queries:
        if (place := directory.places.get(source)) is None:
            unread.append(source)
        elif not Path(place).exists():
            raise RunDirectoryError(
                f"{directory.folder}: the rows that it read from {source} are gone from the cache ({place}); put the "
                f"file back, or read them again with `multistep resume {directory.folder} --data '{source}'`, which "
                "goes on if the index still holds the same; else start a new run with --out DIR"
            )
        elif (now := about(place)) and (told := began.get(source)) and now["hash"] != told["hash"]:
            counts = f"{told['documents']:,} documents then, {now['documents']:,} now"
            raise RunDirectoryError(
                f"{directory.folder}: {source} gives other rows than this run began with ({counts}); put the file back "
                "that it read, or start a new run with --out DIR"
            )
    return unread


def _sources(data: DataSpec) -> list[str]:
    return [name for name in (data.source, data.train, data.validation, data.test) if name]
