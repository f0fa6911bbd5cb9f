"""Data that were objects in Python: kept with the run that began with them, and named in its plan by what they hold.

A plan is plain text: it names such data as "memory:train-3f2a91bc04d1.parquet", which is the file of that name in
RUN/data. So the plan is the same wherever the run lies, and the run goes on in another process or on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.trial import Facts
from multistep.errors import RunDirectoryError

PREFIX = "memory:"
FOLDER = "data"  # of a run directory
_SOURCES = ("source", "train", "validation", "test")
T = TypeVar("T")


def with_kept(plan: Plan, run: Path) -> Plan:
    """The plan with the paths of what is kept in the run directory, for whoever reads its data."""
    phases = tuple(
        replace(
            phase,
            data=phase.data and _located(phase.data, run),
            guard=phase.guard and replace(phase.guard, data=_located(phase.guard.data, run)),
        )
        for phase in plan.phases
    )
    return replace(plan, data=_located(plan.data, run), phases=phases)


def require_kept(plan: Plan, run: Path) -> None:
    """Raises RunDirectoryError where the run directory lacks data that its plan names."""
    for source in _kept_sources(plan):
        if not (path := _path(source, run)).exists():
            raise RunDirectoryError(
                f"{path}: no such file. The plan names data that were objects in Python, and such data are kept in "
                f"the folder '{FOLDER}' of the run that began with them: resume that run, or call multistep.train with "
                "the objects again"
            )


def spoken(value: T, plan: Plan, run: Path) -> T:
    """A text, or a value that holds texts, with the name of the keyword for the path of what came in by it."""
    names = {str(_path(source, run)): _name(source) for source in _kept_sources(plan)}
    return _replaced(value, names) if names else value


def with_notes(facts: Facts, plan: Plan, phase: int, run: Path) -> Facts:
    """The facts of a phase, with what is kept of its data, and under the names that people know."""
    data = plan.phase(phase).data
    notes = [
        f"{_name(source)}: objects in Python, kept in the run directory as {FOLDER}/{path.name} ({_size(path)})"
        for source in (_kept_in(data) if data else ())
        if (path := _path(source, run)).exists()
    ]
    # Runs in other folders are to find these facts alike, so no path of this one stands in them.
    understood = replace(facts.understood, data="; ".join(notes).removeprefix("data: ")) if notes else facts.understood
    return spoken(replace(facts, notes=(*facts.notes, *notes), understood=understood), plan, run)


def _size(path: Path) -> str:
    held = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else (path,)) if file.is_file())
    return f"{held / 1e6:,.1f} MB" if held >= 1e5 else f"{held / 1e3:,.1f} kB"


def is_kept(plan: Plan) -> bool:
    """Whether any of its data lie in the run directory."""
    return next(_kept_sources(plan), None) is not None


def _kept_sources(plan: Plan) -> Iterator[str]:
    specs = [plan.data]
    for phase in plan.phases:
        specs += [phase.data] if phase.data else []
        specs += [phase.guard.data] if phase.guard else []
    for spec in specs:
        yield from _kept_in(spec)


def _kept_in(data: DataSpec) -> Iterator[str]:
    sources = (getattr(data, key) for key in _SOURCES)
    yield from (source for source in sources if source and source.startswith(PREFIX))


def _located(data: DataSpec, run: Path) -> DataSpec:
    given = {key: getattr(data, key) or "" for key in _SOURCES}
    changed: dict[str, Any] = {
        key: str(_path(source, run)) for key, source in given.items() if source.startswith(PREFIX)
    }
    return replace(data, **changed) if changed else data


def _path(source: str, run: Path) -> Path:
    return run / FOLDER / Path(source.removeprefix(PREFIX)).name


def _name(source: str) -> str:
    """The keyword by which it came: `train` of memory:train-3f2a91bc04d1.parquet."""
    return re.sub(r"-[0-9a-f]+(\.\w+)?$", "", source.removeprefix(PREFIX))


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in names.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, tuple):
        return tuple(_replaced(item, names) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {key: new for key, old in found.items() if (new := _replaced(old, names)) != old}
        return replace(value, **changed) if changed else value
    return value
