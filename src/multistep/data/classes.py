"""Folders that are named for classes -> tables of the files in them, or of the texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from multistep.data.class_names import with_class_names
from multistep.data.names import NAMES, begins_with_split
from multistep.data.strangers import by_suffix, strangers
from multistep.data.table import Table, of_columns
from multistep.data.text import read_said, read_text
from multistep.data.walk import few, hidden_note, is_about, seen_below, visible
from multistep.errors import DataError

TEXTS = (".txt", ".text", ".md", "")  # the suffixes of files that are a text each
SPLIT = "split"  # the column of splits that lie within each class's folder
_NO_CLASSES = frozenset(  # folders of what has no class, or is about what has one
    [
        "unsup",
        "unlabeled",
        "unlabelled",
        "unsupervised",
        "annotations",
        "annotation",
        "trimaps",
        "segmentations",
        "bounding_boxes",
    ]
)
_FEW_LOOSE = 8  # texts whose names tell their classes; fewer may be called so by chance
_NUMBERED = re.compile(r"(?P<name>.*[^\W\d_].*?)[ ._-]*\(?\d+\)?")
_CAMERAS = frozenset(
    {"img", "image", "images", "photo", "pic", "picture", "dsc", "dscn", "frame", "file", "scan", "pxl"}
)


def is_no_class(folder: Path) -> bool:
    """Whether a folder's name says that it is none of a class."""
    return folder.name.lower() in _NO_CLASSES


def class_folders(folder: Path, suffixes: Sequence[str], what: str, allowed: str) -> Table:
    """The columns `file` and `label` of the files with such suffixes, at any depth below each class's folder.

    Files that lie loose are labelled by names like cat.12.jpg where all have such; else the table has no `label`. Where
    every class holds a folder for each split, these are told in the column `split`. Raises DataError where there is
    no file; `what` they are and what is `allowed` are for the message.
    """
    files: list[str] = []
    labels: list[str] = []
    empty, unlabelled, others, within = [], dict[str, int](), list[str](), set[str]()
    hidden: list[Path] = []
    entries = visible(folder)
    for each in (path for path in entries if path.is_dir()):
        seen = seen_below(each)
        wanted = [path for path in seen.files if path.suffix.lower() in suffixes]
        hidden += seen.hidden
        if is_no_class(each):
            unlabelled[each.name] = len(wanted)
            continue
        others += [path.name for path in seen.files if path.suffix.lower() not in suffixes]
        files += map(str, wanted)
        labels += [each.name] * len(wanted)
        within |= {path.relative_to(each).parts[0] for path in wanted if path.parent != each}
        if not wanted:
            empty.append(each.name)
    loose = [path for path in entries if path.suffix.lower() in suffixes and path.is_file()]
    if not files:
        return _of_loose(folder, loose, what, allowed)
    notes = [f"{folder}: folders without {what} left out: {', '.join(empty)}"] if empty else []
    notes += [f"{folder}: {what} left out that have no class: {n:,} in '{name}'" for name, n in unlabelled.items()]
    if others:
        notes.append(
            f"{folder}: files left out that are no {what} by their suffix: {len(others):,} ({by_suffix(others)})"
        )
    notes += [f"{folder}: {what} left out that lie beside the class folders: {len(loose):,}"] if loose else []
    notes += hidden_note(folder, hidden)
    known = begins_with_split(dict.fromkeys(labels))
    if len(set(known.values())) > 1 and set(labels) <= known.keys():
        raise DataError(
            f"{folder}: its folders are parts of splits by their names ({few(known)}), not classes; put all of each "
            "split into one folder: train, validation, test"
        )
    columns = {"file": files, "label": labels}
    if within and all(name.lower() in NAMES for name in within) and len(within) > 1:
        depth = len(folder.parts) + 1
        columns[SPLIT] = [Path(file).parts[depth] for file in files]
    elif within:
        notes.append(
            f"{folder}: classes are the folders in it ({few(dict.fromkeys(labels))}); those inside them tell no "
            f"classes apart ({few(sorted(within))})"
        )
    roles = {name: name for name in ("file", "label")}
    return with_class_names(of_columns(str(folder), columns, files, notes=tuple(notes), roles=roles), folder)


def _of_loose(folder: Path, loose: Sequence[Path], what: str, allowed: str) -> Table:
    """Files in a folder without class folders: with labels from their names, where these tell classes apart."""
    if not loose:
        raise DataError(f"{folder}: no class folders of {what}; allowed: {allowed}{strangers(folder)}")
    files = list(map(str, loose))
    found = [_NUMBERED.fullmatch(path.stem) for path in loose]
    names = [match["name"].strip() for match in found if match]
    counts = Counter(names)
    if (
        len(names) == len(loose)
        and len(counts) > 1
        and min(counts.values()) > 1
        and not _CAMERAS & {*map(str.lower, counts)}
    ):
        listed = few(f"{name} ({count:,})" for name, count in counts.most_common())
        note = f"{folder}: labels are from the names of the files, such as {loose[0].name}: {listed}"
        return of_columns(str(folder), {"file": files, "label": names}, files, notes=(note,))
    return of_columns(str(folder), {"file": files}, files)


def labels_beside(folder: Path, suffixes: Sequence[str]) -> Table | None:
    """The columns `file` and `label` of files with a .cls of the same name beside each, as in a WebDataset's archive.

    None where there are none, or some lack theirs.
    """
    files = [path for path in visible(folder) if path.suffix.lower() in suffixes and path.is_file()]
    if not files or not all(path.with_suffix(".cls").is_file() for path in files):
        return None
    labels = [read_text(path.with_suffix(".cls")).strip() for path in files]
    names = list(map(str, files))
    note = f"{folder}: the label of each is in the .cls file beside it"
    return of_columns(str(folder), {"file": names, "label": labels}, names, notes=(note,))


def text_classes(folder: Path, encoding: str | None = None) -> Table | None:
    """The columns `text` and `label` of folders that are named for classes, as of aclImdb; None where there are none.

    A text is a file that ends in .txt or .md, or has no suffix. Raises DataError for what is no text.
    """
    entries = visible(folder)
    if sum(any(_is_text(path) for path in visible(each)) for each in entries if each.is_dir()) < 2:
        loose = [path for path in entries if _is_text(path) and not is_about(path)]
        table = _of_loose(folder, loose, "texts", "") if len(loose) >= _FEW_LOOSE else None
        if table is None or "label" not in table.names:
            return None
    else:
        table = class_folders(folder, TEXTS, "texts", "")
    files = [str(file) for file in table.column("file")]
    texts, guessed = [], list[str]()
    for file in files:
        text, said = read_said(Path(file), encoding) if Path(file).stat().st_size else ("", ())
        texts.append(text)
        guessed += said
    more = [f"{folder}: texts that are not UTF-8: {len(guessed):,}, first {guessed[0]}"] if guessed else []
    columns: dict[str, Sequence[object]] = {"text": texts, **{n: table.column(n) for n in table.names if n != "file"}}
    roles = {name: name for name in ("text", "label")}
    return of_columns(str(folder), columns, files, notes=(*table.notes, *more), roles=roles)


def _is_text(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in TEXTS
