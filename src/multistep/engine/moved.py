"""A run that goes on in another place: where its plan's paths begin now, and what was given for those that are gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.kept import PREFIX
from multistep.engine.names import is_query
from multistep.engine.planfile import read_plan
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError

PARTS = ("source", "train", "validation", "test", "root")


@contextmanager
def going_on(directory: RunDirectory, data: Sequence[str] = (), model: str | None = None) -> Iterator[Plan]:
    """The plan of a run that was begun, in the working folder that its relative paths are meant from.

    `data` are places where its data lie now: a path, or OLD=NEW where it has several; `model` is where its model's
    folder does. Whether they are the same is found when they are read. Raises RunDirectoryError for data that are
    nowhere, PlanError for places that cannot be meant.
    """
    directory.require_plan()
    plan = read_plan(directory.plan_file)
    if directory.result.exists():  # which needs its data no more
        yield plan
        return
    given = {**_given_data(plan, data), **_given_model(plan, directory, model)}
    directory.places = {**directory.places, **given}
    with contextlib.chdir(home_of(directory, plan)):
        _require_there(directory, plan)
        yield plan


def placed(plan: Plan, places: Mapping[str, str]) -> Plan:
    """The plan with its data where they lie now."""
    if not places:
        return plan

    def of(data: DataSpec) -> DataSpec:
        return replace(data, **{part: places.get(getattr(data, part), getattr(data, part)) for part in PARTS})

    phases = tuple(
        replace(
            phase,
            data=phase.data and of(phase.data),
            guard=phase.guard and replace(phase.guard, data=of(phase.guard.data)),
        )
        for phase in plan.phases
    )
    return replace(plan, data=of(plan.data), phases=phases)


def sources_of(plan: Plan, phases: Sequence[int]) -> list[str]:
    """What these phases read, by the names that the plan has for it."""
    found: dict[str, None] = {}
    for phase in map(plan.phase, phases):
        for data in (phase.data, phase.guard.data if phase.guard else None):
            named = (getattr(data, part, None) for part in PARTS)
            found |= dict.fromkeys(name for name in named if name and not name.startswith(PREFIX))
    return list(found)


def _given_data(plan: Plan, data: Sequence[str]) -> dict[str, str]:
    known = sources_of(plan, range(plan.phase_count))
    found = {}
    for entry in data:
        old, _, new = entry.rpartition("=")
        if old in known:
            found[old] = _there(new, "--data")
        elif len(known) == 1:
            found[known[0]] = _there(new if is_query(old) else entry, "--data")
        elif (folder := Path(entry).expanduser()).is_dir():
            inside = {name: folder / Path(name).name for name in known}
            if not (there := {name: str(path.resolve()) for name, path in inside.items() if path.exists()}):
                raise PlanError(f"--data {entry}: holds none of {', '.join(Path(name).name for name in known)}")
            found |= there
        else:
            raise PlanError(
                f"--data {entry}: this run reads {', '.join(known)}; say which one is meant: --data {known[0]}={entry}"
            )
    return found


def _given_model(plan: Plan, directory: RunDirectory, model: str | None) -> dict[str, str]:
    if model is None:
        return {}
    begun = directory.resolved_phases()
    names = dict.fromkeys([*(begun[0].get("models", ()) if begun else ()), *plan.model.names])
    paths = [name for name in names if os.sep in name or name.startswith(".")]
    old, _, new = model.rpartition("=")
    if old in names:
        return {old: _there(new, "--model")}
    if len(paths) != 1:
        raise PlanError(f"--model {model}: this run's models are {', '.join(names)}; say which is meant: OLD={model}")
    return {paths[0]: _there(model, "--model")}


def _there(path: str, option: str) -> str:
    place = Path(path).expanduser()
    if not place.exists():
        raise PlanError(f"{option} {path}: no such file or folder")
    return str(place.resolve())


def home_of(directory: RunDirectory, plan: Plan) -> Path:
    """The first folder from which all of the run's relative paths lead somewhere: where the run stands to it as it did,
    where it began, here, the run itself.
    """
    record = directory.read_resolved() if directory.resolved.exists() else {}
    run = directory.folder.resolve()
    began = Path(str(record.get("folder", ".")))
    candidates = [began, Path.cwd(), run]
    if beside := record.get("from_run"):
        candidates.insert(0, Path(os.path.normpath(run / str(beside))))
    candidates = [folder for folder in candidates if folder.is_dir()]
    names = [*sources_of(plan, range(plan.phase_count)), *plan.model.names]
    relative = [name for name in names if name not in directory.places and not Path(name).expanduser().is_absolute()]
    there = [sum((folder / name).exists() for name in relative) for folder in candidates]
    return candidates[there.index(max(there))]  # names that are no paths lead nowhere from everywhere


def _require_there(directory: RunDirectory, plan: Plan) -> None:
    """Raises RunDirectoryError for files that the run has read and has still to read, and that are not here."""
    begun = directory.resolved_phases()[: plan.phase_count]
    for name in (begun[0].get("models") or plan.model.names) if begun else ():
        place = directory.places.get(name, name)
        if name.startswith((os.sep, ".", "~")) and not Path(place).expanduser().exists():
            raise RunDirectoryError(
                f"{directory.folder}: its model is not at {place} (from {Path.cwd()}); say where it is now: "
                f"`multistep resume {directory.folder} --model NEWPATH`"
            )
    read = {name for phase in begun for name in phase.get("files", {})}
    ahead = sources_of(plan, range(max(0, len(begun) - 1), plan.phase_count))
    for name in ahead:
        place = directory.places.get(name, name)
        if name in read and not Path(place).expanduser().exists():
            where = place if Path(place).is_absolute() else f"{place} (from {Path.cwd()})"
            which = "" if len(sources_of(plan, range(plan.phase_count))) == 1 else f"{name}="
            raise RunDirectoryError(
                f"{directory.folder}: its data are not at {where}; say where they are now: "
                f"`multistep resume {directory.folder} --data {which}NEWPATH`"
            )
