"""Items -> train, validation and test as bytes, cut where the user did not, with what stands in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multistep.core.values.plan import DataSpec
from multistep.data.shares import to_cut
from multistep.data.splits import held_out_table
from multistep.data.walk import few
from multistep.errors import DataError
from multistep.tasks.classes import balanced_weights
from multistep.tasks.images.decode import NO_FILE, Form, Look, Pixels, decode_all, form_of, look_at_all
from multistep.tasks.images.files import FORM, items_of, order_of, read_items
from multistep.tasks.images.items import Item

FEW = 10_000  # images: of fewer, more is held out, or intervals would prove nothing
SHARE, SMALL_SHARE = 0.1, 0.15  # of each split that is cut
MOST_HELD_OUT = 5_000  # images of a split that is cut
MOST_UNREADABLE = 0.1  # of a split's images; with more, the data is not what it seems to be
SHOWN = 3  # of what is skipped, by name


@dataclass(frozen=True)
class ImageSet:
    """A split: bytes (N, H, W, C), class numbers, the block of each image, and where each came from."""

    images: Pixels
    labels: NDArray[np.int64]
    blocks: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageSplits:
    """The three splits, `test` perhaps empty; notes are guesses, cuts, skips and duplicates, to be said aloud."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    form: Form
    notes: tuple[str, ...]
    fingerprint: str  # blake2b of all splits, hexadecimal
    weights: tuple[float, ...] | None = None  # of each class in the loss; None: all the same


@dataclass(frozen=True)
class Seen:
    """A source whose headers were read: items by split, why some are skipped, and the form that suits the rest."""

    origin: str
    parts: Mapping[str, Sequence[Item]]
    skipped: Mapping[str, dict[int, str]]
    form: Form
    notes: tuple[str, ...]
    shares: Mapping[str, float]  # of train, by the plan
    balanced: bool = False

    @property
    def train_images(self) -> int:
        return len(self.parts["train"]) - len(self.skipped["train"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the training images, in order."""
        return order_of(item.label for item in self.parts["train"])


def look_through(data: DataSpec) -> Seen:
    """Read all labels and headers. Raises DataError for what is missing, and for too many unreadable images."""
    parts, said = read_items(data)
    looks, skipped = _look(parts)
    form, notes = form_of([look for look in looks["train"] if isinstance(look, Look)])
    balanced = data.class_weights == "balanced"
    return Seen(str(data), parts, skipped, form, (*said, *notes), data.shares, balanced)


def load_splits(seen: Seen, form: Form | None = None, classes: Sequence[str] = ()) -> ImageSplits:
    """Decode, and cut whatever split is missing, the same way each time.

    `form` is what the images are turned into (None: what suits them); `classes` fixes the order of class names where
    they are those of the data. Missing splits are cut from train, by class; identical images, and those of a group,
    stay in one split. Raises DataError.
    """
    form, origin = form or seen.form, seen.origin
    notes = list(seen.notes)
    if form != seen.form:
        notes.append(f"{origin}: images are read as {form}")
    skipped = {name: dict(bad) for name, bad in seen.skipped.items()}
    decoded = {name: _decode(items, form, skipped[name]) for name, items in seen.parts.items()}
    notes += _skips(seen.parts, skipped)
    names = _classes(origin, decoded, classes)
    sets = {name: _numbered(*part, names) for name, part in decoded.items()}
    hashes = {name: _hashes(each.images) for name, each in sets.items()}
    usual = SHARE if len(sets["train"]) >= FEW else SMALL_SHARE
    if wanted := to_cut(seen.shares, sets, min(usual, MOST_HELD_OUT / len(sets["train"])), origin):
        groups = [item.group for item in decoded["train"][0]]
        cut, said = _cut(origin, sets["train"], hashes["train"], wanted, groups)
        notes += said
        hashes |= {name: [hashes["train"][i] for i in numbers] for name, numbers in cut.items()}
        sets |= {name: _part(sets["train"], numbers) for name, numbers in cut.items()}
    notes += _notes(sets, hashes, names)
    sets.setdefault("test", _part(sets["train"], []))
    if not len(sets["validation"]):
        raise DataError(_too_few(origin, sets["train"], names))
    weights = balanced_weights(sets["train"].labels, len(names)) if seen.balanced else None
    if weights is not None:
        notes.append(
            f"train: in the loss classes weigh {few(f'{n} {w:.3g}' for n, w in zip(names, weights, strict=True))}"
        )
    return ImageSplits(
        sets["train"],
        sets["validation"],
        sets["test"],
        names,
        form,
        tuple(dict.fromkeys(notes)),
        _fingerprint(sets, names) + ("+balanced" if seen.balanced else ""),
        weights,
    )


def load_one(data: DataSpec, form: Form, classes: Sequence[str]) -> tuple[ImageSet, list[str]]:
    """All images of a source in a model's form; of several splits the test split, else the validation split.

    And notes: guesses, and what was skipped. Raises DataError for labels that the model does not know.
    """
    table = held_out_table(data, FORM)
    listed, said = items_of(table, data)
    parts = {"data": listed}
    _, skipped = _look(parts)
    items, images = _decode(listed, form, skipped["data"])
    notes = [*table.notes, *said, *_skips(parts, skipped)]
    for item in items:
        if item.label not in classes:
            raise DataError(f"{item.where}: label '{item.label}' is unknown to the model; it has {_few(classes)}")
    return _numbered(items, images, classes), notes


def _too_few(origin: str, train: ImageSet, classes: Sequence[str]) -> str:
    """Why no validation split could be cut by class."""
    counts = np.bincount(train.labels, minlength=len(classes))
    most = int(counts.argmax())
    said = f"{len(train):,} images of {len(classes):,} classes, at most {counts[most]:,} of one ('{classes[most]}')"
    hint = ""
    if len(classes) > len(train) / 2:
        hint = (
            "; if its labels are no classes but captions, names or numbers, name the column that is: data.label_column"
        )
    return (
        f"{origin}: too few images of each class to cut a validation split: {said}. Give more, or name a validation "
        f"split{hint}"
    )


Decoded = tuple[list[Item], Pixels]


def _look(parts: Mapping[str, Sequence[Item]]) -> tuple[dict[str, list[Look | str]], dict[str, dict[int, str]]]:
    """What each header says, and which images have none, by split and number."""
    looks = {name: look_at_all([item.content for item in items]) for name, items in parts.items()}
    bad = {name: {i: look for i, look in enumerate(each) if isinstance(look, str)} for name, each in looks.items()}
    for name, items in parts.items():
        _require_readable(name, items, bad[name])
    return looks, bad


def _decode(items: Sequence[Item], form: Form, skipped: dict[int, str]) -> Decoded:
    """The images that can be read; reasons why others cannot are added to `skipped`."""
    images, failures = decode_all([item.content for item in items], form)
    skipped.update(failures)
    kept = [i for i in range(len(items)) if i not in skipped]
    return [items[i] for i in kept], images[kept] if len(kept) < len(items) else images


def _require_readable(name: str, items: Sequence[Item], bad: Mapping[int, str]) -> None:
    if bad and (len(bad) > MOST_UNREADABLE * len(items) or len(bad) == len(items)):
        lost = [items[i].where for i, reason in bad.items() if reason == NO_FILE]
        hint = "; name the folder that their paths are relative to with --set data.root=FOLDER" if lost else ""
        if any("http:/" in where or "https:/" in where for where in lost):
            hint = "; addresses of the web are not fetched: download the images, and name the files"
        raise DataError(f"{name}: {len(bad):,} of {len(items):,} images cannot be read: {_named(items, bad)}{hint}")


def _skips(parts: Mapping[str, Sequence[Item]], skipped: Mapping[str, Mapping[int, str]]) -> list[str]:
    notes = []
    for name, bad in skipped.items():
        _require_readable(name, parts[name], bad)
        if bad:
            notes.append(f"{name}: images skipped that cannot be read: {len(bad):,}: {_named(parts[name], bad)}")
    return notes


def _named(items: Sequence[Item], bad: Mapping[int, str]) -> str:
    shown = [f"{items[i].where} ({reason})" for i, reason in list(bad.items())[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(bad) > SHOWN else "")


def _classes(origin: str, parts: Mapping[str, Decoded], wanted: Sequence[str]) -> tuple[str, ...]:
    """The class names in order. Raises DataError for one class, or labels that training does not show."""
    names = order_of(item.label for item in parts["train"][0])
    if len(names) < 2:
        raise DataError(_of_one_class(origin, parts["train"][0][0]))
    for split, (items, _) in parts.items():
        for item in items:
            if item.label not in names:
                raise DataError(
                    f"{item.where}: label '{item.label}' in {split} is not in train, which has {_few(names)}; mend the "
                    "label, or add training images of it"
                )
    return tuple(wanted) if set(wanted) == set(names) else names


def _of_one_class(origin: str, first: Item) -> str:
    why = ""
    if isinstance(first.content, Path) and first.where == str(first.content):  # of class folders
        inside = next((each.parent for each in first.content.parents if each.name == first.label), None)
        why = f": it is the only folder with images in {inside}" if inside is not None else ""
    return (
        f"{origin}: every training image is labelled '{first.label}'; a classifier needs two classes or more{why}; "
        "give each class a folder of its own, or name the column of labels with data.label_column"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "")


def _numbered(items: Sequence[Item], images: Pixels, classes: Sequence[str]) -> ImageSet:
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[item.label] for item in items], np.int64)
    blocks = np.arange(len(items))
    if any(item.group for item in items):
        known: dict[str, int] = {}
        blocks = np.array([known.setdefault(item.group or item.where, len(known)) for item in items])
    return ImageSet(images, labels, blocks, tuple(item.where for item in items))


def _hashes(images: Pixels) -> list[bytes]:
    return [hashlib.blake2b(image, digest_size=16).digest() for image in images]


def _cut(
    origin: str, train: ImageSet, hashes: Sequence[bytes], wanted: Mapping[str, float], groups: Sequence[str | None]
) -> tuple[dict[str, list[int]], list[str]]:
    """The numbers of the training images that go into each split: by class, in the order of the images' hashes."""
    units = _units(hashes, groups)
    grouped = any(groups)
    # Room in each wanted split: for images of each class, or of groups for as many as are wanted in all.
    kinds = [0] * len(train) if grouped else train.labels.tolist()
    counts = Counter(kinds)
    room = {
        name: {kind: _share_of(n, share, len(wanted), grouped) for kind, n in counts.items()}
        for name, share in wanted.items()
    }
    members: dict[str, list[int]] = {"train": [], **{name: [] for name in wanted}}
    kept = Counter(train.labels.tolist())  # images of each class that train still has
    for unit in units:
        kind, own = kinds[unit[0]], Counter(train.labels[unit].tolist())
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
    by = "by groups" if grouped else "by class"
    return {name: sorted(numbers) for name, numbers in members.items()}, [f"{origin}: cut {by} into {counted} images"]


def _share_of(count: int, share: float, splits: int, grouped: bool) -> int:
    """How many of `count` images a split gets: one at least, but of a class with fewer than two beside them, none."""
    if grouped:
        return round(share * count)
    return 0 if count < 2 + splits else max(1, round(share * count))


def _units(hashes: Sequence[bytes], groups: Sequence[str | None]) -> list[list[int]]:
    """Images that must stay together: equal ones, and those of a group; in the order of their hashes."""
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[bytes | str, int] = {}
    for i, (digest, group) in enumerate(zip(hashes, groups, strict=True)):
        for key in (digest, f"group {group}") if group else (digest,):
            if (other := first.setdefault(key, i)) != i:
                parent[root(i)] = root(other)
    together: defaultdict[int, list[int]] = defaultdict(list)
    for i in range(len(hashes)):
        together[root(i)].append(i)
    return sorted(together.values(), key=lambda unit: min(hashes[i] for i in unit))


def _part(images: ImageSet, numbers: Sequence[int]) -> ImageSet:
    chosen = np.array(numbers, np.int64)
    names = tuple(images.names[i] for i in numbers)
    return ImageSet(images.images[chosen], images.labels[chosen], images.blocks[chosen], names)


def _notes(sets: Mapping[str, ImageSet], hashes: Mapping[str, Sequence[bytes]], classes: Sequence[str]) -> list[str]:
    """Repeats between and inside splits, classes that are hardly there, and a missing test split."""
    notes = []
    train = dict(zip(hashes["train"], sets["train"].labels.tolist(), strict=True))
    for name, each in sets.items():
        if name != "train" and (seen := [i for i, h in enumerate(hashes[name]) if h in train]):
            other = sum(train[hashes[name][i]] != sets[name].labels[i] for i in seen)
            labelled = f", {other:,} with another label" if other else ""
            notes.append(
                f"{name}: {len(seen):,} of {len(each):,} images are in train too, pixel for pixel{labelled}; on these "
                "it measures memory"
            )
    repeats = Counter(hashes["train"])
    if extra := sum(count - 1 for count in repeats.values()):
        notes.append(f"train: {extra:,} images repeat another one pixel for pixel")
    counts = np.bincount(sets["train"].labels, minlength=len(classes))
    single = [classes[i] for i in np.flatnonzero(counts == 1).tolist()]
    if single:
        notes.append(f"train: classes with one image, which can hardly be learnt: {_few(single)}")
    for name, each in sets.items():
        absent = [classes[i] for i in np.flatnonzero(np.bincount(each.labels, minlength=len(classes)) == 0).tolist()]
        if absent and len(each):
            notes.append(f"{name}: classes that it does not show, so nothing is measured of them: {_few(absent)}")
    if "test" not in sets or not len(sets["test"]):
        notes.append("there is no test split: the final score will be the validation split's own, chosen on it")
    return notes


def _fingerprint(sets: Mapping[str, ImageSet], classes: Sequence[str]) -> str:
    total = hashlib.blake2b(repr(classes).encode(), digest_size=32)
    for name in ("train", "validation", "test"):
        each = sets[name]
        total.update(f"{name} {each.images.shape}\n".encode() + each.labels.tobytes() + each.images.tobytes())
    return total.hexdigest()
