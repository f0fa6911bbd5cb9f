"""Items -> train, validation and test as bytes, cut where the user did not, with what stands in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multistep.core.values.plan import DataSpec
from multistep.data.cache import FOLDER, LIMIT
from multistep.data.shares import to_cut
from multistep.data.splits import held_out_table
from multistep.data.walk import few
from multistep.errors import DataError
from multistep.tasks.as_trained import as_trained
from multistep.tasks.images.cutting import cut_out
from multistep.tasks.images.decode import (
    NO_FILE,
    Form,
    Look,
    decode_all,
    fits_decoded,
    form_of,
    look_at_all,
    pixels_of,
)
from multistep.tasks.images.files import FORM, items_of, order_of, read_items
from multistep.tasks.images.holding import Images, divided, hashes_of
from multistep.tasks.images.items import Item, Label
from multistep.tasks.images.stored import Stored, marks_of
from multistep.tasks.labelled.counted import class_counts, class_weights
from multistep.tasks.labelled.labels import Array, Labels

SMALL_SIDE = 64  # pixels: images up to that are decoded a second time rather than told apart by their files
FEW = 10_000  # images: of fewer, more is held out, or intervals would prove nothing
SHARE, SMALL_SHARE = 0.1, 0.15  # of each split that is cut
MOST_HELD_OUT = 5_000  # images of a split that is cut
MOST_UNREADABLE = 0.1  # of a split's images; with more, the data is not what it seems to be
SHOWN = 3  # of what is skipped, by name


@dataclass(frozen=True)
class ImageSet:
    """A split: bytes (N, H, W, C), labels, the block of each image, and where each came from.

    Labels are class numbers (N,), of several labels zeros and ones (N, labels), or numbers (N,).
    """

    images: Images
    labels: Array
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
    labels: Labels
    form: Form
    notes: tuple[str, ...]
    fingerprint: str  # blake2b of all splits, hexadecimal
    weights: tuple[float, ...] | None = None  # of each class in the loss; None: all the same

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, or of the labels; none of numbers."""
        return self.labels.names


@dataclass(frozen=True)
class Seen:
    """A source whose headers were read: items by split, why some are skipped, and the form that suits the rest."""

    origin: str
    parts: Mapping[str, Sequence[Item]]
    skipped: Mapping[str, dict[int, str]]
    form: Form
    kind: Labels  # what labels are; one class an image has no names yet
    notes: tuple[str, ...]
    shares: Mapping[str, float]  # of train, by the plan
    pixels: int  # of all images, as they lie there
    balanced: bool = False

    @property
    def train_images(self) -> int:
        return len(self.parts["train"]) - len(self.skipped["train"])

    @property
    def labels(self) -> Labels:
        """With the names of all classes of the training images, in order."""
        if self.kind.kind != "class":
            return self.kind
        return Labels("class", order_of(item.label for item in self.parts["train"]))


def look_through(data: DataSpec) -> Seen:
    """Read all labels and headers. Raises DataError for what is missing, and for too many unreadable images."""
    parts, kind, said = read_items(data)
    looks, skipped = _look(parts)
    form, notes = form_of([look for look in looks["train"] if isinstance(look, Look)])
    balanced = data.class_weights == "balanced"
    pixels = pixels_of(looks.values())
    return Seen(str(data), parts, skipped, form, kind, (*said, *notes), data.shares, pixels, balanced)


def load_splits(seen: Seen, form: Form | None = None, like: Labels | None = None) -> ImageSplits:
    """Decode, and cut whatever split is missing, the same way each time.

    `form` is what the images are turned into (None: what suits them); `like` fixes the order of class names where they
    are those of the data. Missing splits are cut from train, by class; identical images, and those of a group,
    stay in one split. Raises DataError.
    """
    form, origin = form or seen.form, seen.origin
    notes = list(seen.notes)
    if form != seen.form:
        notes.append(f"{origin}: images are read as {form}")
    skipped = {name: dict(bad) for name, bad in seen.skipped.items()}
    many = sum(map(len, seen.parts.values()))
    beforehand = fits_decoded(many, form, seen.pixels)
    decoded = {name: _decode(items, form, skipped[name], beforehand=beforehand) for name, items in seen.parts.items()}
    if not beforehand:
        notes.append(_not_beforehand(origin, many, [images for _, images in decoded.values()]))
    notes += _skips(seen.parts, skipped)
    labels = _labels(origin, decoded, seen.kind, like)
    sets = {name: _numbered(*part, labels) for name, part in decoded.items()}
    hashes = {name: hashes_of(each.images) for name, each in sets.items()}
    usual = SHARE if len(sets["train"]) >= FEW else SMALL_SHARE
    if wanted := to_cut(seen.shares, sets, min(usual, MOST_HELD_OUT / len(sets["train"])), origin):
        groups = [item.group for item in decoded["train"][0]]
        marks = _marks(decoded["train"][0], seen.form, hashes["train"] if form == seen.form else None)
        cut, said = cut_out(origin, sets["train"].labels, labels, hashes["train"], wanted, groups, marks)
        notes += said
        hashes |= {name: [hashes["train"][i] for i in numbers] for name, numbers in cut.items()}
        sets |= _parted(sets["train"], cut)
    notes += _notes(sets, hashes, labels)
    train = sets["train"]
    sets.setdefault("test", ImageSet(train.images[:0], train.labels[:0], train.blocks[:0], ()))
    if not len(sets["validation"]):
        raise DataError(_too_few(origin, sets["train"], labels))
    weights = class_weights(labels, sets["train"].labels) if seen.balanced else None
    if weights is not None:
        each = few(f"{name} {weight:.3g}" for name, weight in zip(labels.names, weights, strict=True))
        notes.append(f"train: in the loss classes weigh {each}")
    return ImageSplits(
        sets["train"],
        sets["validation"],
        sets["test"],
        labels,
        form,
        tuple(dict.fromkeys(notes)),
        _fingerprint(sets, labels) + ("+balanced" if seen.balanced else ""),
        weights,
    )


def _marks(items: Sequence[Item], form: Form, hashes: Sequence[bytes] | None) -> Sequence[bytes]:
    """What tells images apart whatever size they are read in, so that another phase's are cut alike: `form` suits them.

    Of small ones their pixels in it, whatever file they come from; of others what they are decoded from, since decoding
    them a second time takes too long. `hashes` are those of the pixels, where they are read in that form.
    """
    contents = [item.content for item in items]
    if max(form.height, form.width) <= SMALL_SIDE:
        return hashes_of(decode_all(contents, form)[0]) if hashes is None else hashes
    return [mark if isinstance(mark, bytes) else str(mark).encode() for mark in marks_of(contents, form)]


def load_one(
    data: DataSpec, form: Form, labels: Labels, columns: Mapping[str, str] | None = None
) -> tuple[ImageSet, list[str]]:
    """All images of a source in a model's form; of several splits the test split, else the validation split.

    `columns` are those that the model's training data were read by, which are looked for first. And notes: guesses, and
    what was skipped. Raises DataError for labels that the model does not know.
    """
    table = held_out_table(data, FORM)
    data = as_trained(data, columns or {}, table)
    listed, _, said = items_of(table, data, labels)
    parts = {"data": listed}
    looks, skipped = _look(parts)
    beforehand = fits_decoded(len(listed), form, pixels_of(looks.values()))
    items, images = _decode(listed, form, skipped["data"], beforehand=beforehand)
    notes = [*table.notes, *said, *_skips(parts, skipped)]
    for item, unknown in _unknown(items, labels):
        raise DataError(f"{item.where}: label '{unknown}' is unknown to the model; it has {_few(labels.names)}")
    return _numbered(items, images, labels), notes


def _too_few(origin: str, train: ImageSet, labels: Labels) -> str:
    """Why no validation split could be cut."""
    classes = labels.names
    if labels.kind != "class":
        return f"{origin}: {len(train):,} images are too few to cut a validation split; give more, or name one"
    counts = np.bincount(train.labels, minlength=len(classes))
    most = int(counts.argmax())
    said = f"{len(train):,} images of {len(classes):,} classes, at most {counts[most]:,} of one ('{classes[most]}')"
    hint = ""
    if all(name.lstrip("-").isdigit() for name in classes):
        hint = "; if the labels are numbers to be predicted, say --set data.labels=number"
    elif len(classes) > len(train) / 2:
        hint = "; if its labels are no classes but captions or names, name the column that is: data.label_column"
    return (
        f"{origin}: too few images of each class to cut a validation split: {said}. Give more, or name a validation "
        f"split{hint}"
    )


Decoded = tuple[list[Item], Images]


def _look(parts: Mapping[str, Sequence[Item]]) -> tuple[dict[str, list[Look | str]], dict[str, dict[int, str]]]:
    """What each header says, and which images have none, by split and number."""
    looks = {name: look_at_all([item.content for item in items]) for name, items in parts.items()}
    bad = {name: {i: look for i, look in enumerate(each) if isinstance(look, str)} for name, each in looks.items()}
    for name, items in parts.items():
        _require_readable(name, items, bad[name])
    return looks, bad


def _decode(items: Sequence[Item], form: Form, skipped: dict[int, str], *, beforehand: bool) -> Decoded:
    """The images that can be read; reasons why others cannot are added to `skipped`."""
    if not beforehand:
        return _mark(items, form, skipped)
    images, failures = decode_all([item.content for item in items], form)
    skipped.update(failures)
    kept = [i for i in range(len(items)) if i not in skipped]
    for place, i in enumerate(kept):  # in their own memory, of which there may be no second one
        if place < i:
            images[place] = images[i]
    return [items[i] for i in kept], images[: len(kept)]


def _mark(items: Sequence[Item], form: Form, skipped: dict[int, str]) -> Decoded:
    """The images that will be decoded when they are asked for; of what cannot be read, what shows without that."""
    fine = [i for i in range(len(items)) if i not in skipped]
    marks = dict(zip(fine, marks_of([items[i].content for i in fine], form), strict=True))
    skipped.update({i: mark for i, mark in marks.items() if isinstance(mark, str)})
    digests = {i: mark for i, mark in marks.items() if isinstance(mark, bytes)}
    kept = [items[i] for i in digests]
    contents, names = [item.content for item in kept], [item.where for item in kept]
    return kept, Stored.of(contents, names, list(digests.values()), form)


def _not_beforehand(origin: str, many: int, parts: Sequence[Images]) -> str:
    again = any(isinstance(images, Stored) and images.decoded_again for images in parts)
    room = f"; the cache has no room for them, so each epoch decodes them again ({FOLDER} and {LIMIT} give it more)"
    return f"{origin}: {many:,} images are decoded while they are trained on, not beforehand{room if again else ''}"


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


def _labels(origin: str, parts: Mapping[str, Decoded], kind: Labels, like: Labels | None) -> Labels:
    """What labels are, with names in order. Raises DataError for one class, or labels that training does not show."""
    train = parts["train"][0]
    found = kind if kind.kind != "class" else Labels("class", order_of(item.label for item in train))
    if found.kind == "class" and len(found.names) < 2:
        raise DataError(_of_one_class(origin, train[0]))
    if found.kind == "number" and len({item.label for item in train}) < 2:
        raise DataError(
            f"{origin}: the label of every training image is {train[0].label}, so there is nothing to predict; name "
            "the column of labels with data.label_column"
        )
    for split, (items, _) in parts.items():
        for item, unknown in _unknown(items, found):
            raise DataError(
                f"{item.where}: label '{unknown}' in {split} is not in train, which has {_few(found.names)}; mend the "
                "label, or add training images of it"
            )
    return replace(found, names=like.names) if like and set(like.names) == set(found.names) else found


def _unknown(items: Sequence[Item], labels: Labels) -> Iterator[tuple[Item, str]]:
    """The labels that are none of these, with the images that have them."""
    for item in items if labels.kind != "number" else ():
        for name in _names(item.label):
            if name not in labels.names:
                yield item, name


def _names(label: Label) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (str(label),)


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


def _numbered(items: Sequence[Item], images: Images, of: Labels) -> ImageSet:
    number = {name: i for i, name in enumerate(of.names)}
    labels: Array
    if of.kind == "number":
        labels = np.array([item.label for item in items], np.float64)
    elif of.kind == "class":
        labels = np.array([number[str(item.label)] for item in items], np.int64)
    else:
        labels = np.zeros((len(items), len(number)))
        for row, item in enumerate(items):
            labels[row, [number[name] for name in _names(item.label)]] = 1.0
    blocks = np.arange(len(items))
    if any(item.group for item in items):
        known: dict[str, int] = {}
        blocks = np.array([known.setdefault(item.group or item.where, len(known)) for item in items])
    return ImageSet(images, labels, blocks, tuple(item.where for item in items))


def _parted(images: ImageSet, members: Mapping[str, Sequence[int]]) -> dict[str, ImageSet]:
    """The parts of a set, which hold each image once between them."""
    found = {}
    held = divided(images.images, list(members.values()))
    for (name, numbers), part in zip(members.items(), held, strict=True):
        chosen = np.array(numbers, np.int64)
        names = tuple(images.names[i] for i in numbers)
        found[name] = ImageSet(part, images.labels[chosen], images.blocks[chosen], names)
    return found


def _notes(sets: Mapping[str, ImageSet], hashes: Mapping[str, Sequence[bytes]], labels: Labels) -> list[str]:
    """Repeats between and inside splits, classes that are hardly there, and a missing test split."""
    notes = []
    train = dict(zip(hashes["train"], sets["train"].labels.tolist(), strict=True))
    for name, each in sets.items():
        if name != "train" and (seen := [i for i, h in enumerate(hashes[name]) if h in train]):
            own = sets[name].labels.tolist()
            other = sum(train[hashes[name][i]] != own[i] for i in seen)
            labelled = f", {other:,} with another label" if other else ""
            notes.append(
                f"{name}: {len(seen):,} of {len(each):,} images are in train too, pixel for pixel{labelled}; on these "
                "it measures memory"
            )
    repeats = Counter(hashes["train"])
    if extra := sum(count - 1 for count in repeats.values()):
        notes.append(f"train: {extra:,} images repeat another one pixel for pixel")
    if single := [name for name, count in class_counts(labels, sets["train"].labels).items() if count == 1]:
        notes.append(f"train: classes with one image, which can hardly be learnt: {_few(single)}")
    for name, each in sets.items():
        absent = [cls for cls, count in class_counts(labels, each.labels).items() if not count] if len(each) else []
        if absent:
            notes.append(f"{name}: classes that it does not show, so nothing is measured of them: {_few(absent)}")
    if "test" not in sets or not len(sets["test"]):
        notes.append("there is no test split: the final score will be the validation split's own, chosen on it")
    return notes


def _fingerprint(sets: Mapping[str, ImageSet], labels: Labels) -> str:
    kind = "" if labels.kind == "class" else labels.kind
    total = hashlib.blake2b(f"{labels.names!r}{kind}".encode(), digest_size=32)
    for name in ("train", "validation", "test"):
        each = sets[name]
        total.update(f"{name} {each.images.shape}\n".encode() + each.labels.tobytes())
        if isinstance(each.images, Stored):
            total.update(b"".join(each.images.digests))
        else:
            total.update(each.images.reshape(-1).data)
    return total.hexdigest()
