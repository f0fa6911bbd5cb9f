"""Folders that are named for classes -> a table of the files in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multistep.data.folders import visible
from multistep.data.table import Table, of_columns
from multistep.errors import DataError


def class_folders(folder: Path, suffixes: Sequence[str], what: str, allowed: str) -> Table:
    """The columns `file` and `label` of the files with such suffixes, at any depth below each class's folder.

    Raises DataError where there is none; `what` they are and what is `allowed` are for the message.
    """
    files: list[str] = []
    labels: list[str] = []
    empty, others = [], 0
    for each in (path for path in visible(folder) if path.is_dir()):
        held = sorted(p for p in each.rglob("*") if p.is_file() and not p.name.startswith("."))
        wanted = [p for p in held if p.suffix.lower() in suffixes]
        others += len(held) - len(wanted)
        files += map(str, wanted)
        labels += [each.name] * len(wanted)
        if not wanted:
            empty.append(each.name)
    if not files:
        loose = sum(p.suffix.lower() in suffixes for p in folder.iterdir())
        said = f"{loose} {what} but no class folders" if loose else f"no class folders of {what}"
        raise DataError(f"{folder}: {said}; allowed: {allowed}")
    notes = [f"{folder}: folders without {what} left out: {', '.join(empty)}"] if empty else []
    notes += [f"{folder}: files left out that are no {what} by their suffix: {others:,}"] if others else []
    return of_columns(str(folder), {"file": files, "label": labels}, files, notes=tuple(notes))
