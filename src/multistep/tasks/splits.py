"""Which source is which split: what users name, folders with files called train and test, Hugging Face data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from multistep.errors import DataError, nearest
from multistep.tasks.tables import kind_of

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
NO_TEST = "there is no test split: the final score will be the validation split's own, chosen on it"
T = TypeVar("T")
Read = Callable[[str], T]  # one source, all of it
ReadNamed = Callable[[str], Mapping[str, T] | None]  # the named parts of one that has them, else None


def given_splits(
    source: str | Mapping[str, str], read: Read[T], read_named: ReadNamed[T]
) -> tuple[dict[str, T], list[str]]:
    """The splits that the user named, train among them, and what is to be said; a source without names is train alone.

    Raises DataError where no train split is found, or two sources mean the same split.
    """
    if not isinstance(source, str):
        paths = by_split(source, "data")
        if "train" not in paths:
            raise DataError(f"data: no train split; given: {', '.join(source)}")
        return {name: one_split(path, name, read, read_named) for name, path in paths.items()}, []
    named = read_named(source)
    if named is not None and len(named) > 1:
        known = {name: name for name in named if name.lower() in NAMES}
        found = {name: named[key] for name, key in by_split(known, source).items()}
        if "train" not in found:
            raise DataError(f"{source}: no split called train; it has {', '.join(named)}")
        left_out = [name for name in named if name not in known]
        return found, [f"{source}: splits left out: {', '.join(left_out)}"] if left_out else []
    if named is not None:
        return {"train": next(iter(named.values()))}, []
    if files := split_files(source):
        return given_splits(files, read, read_named)
    return {"train": read(source)}, []


def split_files(source: str) -> dict[str, str]:
    """The files or folders of a folder that are named after splits; empty if train is not among them.

    Raises DataError for two of the same split, or validation without train.
    """
    folder = Path(source).expanduser()
    entries = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem = path.name.removesuffix(".gz").removesuffix(kind_of(path)) if path.is_file() else path.name
        if stem.lower() in NAMES:
            entries[path.name] = (stem, str(path))
    splits = [NAMES[stem.lower()] for stem, _ in entries.values()]
    if "train" in splits:
        twice = sorted(name for name in entries if splits.count(NAMES[entries[name][0].lower()]) > 1)
        if twice:
            raise DataError(f"{source}: more than one file for a split: {', '.join(twice)}; keep one each")
        return dict(entries.values())
    if "validation" in splits:
        raise DataError(f"{source}: has {', '.join(entries)} but no train split; add train.txt or the like")
    return {}


def by_split(sources: Mapping[str, str], where: str) -> dict[str, str]:
    """The same sources under the names train, validation and test."""
    found: dict[str, str] = {}
    for key, value in sources.items():
        name = NAMES.get(key.lower())
        if name is None:
            allowed = "train, validation (val, valid, dev), test"
            raise DataError(f"{where}: unknown split '{key}'; allowed: {allowed}.{nearest(key, NAMES)}")
        if name in found:
            raise DataError(f"{where}: two splits mean {name}: {', '.join(sources)}; keep one")
        found[name] = value
    return found


def one_split(source: str, name: str, read: Read[T], read_named: ReadNamed[T]) -> T:
    """What a source holds for one split: the split of that name, if it has named splits, else all of it."""
    named = read_named(source)
    if named is None:
        return read(source)
    matching = [part for key, part in named.items() if NAMES.get(key.lower()) == name]
    if len(matching) == 1:
        return matching[0]
    if len(named) == 1:
        return next(iter(named.values()))
    raise DataError(f"{source}: no one split for {name}; it has {', '.join(named)}")
