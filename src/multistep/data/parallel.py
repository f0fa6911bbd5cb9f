"""Texts in one file and their labels in another, line by line -> a table: train_text.txt beside train_labels.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multistep.data.class_names import with_class_names
from multistep.data.names import NAMES
from multistep.data.table import Table, of_columns
from multistep.data.text import PACKED, kind_of, read_said
from multistep.data.walk import visible
from multistep.errors import DataError

SPLIT = "split"
LABELS = frozenset({"label", "labels", "target", "targets"})
TEXTS = frozenset({"text", "texts", "sentence", "sentences", "review", "reviews", "data", "input", "inputs", ""})
_KINDS = (".txt", ".text", ".labels", ".label")


def parallel_texts(folder: Path, encoding: str | None = None) -> Table | None:
    """The columns `text`, `label` and, where names tell it, `split`; None where a folder is not so laid out.

    As of TweetEval, whose mapping.txt names the classes. Raises DataError where a file has more lines than its pair.
    """
    pairs = _pairs(folder)
    if not pairs:
        return None
    texts, labels, splits, places = list[str](), list[str](), list[str](), list[str]()
    for split, (said, called) in pairs.items():
        lines, names = (_lines(path, encoding) for path in (said, called))
        if len(lines) != len(names):
            raise DataError(
                f"{called}: {len(names):,} labels, but {said.name} has {len(lines):,} texts; each line of one belongs "
                "to that of the other: mend the files"
            )
        texts += lines
        labels += [name.strip() for name in names]
        splits += [split] * len(lines)
        places += [f"{said}:{number}" for number in range(1, len(lines) + 1)]
    said, called = next(iter(pairs.values()))
    note = f"{folder}: the label of each line of {said.name} is the same line of {called.name}"
    columns: dict[str, Sequence[object]] = {"text": texts, "label": labels, **({SPLIT: splits} if any(splits) else {})}
    roles = {name: name for name in ("text", "label")}
    return with_class_names(of_columns(str(folder), columns, places, notes=(note,), roles=roles), folder)


def holds_parallel_texts(folder: Path) -> bool:
    """Whether a folder holds a file of texts and one of their labels, by their names."""
    return folder.is_dir() and bool(_pairs(folder))


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The files of texts and of labels of each split ("" where names tell none)."""
    found: dict[str, dict[bool, Path]] = {}
    for path in visible(folder):
        told = _told_by(path) if path.is_file() and kind_of(path) in _KINDS else None
        if told is not None:
            split, of_labels = told
            found.setdefault(split, {}).setdefault(of_labels, path)
    pairs = {split: (held[False], held[True]) for split, held in found.items() if len(held) == 2}
    return pairs if "train" in pairs or set(pairs) == {""} else {}


def _told_by(path: Path) -> tuple[str, bool] | None:
    """The split of a file and whether it holds labels, by its name; None for any other."""
    words = (
        Path(path.stem if path.suffix.lower() in PACKED else path.name)
        .stem.lower()
        .replace("-", "_")
        .replace(".", "_")
        .split("_")
    )
    if path.suffix.lower() in (".labels", ".label"):
        words.append("labels")
    split = next((NAMES[word] for word in words if word in NAMES), "")
    rest = "_".join(word for word in words if word not in NAMES)
    if rest in LABELS or rest.rpartition("_")[2] in LABELS:
        return split, True
    return (split, False) if rest in TEXTS and (rest or split) else None


def _lines(path: Path, encoding: str | None) -> list[str]:
    text, _ = read_said(path, encoding)
    return text.removesuffix("\n").split("\n")
