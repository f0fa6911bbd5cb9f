"""The splits of what the user gave: validation and test cut from train where they are missing or a share."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from multistep.data.shares import to_cut
from multistep.errors import DataError, PlanError
from multistep.tasks.own.data import Indices, Split
from multistep.tasks.own.layout import TARGET_KEYS
from multistep.tasks.own.loaders import split_given

SHARE = 0.1
LEAST = 20  # examples, of which a split can be cut
MOST_CLASSES = 1000
MOST_NAMED = 10  # classes whose counts are all said

Labels = NDArray[np.int64]


def read_splits(given: Mapping[str, object], target: str | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits "train", "validation" and perhaps "test", and what is to be said about them.

    A number between 0 and 1 for validation or test is the share of train that is cut for it.
    """
    shares = {name: _share(name, value) for name, value in given.items() if name != "train" and _is_number(value)}
    if (total := sum(shares.values())) >= 1:
        raise PlanError(f"validation and test take {total:g} of train; leave more than nothing of it")
    splits = {
        name: split_given(name, value) for name, value in given.items() if value is not None and name not in shares
    }
    notes = [note for split in splits.values() for note in split.notes]
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{name}: holds no examples")
    whole = len(splits["train"])
    # A test split is asked for here: whoever hands over data sets has often put one away.
    for name, share in to_cut({"test": 0.0, **shares}, splits, SHARE, "train").items():
        splits["train"], splits[name], told = cut(splits["train"], name, round(share * whole), target)
        because = name if name in shares else f"no {name} was given"
        part = "a tenth" if share == SHARE else f"{share:g}"
        notes.append(
            f"{because}: {part} of train, {len(splits[name]):,} examples drawn by lot, is held out for it{told}"
        )
    return {name: splits[name] for name in ("train", "validation", "test") if name in splits}, tuple(notes)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _share(name: str, value: Any) -> float:
    if not (0 < value < 1 or (value == 0 and name == "test")):  # no test split, as in a plan
        raise PlanError(f"{name} is {value!r}; allowed: a data set, or the share of train between 0 and 1 ({name}=0.2)")
    return float(value)


def cut(train: Split, name: str, count: int, target: str | None) -> tuple[Split, Split, str]:
    """What is left of train, `count` examples cut from it by lot (always the same), and what is to be said of it.

    Classes that the lot left out of one part, and of which there are two examples, have one there all the same.
    """
    if len(train) < LEAST:
        raise DataError(f"train: {len(train)} examples are too few to cut {name} from; give {name}=...")
    order = np.random.default_rng(0).permutation(len(train))
    count = min(max(1, count), len(train) - 1)
    held, kept = order[:count], order[count:]
    moved = 0
    if (labels := labels_of(train, target)) is not None:
        moved = keep_classes(held, kept, labels) + keep_classes(kept, held, labels)
    told = f"; {moved} of them exchanged, so that both have examples of rare classes" if moved else ""
    return train.part(np.sort(kept), "train"), train.part(np.sort(held), name), told


def keep_classes(part: Indices, rest: Indices, labels: Labels) -> int:
    """Exchange examples so that `part` has one of each class of which `rest` has two; the number of classes moved."""
    moved = 0
    for label in np.setdiff1d(labels[rest], labels[part]):
        places = np.flatnonzero(labels[rest] == label)
        classes, counts = np.unique(labels[part], return_counts=True)
        if len(places) < 2 or counts.max() < 2:
            continue
        given = np.flatnonzero(labels[part] == classes[counts.argmax()])[0]
        part[given], rest[places[0]] = rest[places[0]], part[given]
        moved += 1
    return moved


def labels_of(split: Split, target: str | None) -> Labels | None:
    """The class of each example, as far as that is known without reading the items; None where there are no classes."""
    found = _given_labels(split, target)
    if found is None or found.ndim != 1 or not (found.dtype == bool or np.issubdtype(found.dtype, np.number)):
        return None
    taken = found if split.indices is None else found[split.indices]
    if not np.isfinite(taken).all() or (taken != np.floor(taken)).any():
        return None
    labels = taken.astype(np.int64)
    return labels if len(np.unique(labels)) <= min(MOST_CLASSES, len(labels) // 2) else None


def _given_labels(split: Split, target: str | None) -> NDArray[Any] | None:
    if split.items is None:
        found = _target_in(split.whole, target)
        return found.detach().cpu().numpy() if isinstance(found, Tensor) else None
    columns = getattr(split.items, "column_names", None)  # of Hugging Face's datasets
    if isinstance(columns, list):
        keys = [target] if target else [key for key in TARGET_KEYS if key in columns]
        return _as_array(list(split.items[keys[0]])) if len(keys) == 1 and keys[0] in columns else None
    for name in ("targets", "labels"):
        found = getattr(split.items, name, None)
        if isinstance(found, list | tuple | np.ndarray | Tensor) and len(found) == len(split.items):
            return _as_array(found)
    if isinstance(split.items, list | tuple):
        parts = [_target_in(item, target) for item in split.items]
        return _as_array([part.item() if isinstance(part, Tensor) and part.numel() == 1 else part for part in parts])
    return None


def _target_in(value: Any, target: str | None) -> Any:
    """The target of a batch or item, by its key or its place."""
    if isinstance(value, Mapping):
        keys = [target] if target else [key for key in TARGET_KEYS if key in value]
        return value.get(keys[0]) if len(keys) == 1 else None
    return value[-1] if isinstance(value, tuple | list) and len(value) > 1 else None


def _as_array(found: Any) -> NDArray[Any] | None:
    try:
        return np.asarray(found)
    except (TypeError, ValueError, RuntimeError):  # of several shapes
        return None


def class_counts(splits: Mapping[str, Split], target: str | None) -> str | None:
    """How many examples each class has in each split, in words; None where there are no classes."""
    found = {name: labels for name, split in splits.items() if (labels := labels_of(split, target)) is not None}
    if "train" not in found or not 2 <= len(np.unique(found["train"])) <= MOST_CLASSES:
        return None
    said = []
    for name in ("train", "validation", "test"):
        if name not in found:
            continue
        classes, counts = np.unique(found[name], return_counts=True)
        pairs = [f"{label}: {count:,}" for label, count in zip(classes, counts, strict=True)]
        if len(pairs) > MOST_NAMED:
            order = np.argsort(counts, kind="stable")
            largest, smallest = order[-1], order[0]
            pairs = [f"{len(pairs)} classes, from {pairs[smallest]} to {pairs[largest]}"]
        said.append(f"{name} {', '.join(pairs)}")
    return "labels by class: " + "; ".join(said)
