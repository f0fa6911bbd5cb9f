"""What a run needs no more once it has ended: its checkpoints, removed file by file, and nothing but what it wrote."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multistep.core.values.history import History
from multistep.engine.checkpoints import LEFTOVERS, MANIFEST
from multistep.engine.plain import to_json
from multistep.engine.rundir import RunDirectory, write_atomically
from multistep.errors import RunDirectoryError


@dataclass(frozen=True)
class Cleaned:
    """What was removed (or, of a dry run, would be), what was left, and why it may still be wanted.

    `freed` are bytes: those of files that another run shares by a link are not counted, for they stay on the disk.
    `strangers` are paths within `checkpoints/` that the run did not write, and that were left alone.
    """

    removed: tuple[str, ...]
    freed: int
    kept: tuple[str, ...]
    strangers: tuple[str, ...]


def needed_afterwards(history: History) -> set[str]:
    """The checkpoints of a finished run from which another run may still go on: where its phases ended, except the
    last one's. A plan that is edited behind a phase takes that phase over from here.
    """
    return {phase.finished.head for phase in history.phases[:-1] if phase.finished and phase.finished.head}


def clean(directory: RunDirectory, history: History, *, all_but_model: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove the checkpoints that an ended run needs no more; `all_but_model`: also those that other runs may take
    over, and the TensorBoard events, which `multistep report` writes anew.

    The model, the baseline, the journal, the evaluations' tables, the result and the report stay. Raises
    RunDirectoryError for a run that has not ended: it needs its checkpoints to go on.
    """
    if not (history.finished or _failed(history)):
        raise RunDirectoryError(
            f"{directory.folder}: this run has not finished, and goes on from its checkpoints; `multistep resume "
            f"{directory.folder}` finishes it. To give it up, remove the whole folder"
        )
    spared = set() if all_but_model or not history.finished else needed_afterwards(history)
    made = {record.trial.id for phase in history.phases for record in phase.trials.values()}
    folders = sorted(directory.checkpoints.iterdir()) if directory.checkpoints.is_dir() else []
    known = {name for folder in folders for name in _listed(folder)} | {MANIFEST}
    removed, kept, strangers, freed = list[str](), list[str](), list[str](), 0
    for folder in folders:
        if not _is_own(folder, made):
            strangers.append(folder.name)
        elif folder.name in spared:
            kept.append(folder.name)
        else:
            removed.append(folder.name)
            own = [folder / name for name in sorted(known)]
            left = [path for path in _files(folder) if path not in own]
            strangers += [path.relative_to(directory.checkpoints).as_posix() for path in left]
            freed += _remove([path for path in own if path.is_file()], folder, dry_run=dry_run)
    if directory.start.is_file() and not directory.start.is_symlink():  # the first weights of a user's own model
        freed += _remove([directory.start], directory.checkpoints, dry_run=dry_run)
    if all_but_model and directory.events.is_dir() and not directory.events.is_symlink():
        own = [path for path in _files(directory.events) if path.name.startswith("events.out.tfevents.")]
        freed += _remove(own, directory.events, dry_run=dry_run)
    found = Cleaned(tuple(removed), freed, tuple(kept), tuple(strangers))
    if not dry_run and directory.result.exists():
        _remember(directory, found)
    return found


def _failed(history: History) -> bool:
    return bool(history.phases) and history.phase.finished is not None and history.phase.finished.head is None


def _is_own(folder: Path, trials: Container[str]) -> bool:
    """Whether a folder is a checkpoint of one of these trials, or what a kill left of one."""
    name = folder.name
    for ending in LEFTOVERS:
        if name.startswith(".") and name.endswith(ending):
            name = name[1:].removesuffix(ending)
    trial, at, step = name.removesuffix(".damaged").rpartition("@")
    return folder.is_dir() and not folder.is_symlink() and at == "@" and step.isdecimal() and trial in trials


def _listed(folder: Path) -> list[str]:
    """The files of a checkpoint by its manifest, those alone that lie in it."""
    try:
        names = list(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []
    return [name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _remove(files: Iterable[Path], folder: Path, *, dry_run: bool) -> int:
    """Remove files, and the folders that this leaves empty; returns the bytes that it frees."""
    freed = 0
    for path in files:
        status = path.lstat()
        freed += status.st_size if status.st_nlink == 1 else 0
        if not dry_run:
            path.unlink()
    if not dry_run:
        if not folder.is_dir():
            return freed
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            if not inner.is_symlink() and not any(inner.iterdir()):
                inner.rmdir()
        if not any(folder.iterdir()):
            folder.rmdir()
    return freed


def _remember(directory: RunDirectory, found: Cleaned) -> None:
    """Have result.json say what is left; what was removed before counts too."""
    record = json.loads(directory.result.read_text(encoding="utf-8"))
    before = record.get("checkpoints") or {"removed": 0, "freed": 0}
    removed, freed = before["removed"] + len(found.removed), before["freed"] + found.freed
    record["checkpoints"] = {"removed": removed, "freed": freed, "kept": list(found.kept)}
    write_atomically(directory.result, to_json(record, indent=1))


def what_is_left(checkpoints: Mapping[str, Any]) -> str:
    """The closing line of a run whose checkpoints were removed, from `checkpoints` of result.json."""
    removed, kept = checkpoints["removed"], checkpoints["kept"]
    said = f"The run has ended, so its checkpoints ({removed}, {size(checkpoints['freed'])}) were removed: "
    if kept:
        said += f"a plan that is edited behind a phase still goes on from {', '.join(kept)}, but "
    return said + "a phase added at the end would train this one again. To keep them, train with --keep all."


def sentences(found: Cleaned, run: Path, *, dry_run: bool = False) -> list[str]:
    """What was done, and what can no longer be done, in plain words."""
    verb = "Would remove" if dry_run else "Removed"
    count = f"{len(found.removed)} checkpoint" + ("" if len(found.removed) == 1 else "s")
    said = ["Nothing to remove: no checkpoint is left that nothing needs."]
    if found.removed or found.freed:
        said = [f"{verb} {count}, {size(found.freed)}. A phase added to this plan would train the last one again."]
    if found.kept:
        said.append(
            f"Kept where phases ended ({', '.join(found.kept)}), so that a plan edited behind them need not train them "
            f"again; `multistep clean {run} --all-but-model` removes that too."
        )
    if found.strangers:
        said.append(f"Left alone, since this run did not write it: {', '.join(found.strangers)}.")
    return said


def size(count: int) -> str:
    """Bytes in the unit that people read: 1.2 GB."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} bytes" if units[0] == "bytes" else f"{value:.3g} {units[0]}"
