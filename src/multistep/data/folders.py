"""What folders hold: what is seen in them, and which entries are splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from multistep.data.archives import is_archive, stem_of_archive, unpacked
from multistep.data.class_names import is_class_list
from multistep.data.form import Form
from multistep.data.names import NAMES
from multistep.data.opening import opened
from multistep.data.sets import is_hub_folder, is_saved_set
from multistep.data.text import PACKED, TABLES, kind_of
from multistep.data.walk import few, visible
from multistep.errors import DataError

LISTS = ("manifest", "metadata", "labels")  # tables that say what the files beside them are
TEXT_LISTS = (".txt", ".lst", ".list", ".trn")  # kinds of files that may list items without a header
_DATA = (*TABLES, ".txt", ".md", ".json", ".tokens")


def split_paths(source: str, form: Form) -> tuple[dict[str, list[str]], list[str]]:
    """The files or folders of a folder that are named after splits, by split, and a note on what stands beside them.

    Raises DataError for two of the same split. Train may be missing: whoever trains has to ask.
    """
    source, said = opened(source, form)
    folder = Path(source).expanduser()
    if not folder.is_dir() or is_saved_set(folder) or is_hub_folder(folder) or form.by_class(folder):
        return {}, []
    entries = _without_twins(visible(folder))
    if form.describes:
        entries = _listed_or_named(entries, form)
    elif "train" not in [NAMES.get(stem_of(path).lower()) for path in entries if kind_of(path) != ".py"]:
        # A script called test.py makes no split of the texts beside it.
        entries = [path for path in entries if _is_folder(path) or _kind_of(path) in _DATA]
    known = form.splits_among(stem_of(path) for path in entries)
    chosen = {path: known[stem_of(path)] for path in entries if stem_of(path) in known}
    if form.tree and "train" not in chosen.values() and any(p.is_dir() and p not in chosen for p in entries):
        return {}, []  # the tests of a program
    found: dict[str, list[str]] = defaultdict(list)
    for path, split in chosen.items():
        found[split].append(str(path))
    for split, paths in found.items():
        if len(paths) > 1 and not form.loose:
            names = ", ".join(Path(path).name for path in paths)
            raise DataError(f"{source}: more than one {split} split: {names}; keep one")
    return dict(found), [*said, *left_out(folder, chosen)] if chosen else []


def _without_twins(entries: list[Path]) -> list[Path]:
    """Without archives that were unpacked beside themselves."""
    names = {path.name for path in entries}
    return [path for path in entries if not (is_archive(path) and stem_of_archive(path) in names)]


def _listed_or_named(entries: list[Path], form: Form) -> list[Path]:
    """Of a folder with tables and other things those that may be splits: tables where they are named for all."""
    tables = [path for path in entries if not path.is_dir() and _kind_of(path) in form.tables]
    # A .json beside images or sounds is more often a list of names than a table, unless a split is called so.
    tables = [path for path in tables if not is_submission(path) and not is_class_list(path)]
    splits = form.splits_among(map(stem_of, tables))
    tables = [path for path in tables if _kind_of(path) != ".json" or stem_of(path) in splits]
    folders = [path for path in entries if _is_folder(path)]
    named, among = (form.splits_among(map(stem_of, paths)) for paths in (tables, folders))
    if "train" in named.values() or (named and not among):
        return tables
    if "train" not in among.values() and (listed := _lists_of_splits(entries, form)):
        return listed
    if any(stem_of(path).lower() in LISTS for path in tables):
        return []
    if not tables:
        return folders
    training = [path for path in folders if among.get(stem_of(path)) == "train"]
    # Files that lie loose in the folders of splits are named by the table beside these.
    return folders if training and not any(_is_loose(path, form) for path in training) else []


def _lists_of_splits(entries: list[Path], form: Form) -> list[Path]:
    """Text files without a header that list the items of each split: train.txt and test.txt beside the images."""
    files = [path for path in entries if path.suffix.lower() in TEXT_LISTS and path.is_file()]
    among = form.splits_among(map(stem_of, files))
    if "train" not in among.values():
        return []
    listed = [path for path in files if stem_of(path) in among and form.names_items(path)]
    return listed if "train" in {among[stem_of(path)] for path in listed} else []


def is_submission(path: Path) -> bool:
    """Whether a table is the example of what a competition wants to be handed in."""
    return "submission" in path.name.lower()


def _is_loose(folder: Path, form: Form) -> bool:
    """Whether the items of a folder lie in it without further folders, or in one of its own name."""
    if not folder.is_dir():
        return is_archive(folder) and _is_loose(unpacked(folder), form)
    entries = visible(folder)
    inner = [path for path in entries if path.is_dir()]
    if len(inner) == 1 and len(entries) == 1 and inner[0].name.lower() == folder.name.lower():
        return _is_loose(inner[0], form)
    return not inner and any(path.name.lower().endswith(form.items) for path in entries)


def left_out(folder: Path, chosen: Collection[Path]) -> list[str]:
    """A note on what stands beside the splits of a folder and looks like one: folders, or files of the same kind."""
    kinds = {_sort(path) for path in chosen}
    names = [path.name for path in visible(folder) if path not in chosen and _sort(path) in kinds]
    if not names:
        return []
    return [f"{folder}: left out, since their names are not those of splits: {few(names)}"]


def stem_of(path: Path) -> str:
    """A folder's name, or a file's without the suffix that says how to read it and those that say how it is packed."""
    if path.is_dir():
        return path.name
    name = Path(stem_of_archive(path))
    if is_archive(path) and kind_of(name) not in _DATA:
        return name.name
    return Path(name.stem if name.suffix.lower() in PACKED else name.name).stem


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, or an archive of one."""
    return path.is_dir() or (is_archive(path) and _kind_of(path) not in _DATA)


def _kind_of(path: Path) -> str:
    return kind_of(Path(stem_of_archive(path)) if is_archive(path) else path)


def _sort(path: Path) -> str:
    return "folder" if _is_folder(path) else _kind_of(path)
