"""Marks of local data, by which a file that was changed is noticed without being read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.rundir import RunDirectory
from multistep.errors import RunDirectoryError

MOST_FILES = 10_000  # of a folder; asking about more takes longer than the notice is worth

Marks = Mapping[str, Sequence[int]]


def marks_of(data: DataSpec | None, run: Path) -> Marks:
    """Number of files, bytes and last change (nanoseconds) of each source that is a file or a folder here.

    A folder that holds the run directory itself has none: it changes as the run goes on.
    """
    sources = (data.source, data.train, data.validation, data.test) if data else ()
    found = {source: _mark(source, run.resolve()) for source in sources if source}
    return {source: mark for source, mark in found.items() if mark}


def marks_of_phase(plan: Plan, index: int, run: Path) -> Marks:
    """The marks of all that a phase reads: its data, and what it must not forget."""
    phase = plan.phase(index)
    return {**marks_of(phase.data, run), **marks_of(phase.guard.data if phase.guard else None, run)}


def _mark(source: str, run: Path) -> list[int]:
    count, size, changed = 0, 0, 0
    try:
        path = Path(source).expanduser()
        if run.is_relative_to(path.resolve()):
            return []
        for file in path.rglob("*") if path.is_dir() else (path,):
            status = file.stat()
            count, size, changed = count + 1, size + status.st_size, max(changed, status.st_mtime_ns)
            if count > MOST_FILES:
                return []
    except (OSError, RuntimeError):
        return []  # not there, or no name of a file at all
    return [count, size, changed]


def changed_sources(plan: Plan, run: RunDirectory) -> list[str]:
    """The sources that are there and are not what they were when the run read them."""
    found: dict[str, None] = {}
    try:
        phases = run.resolved_phases()[: plan.phase_count]
    except RunDirectoryError:
        return []  # nobody knows
    for index, phase in enumerate(phases):
        before = phase.get("files", {})
        now = marks_of_phase(plan, index, run.folder)
        found |= dict.fromkeys(source for source in now if source in before and list(now[source]) != before[source])
    return list(found)
