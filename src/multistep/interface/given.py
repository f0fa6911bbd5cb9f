"""The keywords of `train` -> what a plan says, and the objects among them that a run has to keep."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sized
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import TASKS
from multistep.data.names import NAMES
from multistep.engine.elsewhere import hint
from multistep.errors import PlanError

if TYPE_CHECKING:
    from multistep.data.media import Kind
    from multistep.data.memory import Kept

# A path or a data set's id, a DataSpec or a mapping of its fields, or rows in memory: frames, lists, arrays, data sets.
Data: TypeAlias = str | Path | DataSpec | Sized

F = TypeVar("F", bound=Callable[..., Any])
SPLITS = ("train", "validation", "test")
SOURCES = ("source", *SPLITS)
OF_DATA = tuple(field.name for field in fields(DataSpec))


def known_keywords(function: F) -> F:
    """The function, which tells what an unknown keyword is called here where Python would only say that it is unknown.

    Raises PlanError.
    """
    allowed = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for key, value in keywords.items():
            if key not in allowed:
                close = hint(key, allowed, value, group="", typed=False)
                raise PlanError(f"unknown keyword '{key}'; allowed: {', '.join(allowed)}.{close}")
        return function(*arguments, **keywords)

    return cast(F, checked)


def with_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with those of the data in one group: data=..., train=..., label_column=... and the others.

    Raises PlanError for data that are given twice.
    """
    found = {key: value for key, value in values.items() if key not in OF_DATA}
    beside = {key: values[key] for key in OF_DATA if key in values}
    if not beside:
        return found
    data = found.pop("data", None)
    if data is not None:
        spec = _group(data)
        if "source" in spec and any(_is_source(beside.get(split)) for split in ("validation", "test")):
            spec["train"] = spec.pop("source")  # what is not split any more
        both = [key for key in beside if key in spec]
        if "train" in beside or both:
            key = (both or ["train"])[0]
            raise PlanError(f"{key}= and data= both name the {key} data; give one of them")
        beside = {**spec, **beside}
    return {**found, "data": beside}


def _is_source(value: object) -> bool:
    """Whether it says where a split is, rather than which share of train it gets."""
    return value is not None and (isinstance(value, bool) or not isinstance(value, int | float))


def _group(data: Any) -> dict[str, Any]:
    """Data by the fields of a DataSpec."""
    if isinstance(data, DataSpec):
        return {key: value for key in OF_DATA if (value := getattr(data, key)) != getattr(DataSpec(), key)}
    data = _by_our_names(data)
    return dict(data) if is_spec(data) else {"source": data}


def names_sources(data: Any) -> bool:
    """Whether data say where they are, rather than only how they are to be read."""
    return not isinstance(data, Mapping) or any(key in data for key in ("source", "train"))


def is_spec(data: Any) -> bool:
    """Whether it is a mapping of a DataSpec's fields, or of splits, rather than of columns."""
    if not isinstance(data, Mapping) or not data or not all(key in OF_DATA for key in data):
        return False
    splits = all(key in SPLITS for key in data)
    return splits or any(isinstance(value, str | Path | bool | int | float | None) for value in data.values())


def _by_our_names(data: Any) -> Any:
    """A mapping of splits with their usual other names (dev, val, training) by ours."""
    if not isinstance(data, Mapping) or not data or not all(str(key).lower() in NAMES for key in data):
        return data
    named = {NAMES[str(key).lower()]: value for key, value in data.items()}
    return named if len(named) == len(data) else data


# Objects ------------------------------------------------------------------------------------------


def in_files(content: Mapping[str, Any], task: object = None) -> tuple[dict[str, Any], list[Kept]]:
    """What a plan can hold of these values, and the objects that stood in the places of data, to be kept with the run.

    Also those of phases and guards. Raises DataError for what no file can hold.
    """
    kept: list[Kept] = []
    values = dict(content)
    task = values.get("task") or task
    family = TASKS[task].family if isinstance(task, str) and task in TASKS else ""
    kind: Kind = "image" if family == "images" else "sound" if family == "speech" else "text"
    if "data" in values:
        values["data"] = _in_files(values["data"], kind, kept)
    if isinstance(guard := values.get("guard"), Mapping):
        values["guard"], more = in_files(guard, task)
        kept += more
    if isinstance(phases := values.get("phases"), list | tuple):
        inner = [in_files(phase, task) if isinstance(phase, Mapping) else (phase, []) for phase in phases]
        values["phases"] = [phase for phase, _ in inner]
        kept += [each for _, more in inner for each in more]
    return values, kept


def _in_files(data: Any, kind: Kind, kept: list[Kept]) -> Any:
    if isinstance(data, str | Path | DataSpec) or data is None:
        return data
    data = _by_our_names(data)
    if not is_spec(data):
        return {"source": _kept("data", data, kind, kept)}
    found = dict(data)
    for key in SOURCES:
        if key in found and not isinstance(found[key], str | Path | int | float | None):
            found[key] = _kept("data" if key == "source" else key, found[key], kind, kept)
    return {key: str(value) if isinstance(value, Path) else value for key, value in found.items()}


def _kept(keyword: str, given: Any, kind: Kind, kept: list[Kept]) -> str:
    from multistep.data.memory import keep

    kept.append(keep(keyword, given, kind))
    return kept[-1].source
