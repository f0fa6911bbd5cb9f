"""Whatever a user calls "my images" -> items with labels: folders, manifests, arrays, Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError, nearest
from multistep.tasks.images.arrays import DIGITS, digits, idx_parts, npz_splits
from multistep.tasks.images.decode import SUFFIXES
from multistep.tasks.images.hub import read_hub
from multistep.tasks.images.items import Item
from multistep.tasks.images.manifest import read_manifest
from multistep.tasks.splits import left_out, splits_among
from multistep.tasks.tables import TABLES, kind_of, names_in

MANIFESTS = ("manifest", "metadata", "labels")  # tables that go before class folders beside them
ALLOWED = "class folders of images, a manifest (.csv, .tsv, .jsonl), .npz, IDX files, or a Hugging Face image set"


@dataclass(frozen=True)
class Found:
    """Items by split; "" holds those of a source that names no splits."""

    splits: Mapping[str, Sequence[Item]]
    notes: tuple[str, ...] = ()


def read_items(data: DataSpec) -> Found:
    """All that a source, or one for each split, holds. Raises DataError that names file and row."""
    if data.labels in ("classes", "number"):
        raise DataError(f"data.labels is '{data.labels}'; images have one class each: leave it out, or 'class'")
    if data.source:
        return _read(data.source, data)
    given = {"train": data.train, "validation": data.validation, "test": data.test}
    splits: dict[str, Sequence[Item]] = {}
    notes: list[str] = []
    for split, source in given.items():
        if source is None:
            continue
        found = _read(source, data)
        splits[split] = _one_split(source, found, split)
        notes += found.notes
    return Found(splits, tuple(dict.fromkeys(notes)))


def _one_split(source: str, found: Found, split: str) -> Sequence[Item]:
    """What a source holds for one split: the split of that name if it has named ones, else all of it."""
    if split in found.splits:
        return found.splits[split]
    if len(found.splits) == 1:
        return next(iter(found.splits.values()))
    raise DataError(f"{source}: no split for {split}; it has {', '.join(found.splits)}")


def _read(source: str, data: DataSpec) -> Found:
    if source == DIGITS:
        return Found({"": _of_arrays(DIGITS, *digits())})
    path = Path(source).expanduser()
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    if saved or (not path.exists() and _may_be_hub_id(source)):
        parts, notes = read_hub(source, saved, data.path_column, data.label_column)
        return _named(source, parts, notes)
    if not path.exists():
        hint = nearest(path.name, names_in(path.parent))
        raise DataError(f"{source}: no such file or folder; check the path.{hint}")
    if path.is_dir():
        return _read_folder(path, data)
    if kind_of(path) == ".npz":
        arrays, notes = npz_splits(path)
        places = {split: f"{path}[{split}]" if split else str(path) for split in arrays}
        return Found({split: _of_arrays(places[split], *held) for split, held in arrays.items()}, tuple(notes))
    if kind_of(path) in TABLES:
        return _read_table(path, data)
    raise DataError(f"{path}: not a source of images; allowed: {ALLOWED}")


def _read_folder(folder: Path, data: DataSpec) -> Found:
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")))
    if parts := idx_parts(folder):
        splits = {name: _of_arrays(str(files), pixels, labels) for name, (files, pixels, labels) in parts.items()}
        return Found(splits)
    tables = [p for p in entries if p.is_file() and kind_of(p) in (*TABLES, ".npz")]
    by_split = _named_for_splits(tables)
    named = [p for p in tables if _stem(p) in MANIFESTS and kind_of(p) != ".npz"]
    folders = [p for p in entries if p.is_dir()]
    split_folders = _named_for_splits(folders)
    if by_split and not split_folders:
        return _splits_of(folder, by_split, data)
    if len(named) == 1:
        return _read_table(named[0], data)
    if split_folders:
        return _splits_of(folder, split_folders, data)
    if len(tables) == 1 and not folders:
        return _read(str(tables[0]), data)
    return _read_class_folders(folder, folders)


def _named_for_splits(paths: Sequence[Path]) -> dict[Path, str]:
    """Those that are named for a split, and which."""
    known = splits_among(_stem(path) for path in paths)
    return {path: known[_stem(path)] for path in paths if _stem(path) in known}


def _splits_of(folder: Path, parts: Mapping[Path, str], data: DataSpec) -> Found:
    splits: dict[str, Sequence[Item]] = {}
    notes = left_out(folder, parts)
    for part, name in parts.items():
        if name in splits:
            raise DataError(f"{folder}: more than one {name} split: {', '.join(p.name for p in parts)}; keep one")
        found = _read(str(part), data)
        splits[name] = _one_split(str(part), found, name)
        notes += found.notes
    return Found(splits, tuple(notes))


def _read_class_folders(folder: Path, folders: Sequence[Path]) -> Found:
    items: list[Item] = []
    empty, others = [], 0
    for each in folders:
        files = sorted(p for p in each.rglob("*") if p.is_file() and not p.name.startswith("."))
        images = [p for p in files if p.suffix.lower() in SUFFIXES]
        others += len(files) - len(images)
        items += [Item(str(p), each.name, p) for p in images]
        if not images:
            empty.append(each.name)
    if not items:
        loose = sum(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
        what = f"{loose} images but no class folders" if loose else "no class folders of images"
        raise DataError(f"{folder}: {what}; allowed: {ALLOWED}")
    notes = [f"{folder}: folders without an image left out: {', '.join(empty)}"] if empty else []
    notes += [f"{folder}: files left out that are no images by their suffix: {others:,}"] if others else []
    return Found({"": items}, tuple(notes))


def _read_table(path: Path, data: DataSpec) -> Found:
    rows, notes = read_manifest(path, data.path_column, data.label_column)
    items: dict[str, list[Item]] = {}
    for row in rows:
        file = Path(row.path)
        file = file if file.is_absolute() else path.parent / file
        item = Item(f"{row.where} ({row.path})", row.label, file, row.group)
        items.setdefault(row.split or "", []).append(item)
    return _named(str(path), items, notes)


def _named(source: str, parts: Mapping[str, Sequence[Item]], notes: Sequence[str]) -> Found:
    """Splits under the names that we know; others are left out aloud, unless there is only one."""
    names = splits_among(parts)
    if len(parts) == 1 and set(names.values()) <= {"train"}:
        return Found({"": next(iter(parts.values()))}, tuple(notes))
    splits: dict[str, Sequence[Item]] = {}
    left_out = {}
    for name, items in parts.items():
        known = names.get(name)
        if known is None:
            left_out[name] = len(items)
        elif known in splits:
            raise DataError(f"{source}: two splits mean {known}: {', '.join(parts)}; keep one")
        else:
            splits[known] = items
    if "train" not in splits and left_out:
        raise DataError(f"{source}: no split called train; it has {', '.join(parts)}")
    said = [f"{source}: left out: {', '.join(f'{n} ({c:,})' for n, c in left_out.items())}"] if left_out else []
    return Found(splits, (*notes, *said))


def _of_arrays(where: str, pixels: Any, labels: Sequence[str]) -> list[Item]:
    return [Item(f"{where} #{i}", label, image) for i, (label, image) in enumerate(zip(labels, pixels, strict=True))]


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return (name.removesuffix(Path(name).suffix) if path.is_file() else name).lower()


def _may_be_hub_id(source: str) -> bool:
    shaped = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?(:[\w.-]+)?", source) is not None
    in_a_folder_here = "/" in source and Path(source).parent.is_dir()
    return shaped and kind_of(Path(source)) not in (*TABLES, ".npz", ".gz", *SUFFIXES) and not in_a_folder_here


def order_of(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by number where all are numbers, else by name."""
    names = set(labels)
    by_number = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if by_number else 0, name)))
