"""Which training images become validation and test where the data name no such splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from multistep.errors import DataError
from multistep.tasks.labelled.labels import Array, Labels

TENTHS = 10  # of the numbers that are labels, by size: each split gets some of each
STRATA = {"class": "by class", "classes": "by rarest label", "number": "by size of number"}


def cut_out(
    origin: str,
    labels: Array,
    of: Labels,
    hashes: Sequence[bytes],
    wanted: Mapping[str, float],
    groups: Sequence[str | None],
    marks: Sequence[bytes],
) -> tuple[dict[str, list[int]], list[str]]:
    """The numbers of the training images that go into each split: by class, in the order of `marks`, which tell what
    they are decoded from. Those whose pixels are equal, by their `hashes`, stay together.
    """
    units = _units(hashes, groups, marks)
    grouped = any(groups)
    # Room in each wanted split: for images of each class, or of groups for as many as are wanted in all.
    kinds = [0] * len(labels) if grouped else _strata(labels, of)
    counts = Counter(kinds)
    room = {
        name: {kind: _share_of(n, share, len(wanted), grouped) for kind, n in counts.items()}
        for name, share in wanted.items()
    }
    members: dict[str, list[int]] = {"train": [], **{name: [] for name in wanted}}
    held = _held(labels, of)
    kept = Counter(label for row in held for label in row)  # images of each class that train still has
    for unit in units:
        kind, own = kinds[unit[0]], Counter(label for i in unit for label in held[i])
        fits = [name for name in wanted if room[name][kind] >= (1 if grouped else len(unit))]
        spared = all(kept[label] > count for label, count in own.items())  # or train would lose a class
        chosen = fits[0] if fits and spared else "train"
        if chosen != "train":
            room[chosen][kind] -= len(unit)
            kept -= own
        members[chosen] += unit
    if grouped and (len(units) < 2 + len(wanted) or not all(members.values())):
        why = "" if len(units) < 2 + len(wanted) else " without taking a class's last ones out of train"
        raise DataError(
            f"{origin}: {len(units)} groups are too few to cut {' and '.join(wanted)} from{why}; name splits"
        )
    counted = ", ".join(f"{name} {len(numbers):,}" for name, numbers in members.items())
    by = "by groups" if grouped else STRATA[of.kind]
    return {name: sorted(numbers) for name, numbers in members.items()}, [f"{origin}: cut {by} into {counted} images"]


def _held(labels: Array, of: Labels) -> list[list[int]]:
    """The classes of each image; of numbers none."""
    if of.kind == "class":
        return [[int(label)] for label in labels]
    return [np.flatnonzero(row).tolist() for row in labels] if of.kind == "classes" else [[]] * len(labels)


def _strata(labels: Array, of: Labels) -> list[int]:
    """What each split is to have some of: each class, each label where it is an image's rarest, each tenth of numbers.

    Of images with several labels those are rarest of which there are fewest; an image without any is a kind of its own.
    """
    if of.kind == "class":
        return [int(label) for label in labels]
    if of.kind == "classes":
        counts = labels.sum(0)
        return [min(row, key=lambda k: (counts[k], k), default=-1) for row in _held(labels, of)]
    bounds = np.quantile(labels, np.linspace(0, 1, 1 + max(1, min(TENTHS, len(labels) // TENTHS)))[1:-1])
    return [int(tenth) for tenth in np.searchsorted(bounds, labels)]


def _share_of(count: int, share: float, splits: int, grouped: bool) -> int:
    """How many of `count` images a split gets: one at least, but of a class with fewer than two beside them, none."""
    if grouped:
        return round(share * count)
    return 0 if count < 2 + splits else max(1, round(share * count))


def _units(hashes: Sequence[bytes], groups: Sequence[str | None], marks: Sequence[bytes]) -> list[list[int]]:
    """Images that must stay together: equal ones, and those of a group; in the order of their marks."""
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[bytes | str, int] = {}
    for i, (digest, mark, group) in enumerate(zip(hashes, marks, groups, strict=True)):
        keys: list[bytes | str] = [digest, mark, *([f"group {group}"] if group else [])]
        for key in keys:
            if (other := first.setdefault(key, i)) != i:
                parent[root(i)] = root(other)
    together: defaultdict[int, list[int]] = defaultdict(list)
    for i in range(len(hashes)):
        together[root(i)].append(i)
    return sorted(together.values(), key=lambda unit: min(marks[i] for i in unit))
