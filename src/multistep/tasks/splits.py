"""Which source is which split: what users name, folders, files and columns that do so, Hugging Face data sets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError, nearest
from multistep.tasks.tables import TABLES, Table, is_saved_set, kind_of, quoted

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
}
ALLOWED = "train (training), validation (valid, val, dev, development, eval, evaluation), test (testing)"
COLUMNS = ("split", "subset", "partition")  # of tables, that say of each row which split it is in
NO_TEST = "there is no test split: the final score will be the validation split's own, chosen on it"
SHOWN = 5  # names in a note
_DATA = (*TABLES, ".txt", ".md", ".json")
T = TypeVar("T")
Read = Callable[[str], Mapping[str, T]]  # a source by the splits that it names; all under "" where it names none


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Which of these names are of splits, and of which: train, Testing; or seg_train, where there is seg_test.

    A longer name counts only beside one that differs in nothing but the split: train_station and test_tube are none.
    """
    families: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        words = re.split(r"([-_. ]+)", name.strip().lower())
        for i, word in enumerate(words):
            if word in NAMES:
                families["".join((*words[:i], "*", *words[i + 1 :]))][name] = NAMES[word]
    if "*" in families:
        return families["*"]
    several = (family for family in families.values() if len(set(family.values())) > 1)
    return {name: split for family in several for name, split in family.items()}


def given_splits(source: str | Mapping[str, str], read: Read[T]) -> tuple[dict[str, T], list[str]]:
    """The splits that the user named, train among them, and what is to be said; a source without names is train alone.

    Raises DataError where no train split is found, or two sources mean the same split.
    """
    if not isinstance(source, str):
        paths = _by_user(source)
        if "train" not in paths:
            raise DataError(f"data: no train split; given: {', '.join(source)}")
        return {name: one_split(path, name, read) for name, path in paths.items()}, []
    files, notes = split_files(source)
    if files:
        _require_train(files, source, [Path(path).name for path in files.values()])
        return {name: one_split(path, name, read) for name, path in files.items()}, notes
    parts = read(source)
    known = splits_among(parts)
    if not known and len(parts) == 1:
        return {"train": next(iter(parts.values()))}, []
    _require_train(known.values(), source, list(parts))
    found = {split: parts[name] for name, split in _once(known, source).items()}
    others = [name for name in parts if name not in known]
    return found, [f"{source}: splits left out: {', '.join(others)}"] if others else []


def one_split(source: str, name: str, read: Read[T]) -> T:
    """What a source holds for one split: the split of that name, if it has named splits, else all of it."""
    files, _ = split_files(source)
    if name in files:
        return one_split(files[name], name, read)
    parts = read(source)
    known = splits_among(parts)
    matching = [part for key, part in parts.items() if known.get(key) == name]
    if len(matching) == 1:
        return matching[0]
    if len(parts) == 1:
        return next(iter(parts.values()))
    raise DataError(f"{source}: no one split for {name}; it has {', '.join(parts)}")


def held_out_source(data: DataSpec) -> str:
    """What is scored of the data: of a folder that holds splits, its test split, else its validation split."""
    source = data.source or data.test or data.validation or data.train or ""
    files, _ = split_files(source)
    return next((files[name] for name in ("test", "validation", "train") if name in files), source)


def held_out(parts: Mapping[str, T]) -> T:
    """Of the splits of one source the test split, else the validation split, else the first."""
    by_split = {split: parts[name] for name, split in splits_among(parts).items()}
    return next((by_split[name] for name in ("test", "validation") if name in by_split), next(iter(parts.values())))


def _by_user(sources: Mapping[str, str]) -> dict[str, str]:
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


# Folders --------------------------------------------------------------------------------------------


def split_files(source: str) -> tuple[dict[str, str], list[str]]:
    """The files or folders of a folder that are named after splits, by split, and a note on what stands beside them.

    Raises DataError for two of the same split. Train may be missing: whoever trains has to ask.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() or is_saved_set(folder):
        return {}, []
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))]
    if "train" not in [NAMES.get(stem_of(path).lower()) for path in entries]:
        # A script called test.py makes no split of the texts beside it.
        entries = [path for path in entries if path.is_dir() or kind_of(path) in _DATA]
    known = splits_among(stem_of(path) for path in entries)
    chosen = {path: known[stem_of(path)] for path in entries if stem_of(path) in known}
    splits = list(chosen.values())
    if twice := [path.name for path, split in chosen.items() if splits.count(split) > 1]:
        raise DataError(f"{source}: more than one file for a split: {', '.join(twice)}; keep one each")
    return {split: str(path) for path, split in chosen.items()}, left_out(folder, chosen)


def left_out(folder: Path, chosen: Collection[Path]) -> list[str]:
    """A note on what stands beside the splits of a folder and looks like one: folders, or files of the same kind."""
    kinds = {_sort(path) for path in chosen}
    others = [path for path in sorted(folder.iterdir()) if path not in chosen and _sort(path) in kinds]
    names = [path.name for path in others if not path.name.startswith((".", "__"))]
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{folder}: left out, since their names are not those of splits: {', '.join(names[:SHOWN])}{more}"]


def stem_of(path: Path) -> str:
    """A folder's name, or a file's without .gz and the suffix that says how to read it."""
    if path.is_dir():
        return path.name
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).stem


def _sort(path: Path) -> str:
    return "folder" if path.is_dir() else kind_of(path)


# Columns --------------------------------------------------------------------------------------------


def split_rows(table: Table, taken: Collection[str | None] = ()) -> tuple[Table, Mapping[str, Sequence[int]]]:
    """A table without its column of splits, and the rows of each split; all under "" if it has no such column.

    `taken` are columns that hold something else, by the user's word. A column whose values are no names of splits at
    all is left where it is, with a note. Raises DataError for a row with none, or an unknown one, beside others.
    """
    usual = [name for wanted in COLUMNS for name in table.names if name.strip().lower() == wanted]
    column = next((name for name in usual if name not in taken), None)
    if column is None:
        return table, {"": range(len(table))}
    values = ["" if value is None else str(value).strip() for value in table.column(column)]
    known = splits_among(dict.fromkeys(values))
    if not known:
        seen = quoted(list(dict.fromkeys(values))[:SHOWN])
        note = f"{table.origin}: column '{column}' names no splits ({seen}), so rows are not split by it"
        return replace(table, notes=(*table.notes, note)), {"": range(len(table))}
    parts: dict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        if value not in known:
            problem = f"unknown split '{value}'" if value else "no split, though other rows have one"
            raise DataError(f"{table.place(row)}: {problem} in '{column}'; allowed: {ALLOWED}.{nearest(value, known)}")
        parts[known[value]].append(row)
    sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in parts.items())
    note = f"{table.origin}: splits from column '{column}': {sizes} rows"
    return replace(table.without(column), notes=(*table.notes, note)), parts


def together(sources: Mapping[str, Mapping[str, T]]) -> dict[str, list[T]]:
    """What several sources hold of each split, in order. Raises DataError where some name splits and some do not."""
    found: dict[str, list[T]] = defaultdict(list)
    for parts in sources.values():
        for name, part in parts.items():
            found[name].append(part)
    if "" in found and len(found) > 1:
        lacking, having = (next(o for o in sources if ("" in sources[o]) == lacks) for lacks in (True, False))
        raise DataError(f"{lacking}: no column says which split a row is in, but {having} has one; mend one of them")
    return dict(found)
