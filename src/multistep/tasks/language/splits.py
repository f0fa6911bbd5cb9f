"""Rows -> train, validation and test with encoded labels, cut where the user did not; what stands in two of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.names import NO_TEST
from multistep.data.shares import to_cut
from multistep.data.splits import given_splits
from multistep.data.table import Table
from multistep.errors import DataError
from multistep.tasks.labelled.counted import class_weights
from multistep.tasks.labelled.fields import is_missing
from multistep.tasks.labelled.labels import Column, Labels, classes_of, encode, find_labels
from multistep.tasks.language.columns import named_label
from multistep.tasks.language.examples import NOTHING, Examples, LabelledSplits
from multistep.tasks.language.long import IN_MEMORY, Holding, kept_splits
from multistep.tasks.language.remarks import alike, contradicting, duplicates, rare
from multistep.tasks.language.rows import Rows, columns_like, groups_of, rows_of
from multistep.tasks.order import sample_of

ENOUGH_ROWS = 20_000  # a smaller set gives more of itself, or its intervals would prove nothing
SHARE, SMALL_SHARE = 0.05, 0.1  # of validation, and of test
MOST_STRATA = 0.2  # of the texts
LEAST_TRAIN_ROWS, LEAST_HELD_OUT = 8, 2


def load_labelled(data: DataSpec) -> LabelledSplits:
    """Read what the plan names and cut whatever split is missing, the same way each time.

    Splits are taken as given from three sources, from a folder that holds files named train, validation (val, valid,
    dev) or test, from a table's column `split`, and from a Hugging Face data set. With nothing but train, 80 : 10 : 10
    of the rows are cut (90 : 5 : 5 from 20,000 rows on), each class alike; rows with the same text stay together. A
    missing validation split is cut from train; a test split missing beside a validation split stays missing.
    Tables that memory should not hold are read once into a file of the cache (`long`), of which the same comes.
    Raises DataError for labels that make no sense, or splits that are too small.
    """
    found = kept_splits(data, partial(_load, data))
    return _load(data) if found is None else found


def _load(data: DataSpec, holding: Holding = IN_MEMORY) -> LabelledSplits:
    given, notes = _given(data, labelled=True, holding=holding)
    train = given["train"]
    assert train.labels is not None, "rows are read with labels"
    # Of all that is to be cut: a kind or a separator that few rows show must not be lost with them.
    labels, guessed = find_labels(_column(train, train.names), data.labels)
    rows, more = _completed(given, classes_of(labels, _column(train, train.names)), data.shares, holding)
    notes += [*more, *(f"{train.origin}: {note}" for note in guessed)]
    parts = {name: _encoded(part, labels, train.names) for name, part in rows.items()}
    notes += [*rare(labels, parts["train"].labels, rows["train"]), *alike(labels, train.origin), *contradicting(train)]
    weights = class_weights(labels, parts["train"].labels) if data.class_weights == "balanced" else None
    if weights is not None:
        shown = ", ".join(f"{name} {w:.2g}" for name, w in list(zip(labels.names, weights, strict=True))[:8])
        notes.append(f"{train.origin}: in the loss classes weigh: {shown}{', ...' if len(weights) > 8 else ''}")
    return LabelledSplits(
        parts["train"],
        parts["validation"],
        parts.get("test", NOTHING),
        labels,
        tuple(dict.fromkeys(notes)),
        fingerprint(rows) + ("" if weights is None else "+balanced"),
        weights,
        train.columns.named if train.columns else {},
    )


def read_splits(data: DataSpec, holding: Holding = IN_MEMORY) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each split without regard to labels, and what is to be said; cut as `load_labelled` would."""
    given, notes = _given(data, labelled=False, holding=holding)
    train = given["train"]
    told, classes = _told(train, data)
    if len(told) == len(train):
        rows, more = _completed(given, classes, data.shares, holding)
        return rows, [*notes, *more]
    # Those without a label would be left out there: they change nothing of how the others are cut.
    rows, more = _completed({**given, "train": train.take(told)}, classes, data.shares, holding)
    every, kept, *held_out = groups_of(train.keys, rows["train"].keys, *(rows[n].keys for n in rows if n != "train"))
    stays = ~np.isin(every, np.concatenate(held_out))
    stays[told] = np.isin(every[told], kept)
    return {**rows, "train": train.take(np.flatnonzero(stays).tolist())}, [*notes, *more]


def _told(rows: Rows, data: DataSpec) -> tuple[list[int], list[tuple[str, ...]]]:
    """The rows with a label, and the classes of each; all rows where there is none, or labels make no sense."""
    labels, several = rows.labels or (), data.labels == "classes"
    told = [i for i, label in enumerate(labels) if not is_missing(label, several=several, named=bool(rows.names))]
    column = _column(rows.take(told), rows.names)
    try:
        if told:
            return told, classes_of(find_labels(column, data.labels)[0], column)
    except DataError:  # whoever trains on the labels will hear of it
        pass
    return list(range(len(rows))), [()] * len(rows)


def _given(data: DataSpec, *, labelled: bool, holding: Holding) -> tuple[dict[str, Rows], list[str]]:
    """The splits that there are, train among them, and what is to be said of them."""
    tables, notes = given_splits(data, holding.form)
    train = rows_of(tables["train"], data, labelled=labelled, hold=holding.hold)
    given = {"train": train}
    for name in tables:
        if name != "train":
            given[name] = _like(train, name, tables[name], data, labelled, holding)
    notes = [*(note for part in given.values() for note in part.notes), *notes]
    for name in [name for name in given if not len(given[name])]:
        if name == "train":
            raise DataError(f"{given[name].origin}: no row of the train split has a label")
        notes.append(f"{given[name].origin}: the {name} split is left out, since its labels are not told")
        del given[name]
    paired = given["train"].seconds is not None
    for part in given.values():
        if (part.seconds is not None) != paired:
            raise DataError(
                f"{part.origin}: {'one text' if paired else 'two texts'} a row, but {given['train'].origin} has "
                f"{'two' if paired else 'one'}; name data.text_column and data.second_text_column"
            )
    return given, notes


def _like(train: Rows, name: str, table: Table, data: DataSpec, labelled: bool, holding: Holding) -> Rows:
    """The rows of another split, by the columns that those of train are in.

    Of a test split that lacks the labels, as competitions hand them out, there is none that has one.
    """
    columns = train.columns
    if columns is None:
        return rows_of(table, data, labelled=labelled, hold=holding.hold)
    known = columns_like(data, columns.named, table)
    made = bool(columns.hot) and set(columns.hot) <= set(table.names)
    lacking = columns.label is not None and columns.label not in table.names and not made
    if labelled and name == "test" and lacking and known.text_column is not None:
        others = set(table.names) - {known.text_column, known.second_text_column}
        if not named_label(table, others):
            return rows_of(table, known, labelled=False, hold=holding.hold).take([])
    rows = rows_of(table, known, labelled=labelled, like=columns.hot, hold=holding.hold)
    found = {str(label).strip() for label in rows.labels or ()}
    secret = labelled and name == "test" and len(found) == 1 and not re.search(r"\w", next(iter(found)))
    return rows.take([]) if secret and not found <= {str(label).strip() for label in train.labels or ()} else rows


def _completed(
    given: dict[str, Rows], classes: Sequence[Sequence[str]], shares: Mapping[str, float], holding: Holding
) -> tuple[dict[str, Rows], list[str]]:
    """All splits, those that are missing cut from train, whose rows are of these classes."""
    rows, notes = _cut(given, classes, shares, holding.most_cut)
    rows, more = _bounded(rows, holding.most_given)
    notes += more
    if "test" not in rows:
        notes.append(NO_TEST)
    for name in ("validation", "test"):
        if name in rows:
            notes += duplicates(rows["train"], rows[name], name)
    _require_enough(rows)
    return rows, notes


def _column(rows: Rows, names: tuple[str, ...]) -> Column:
    return Column(rows.labels or (), rows.place, names)


def _encoded(rows: Rows, labels: Labels, names: tuple[str, ...]) -> Examples:
    return Examples(rows.texts, rows.seconds, encode(labels, _column(rows, rows.names or names)))


def encoded_rows(rows: Rows, labels: Labels, names: tuple[str, ...] = ()) -> Examples:
    """All rows of one source with labels that a model knows already. Raises DataError for one that it does not."""
    if not len(rows):
        raise DataError(f"{rows.origin}: no row has a label, so nothing can be scored")
    return _encoded(rows, labels, names)


# Cutting --------------------------------------------------------------------------------------------


def _cut(
    given: dict[str, Rows], classes: Sequence[Sequence[str]], shares: Mapping[str, float], most: int | None
) -> tuple[dict[str, Rows], list[str]]:
    """The splits with those that are missing cut from train; `most` rows each, unless the user says a share."""
    train = given["train"]
    usual = SHARE if len(train) >= ENOUGH_ROWS else SMALL_SHARE
    usual = usual if most is None else min(usual, most / len(train))
    if not (wanted := to_cut(shares, given, usual, train.origin)):
        return given, []
    members = _assigned(train, classes, wanted)
    parts = {name: train.take(rows) for name, rows in members.items()}
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    return {**given, **parts}, [f"{train.origin}: cut into {sizes} rows"]


def _bounded(rows: dict[str, Rows], most: int | None) -> tuple[dict[str, Rows], list[str]]:
    """Held-out splits of `most` rows at most, drawn by lot, and what is said of that."""
    found, notes = dict(rows), []
    for name in ("validation", "test"):
        if most is not None and name in rows and len(rows[name]) > most:
            found[name] = rows[name].take(sample_of(len(rows[name]), most).tolist())
            notes.append(
                f"{name}: {most:,} of {len(rows[name]):,}, drawn by lot, are scored, since they are in memory; "
                "`multistep evaluate` scores all"
            )
    return found, notes


def _assigned(rows: Rows, classes: Sequence[Sequence[str]], wanted: Mapping[str, float]) -> dict[str, list[int]]:
    """The rows of each split in their order: of each class alike, by the hash of the text, equal ones together.

    A group of equal texts stays in train if a class of theirs has no other example there: it could not be scored.
    """
    (groups,) = groups_of(rows.keys)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    strata = [_stratum(rows, i) for i in range(len(rows))]
    numbers = {name: number for number, name in enumerate(sorted(set(strata)))}
    stratum = np.minimum.reduceat(np.array([numbers[name] for name in strata], np.int64)[order], starts)
    if len(np.unique(stratum)) > MOST_STRATA * len(starts):  # numbers, or too many classes to give each split some
        stratum[:] = 0
    by_class = np.argsort(stratum, kind="stable")
    in_train = Counter(name for names in classes for name in names)
    owed = dict.fromkeys(wanted, 0.0)  # what a small class could not give is taken from the next
    split = np.zeros(len(rows), np.int64)  # 0 is train
    for left in np.split(by_class, np.flatnonzero(np.diff(stratum[by_class])) + 1):
        at, total = 0, int(sizes[left].sum())
        for number, (name, share) in enumerate(wanted.items(), start=1):
            owed[name] += share * total
            while len(left) - at > 1 and owed[name] >= 0.5 * sizes[left[at]]:
                members = order[starts[left[at]] :][: sizes[left[at]]]
                at += 1
                taken = Counter(name for i in members.tolist() for name in classes[i])
                if any(in_train[name] == count for name, count in taken.items()):
                    continue
                in_train -= taken
                owed[name] -= len(members)
                split[members] = number
    return {name: np.flatnonzero(split == number).tolist() for number, name in enumerate(("train", *wanted))}


def _stratum(rows: Rows, row: int) -> str:
    """The class that a row is counted under; numbers and lists are all alike."""
    label = None if rows.labels is None else rows.labels[row]
    return "" if isinstance(label, float | list | tuple) or is_missing(label) else str(label)


def _require_enough(given: Mapping[str, Rows]) -> None:
    train = given["train"]
    if len(train) < LEAST_TRAIN_ROWS:
        raise DataError(
            f"{train.origin}: the train split has {len(train)} rows; at least {LEAST_TRAIN_ROWS} are needed, and "
            "thousands to learn from"
        )
    for name in ("validation", "test"):
        if name in given and len(given[name]) < LEAST_HELD_OUT:
            part = given[name]
            different = int(groups_of(train.keys)[0].max()) + 1
            alike = f" (the {len(train):,} rows hold {different:,} different texts, and equal ones stay in one split)"
            why = alike if different < len(train) / 2 else ""
            raise DataError(
                f"{part.origin}: the {name} split has {len(part)} rows{why}; give at least {LEAST_HELD_OUT}, and "
                "hundreds to tell one model from another"
            )


def fingerprint(rows: Mapping[str, Rows]) -> str:
    """blake2b of all texts and labels, hexadecimal."""
    total = hashlib.blake2b(digest_size=32)
    for name in ("train", "validation", "test"):
        part = rows.get(name)
        total.update(f"{name} {len(part) if part is not None else 0}\n".encode())
        for i in range(len(part) if part is not None else 0):
            assert part is not None
            data = f"{part.whole(i)}\0{part.labels[i] if part.labels else ''}".encode()
            total.update(f"{len(data)}\n".encode() + data)  # lengths, or two cuts of one text would look alike
    return total.hexdigest()
