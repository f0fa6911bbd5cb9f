"""What is worth saying of labelled texts: what stands twice, what contradicts itself, what is too rare."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from multistep.tasks.labelled.labels import Array, Labels
from multistep.tasks.language.rows import Rows, groups_of

SHOWN = 3  # groups of classes in a note


def duplicates(train: Rows, other: Rows, name: str) -> list[str]:
    """A note on the texts of `other` that stand word for word in train."""
    in_train, in_other = groups_of(train.keys, other.keys)
    there = np.zeros(1 + max(in_train.max(initial=0), in_other.max(initial=0)), bool)
    there[in_train] = True
    repeated = np.flatnonzero(there[in_other]).tolist()
    if not repeated:
        return []
    known: dict[int, set[str]] = defaultdict(set)
    there[:] = False
    there[in_other] = True
    for i in np.flatnonzero(there[in_train]).tolist():
        known[int(in_train[i])].add("" if train.labels is None else str(train.labels[i]))
    labels = other.labels or ("",) * len(other)
    differ = sum(str(labels[i]) not in known[int(in_other[i])] for i in repeated)
    with_other = f", {differ} of them with another label" if differ and other.labels else ""
    return [
        f"{name}: {len(repeated)} of {len(other)} texts stand word for word in train{with_other} (first: "
        f"{other.place(repeated[0])}); on these it measures memory"
    ]


def rare(labels: Labels, encoded: Array, rows: Rows) -> list[str]:
    """Notes on classes that can hardly be learnt: with no example in training, or one."""
    if labels.kind == "number":
        return []
    if labels.kind == "class":
        counts = np.bincount(encoded.astype(np.int64), minlength=len(labels.names))
    else:
        counts = encoded.sum(0).astype(np.int64)
    notes = []
    if missing := [name for name, count in zip(labels.names, counts, strict=True) if not count]:
        notes.append(f"{rows.origin}: classes without an example in train: {', '.join(missing)}")
    for number in np.flatnonzero(counts == 1).tolist():
        held = encoded == number if labels.kind == "class" else encoded[:, number] > 0
        place = rows.place(int(np.flatnonzero(held)[0]))
        notes.append(f"{place}: the only example of class '{labels.names[number]}' in train; it can hardly be learnt")
    return [*notes[:5], *([f"and {len(notes) - 5} more such classes"] if len(notes) > 5 else [])]


def alike(labels: Labels, origin: str) -> list[str]:
    """A note on classes whose names differ in capitals or spaces alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in labels.names:
        groups[" ".join(name.lower().split())].append(name)
    several = [names for names in groups.values() if len(names) > 1]
    if not several:
        return []
    shown = "; ".join(" and ".join(f"'{name}'" for name in names) for names in several[:SHOWN])
    more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return [
        f"{origin}: classes that differ in capitals or spaces alone are told apart: {shown}{more}; if they mean the "
        "same, write them alike"
    ]


def contradicting(rows: Rows) -> list[str]:
    """A note on texts that stand several times, with different labels."""
    if rows.labels is None:
        return []
    (groups,) = groups_of(rows.keys)
    several = np.bincount(groups, minlength=1) > 1
    first: dict[int, int] = {}
    against: dict[int, int] = {}
    for i in np.flatnonzero(several[groups]).tolist():
        group = int(groups[i])
        if str(rows.labels[first.setdefault(group, i)]).strip() != str(rows.labels[i]).strip():
            against.setdefault(group, i)
    if not against:
        return []
    group, row = next(iter(against.items()))
    where = f"{rows.place(first[group])} '{rows.labels[first[group]]}', {rows.place(row)} '{rows.labels[row]}'"
    return [f"{rows.origin}: {len(against):,} texts stand several times with different labels (first: {where})"]
