"""What folders hold: what is seen in them, and which entries are splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from multistep.data.form import Form
from multistep.data.names import NAMES
from multistep.data.sets import is_saved_set
from multistep.data.text import TABLES, kind_of
from multistep.errors import DataError

SHOWN = 5  # names in a note
LISTS = ("manifest", "metadata", "labels")  # tables that say what the files beside them are
_DATA = (*TABLES, ".txt", ".md", ".json")


def visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, without what is hidden."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))


def split_paths(source: str, form: Form) -> tuple[dict[str, list[str]], list[str]]:
    """The files or folders of a folder that are named after splits, by split, and a note on what stands beside them.

    Raises DataError for two of the same split. Train may be missing: whoever trains has to ask.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() or is_saved_set(folder):
        return {}, []
    entries = visible(folder)
    if form.describes:
        entries = _listed_or_named(entries, form)
    elif "train" not in [NAMES.get(stem_of(path).lower()) for path in entries if kind_of(path) != ".py"]:
        # A script called test.py makes no split of the texts beside it.
        entries = [path for path in entries if path.is_dir() or kind_of(path) in _DATA]
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
    return dict(found), left_out(folder, chosen) if chosen else []


def _listed_or_named(entries: list[Path], form: Form) -> list[Path]:
    """Of a folder with tables and other things those that may be splits: tables where they are named for all."""
    tables = [path for path in entries if path.is_file() and kind_of(path) in form.tables]
    folders = [path for path in entries if path.is_dir()]
    named, among = (form.splits_among(map(stem_of, paths)) for paths in (tables, folders))
    if "train" in named.values() or (named and not among):
        return tables
    if any(stem_of(path).lower() in LISTS for path in tables):
        return []
    return [] if tables and "train" not in among.values() else folders


def left_out(folder: Path, chosen: Collection[Path]) -> list[str]:
    """A note on what stands beside the splits of a folder and looks like one: folders, or files of the same kind."""
    kinds = {_sort(path) for path in chosen}
    names = [path.name for path in visible(folder) if path not in chosen and _sort(path) in kinds]
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{folder}: left out, since their names are not those of splits: {', '.join(names[:SHOWN])}{more}"]


def stem_of(path: Path) -> str:
    """A folder's name, or a file's without .gz and the suffix that says how to read it."""
    if path.is_dir():
        return path.name
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).stem


def _sort(path: Path) -> str:
    return "folder" if path.is_dir() else kind_of(path)
