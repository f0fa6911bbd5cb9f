"""Validation and test cut from train where they are missing or a share, whatever the splits are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from multistep.data.shares import to_cut
from multistep.errors import DataError, PlanError

SHARE = 0.1
LEAST = 20  # examples, of which a split can be cut
MOST_CLASSES = 1000
MOST_NAMED = 10  # classes whose counts are all said

Indices = NDArray[np.int64]
Labels = NDArray[np.int64]


class Divisible(Protocol):
    """Examples of which some can be taken by their places."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of how they were read."""

    def __len__(self) -> int: ...

    def part(self, places: Indices, name: str) -> Self:
        """Some of the examples, under that name."""


S = TypeVar("S", bound=Divisible)
LabelsOf = Callable[[S], Labels | None]


def split_up(
    given: Mapping[str, object], read: Callable[[str, object], S], labels: LabelsOf[S]
) -> tuple[dict[str, S], tuple[str, ...]]:
    """The splits "train", "validation" and perhaps "test", and what is to be said about them.

    A number between 0 and 1 for validation or test is the share of train that is cut for it. `read` makes a split of
    what is given, `labels` tells the class of each of its examples where it has one.
    """
    shares = {name: _share(name, value) for name, value in given.items() if name != "train" and _is_number(value)}
    if (total := sum(shares.values())) >= 1:
        raise PlanError(f"validation and test take {total:g} of train; leave more than nothing of it")
    splits = {name: read(name, value) for name, value in given.items() if value is not None and name not in shares}
    notes = [note for split in splits.values() for note in split.notes]
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{name}: holds no examples")
    whole = len(splits["train"])
    # A test split is asked for here: whoever hands over data sets has often put one away.
    for name, share in to_cut({"test": 0.0, **shares}, splits, SHARE, "train").items():
        splits["train"], splits[name], told = cut(splits["train"], name, round(share * whole), labels)
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


def cut(train: S, name: str, count: int, labels: LabelsOf[S]) -> tuple[S, S, str]:
    """What is left of train, `count` examples cut from it by lot (always the same), and what is to be said of it.

    Classes that the lot left out of one part, and of which there are two examples, have one there all the same.
    """
    if len(train) < LEAST:
        raise DataError(f"train: {len(train)} examples are too few to cut {name} from; give {name}=...")
    order = np.random.default_rng(0).permutation(len(train))
    count = min(max(1, count), len(train) - 1)
    held, kept = order[:count], order[count:]
    moved = 0
    if (classes := labels(train)) is not None:
        moved = keep_classes(held, kept, classes) + keep_classes(kept, held, classes)
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


def classes_counted(splits: Mapping[str, S], labels: LabelsOf[S]) -> str | None:
    """How many examples each class has in each split, in words; None where there are no classes."""
    found = {name: each for name, split in splits.items() if (each := labels(split)) is not None}
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


def as_classes(numbers: NDArray[Any]) -> Labels | None:
    """Numbers, one an example, as class numbers; None where they are no whole numbers, or too many for classes."""
    if numbers.ndim != 1 or not (numbers.dtype == bool or np.issubdtype(numbers.dtype, np.number)):
        return None
    if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any():
        return None
    labels = numbers.astype(np.int64)
    return labels if len(np.unique(labels)) <= min(MOST_CLASSES, len(labels) // 2) else None
