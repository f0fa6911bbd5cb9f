"""Which source is which split: what users name, folders and files that do so, data sets, and columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from multistep.core.values.plan import DataSpec
from multistep.data.folders import split_paths
from multistep.data.form import Form
from multistep.data.names import ALLOWED, NAMES, SPLITS, splits_among
from multistep.data.sources import read_parts
from multistep.data.table import Table, joined
from multistep.errors import DataError, nearest

T = TypeVar("T")
Sources = Mapping[str, str]


def given_splits(data: DataSpec, form: Form, sources: Sources | None = None) -> tuple[dict[str, Table], list[str]]:
    """The splits that the user named, train among them, and what is to be said; a source without names is train alone.

    `sources` are names and sources instead of those of the data. Raises DataError where no train split is found, or
    two sources mean the same split.
    """
    if data.source is None or sources is not None:
        paths = _by_user(sources or {name: path for name in SPLITS if (path := getattr(data, name))})
        if "train" not in paths:
            raise DataError(f"data: no train split; given: {', '.join(paths)}")
        return {name: one_split(path, name, data, form) for name, path in paths.items()}, []
    source = data.source
    files, notes = split_paths(source, form)
    if files:
        _require_train(files, source, [Path(path).name for paths in files.values() for path in paths])
        return {name: _one_of(source, paths, name, data, form) for name, paths in files.items()}, notes
    parts = read_parts(source, data, form)
    known = form.splits_among(parts)
    if not known and len(parts) == 1:
        return {"train": next(iter(parts.values()))}, []
    _require_train(known.values(), source, list(parts))
    found = {split: parts[name] for name, split in _once(known, source).items()}
    others = [f"{name} ({len(parts[name]):,})" for name in parts if name not in known]
    return found, [f"{source}: splits left out: {', '.join(others)}"] if others else []


def one_split(source: str, name: str, data: DataSpec, form: Form) -> Table:
    """What a source holds for one split: the split of that name, if it has named splits, else all of it."""
    files, _ = split_paths(source, form)
    if name in files:
        return _one_of(source, files[name], name, data, form)
    parts = read_parts(source, data, form)
    known = form.splits_among(parts)
    matching = [part for key, part in parts.items() if known.get(key) == name]
    if len(matching) == 1:
        return matching[0]
    if len(parts) == 1:
        return next(iter(parts.values()))
    raise DataError(f"{source}: no one split for {name}; it has {', '.join(parts)}")


def _one_of(source: str, paths: Sequence[str], name: str, data: DataSpec, form: Form) -> Table:
    tables = [one_split(path, name, data, form) for path in paths]
    said = [f"{source}: {len(paths)} folders or tables make up {name}"] if len(paths) > 1 else []
    return joined(source, tables, *said)


def held_out_table(data: DataSpec, form: Form) -> Table:
    """What is scored of the data: its test split, else its validation split, else all of it. Raises DataError."""
    source = data.test or data.source or data.validation or data.train or ""
    name = "test" if data.test else "validation" if data.validation and not data.source else ""
    files, _ = split_paths(source, form)
    for split in (name, "test", "validation", "train"):
        if split in files:
            return _one_of(source, files[split], split, data, form)
    return held_out(read_parts(source, data, form))


def held_out_split(data: DataSpec, form: Form) -> str | None:
    """Which split `held_out_table` gives; None where the data name none."""
    if not data.source:
        return next((name for name in ("test", "validation", "train") if getattr(data, name)), None)
    files, _ = split_paths(data.source, form)
    if files:
        return next(name for name in ("test", "validation", "train") if name in files)
    parts = read_parts(data.source, data, form)
    known = form.splits_among(parts)
    return held_out({name: known.get(name) for name in parts}) if len(parts) > 1 else None


def held_out(parts: Mapping[str, T]) -> T:
    """Of the splits of one source the test split, else the validation split, else the first."""
    by_split = {split: parts[name] for name, split in splits_among(parts).items()}
    return next((by_split[name] for name in ("test", "validation") if name in by_split), next(iter(parts.values())))


def _by_user(sources: Sources) -> dict[str, str]:
    """The same sources under the names train, validation and test."""
    for key in sources:
        if key.lower() not in NAMES:
            raise DataError(f"data: unknown split '{key}'; allowed: {ALLOWED}.{nearest(key, NAMES)}")
    return {split: sources[key] for key, split in _once({key: NAMES[key.lower()] for key in sources}, "data").items()}


def _once(known: Mapping[str, str], where: str) -> Mapping[str, str]:
    """The names and their splits. Raises DataError if two of them mean the same one."""
    meant = list(known.values())
    for split in meant:
        if meant.count(split) > 1:
            raise DataError(f"{where}: two splits mean {split}: {', '.join(known)}; keep one")
    return known


def _require_train(splits: Iterable[str], where: str, names: Sequence[str]) -> None:
    if "train" not in splits:
        raise DataError(
            f"{where}: has {', '.join(names)} but no train split; call the training data 'train', or name each split "
            "with --set data.train=PATH and the like"
        )
