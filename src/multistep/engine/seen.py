"""Whether what a model is scored on is what its run was trained on: by path, and by what files hold."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multistep.engine.rundir import RunDirectory
from multistep.errors import RunDirectoryError

LINES_OF = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt", ".md")
LEAST_CHARACTERS = 20  # of a line that says something by being there twice
LEAST_LINES, LEAST_SHARE = 3, 0.01  # that are worth a word
MOST_FILES, MOST_BYTES = 5_000, 200 * 2**20  # that are looked into
_TEST = re.compile(r"(.*[-_. ])?test(ing)?([-_. ].*)?")  # what folders and files of a test split are called
_VALIDATION = re.compile(r"(.*[-_. ])?(val|valid|validation|dev)([-_. ].*)?")
_TRAIN = re.compile(r"(.*[-_. ])?(train|training)([-_. ].*)?")
LIKE_NEW = "so the scores tell how well that is remembered, not how well the model does on anything new"


@dataclass(frozen=True)
class _Trained:
    """One source of a run: `whole` where the run itself cut validation and test from it."""

    name: str
    path: Path
    role: str
    whole: bool


def seen_in_training(model: Path, source: str, split: str | None) -> str | None:
    """What is to be said of scores on `source`, of which `split` is scored (None: all of it); None where nothing is.

    `model` is a run directory or a model folder in one.
    """
    for trained in _sources_of(model):
        here = Path(source).expanduser()
        same = source == trained.name if not here.exists() else here.resolve() == trained.path.resolve()
        if trained.role == "validation":
            if same:
                return f"{source}: this run chose its model by this data, {LIKE_NEW}"
        elif same and split == "validation":
            return f"{source}: this run chose its model by the validation split that is scored here, {LIKE_NEW}"
        elif same and split != "test":
            but = ", but for what it cut from it for validation and test" if trained.whole else ""
            return f"{source}: this run was trained on this data{but}, {LIKE_NEW}; its own test score is in result.json"
        elif not same and split != "test" and (told := _part_of(here, trained) or _told(here, trained)):
            return told
    return None


def _part_of(here: Path, trained: _Trained) -> str | None:
    """What is to be said of one split in the folder that a run was given, by its name."""
    try:
        inside = here.resolve(strict=True).relative_to(trained.path.resolve(strict=True))
    except (OSError, ValueError):
        return None
    names = [Path(part).stem.lower() for part in inside.parts]
    if any(map(_VALIDATION.fullmatch, names)):
        return f"{here}: this run chose its model by this data, {LIKE_NEW}"
    if any(map(_TRAIN.fullmatch, names)):
        return f"{here}: this run was trained on this data, {LIKE_NEW}; its own test score is in result.json"
    return None


def _sources_of(model: Path) -> Iterator[_Trained]:
    """The files and data sets of all phases of the run that a model came out of."""
    for folder in (model, model.parent):
        run = RunDirectory(folder)
        if not (run.exists and run.resolved.exists()):
            continue
        try:
            content = run.read_resolved()
        except RunDirectoryError:
            return
        plan: Mapping[str, Any] = content.get("plan") or {}
        base = Path(str(content.get("folder", ".")))
        for data in (plan.get("data"), *(phase.get("data") for phase in plan.get("phases") or ())):
            for role in ("source", "train", "validation"):
                if data and (name := data.get(role)):
                    yield _Trained(str(name), base / Path(str(name)).expanduser(), role, role == "source")
        return


def _told(here: Path, trained: _Trained) -> str | None:
    """What of other files is the same; None where little is, or nobody can tell."""
    try:
        shared, total, what = _shared(here, trained.path, trained.whole)
    except (OSError, ValueError):
        return None
    if shared < LEAST_LINES or shared < LEAST_SHARE * total:
        return None
    return (
        f"{here}: {shared:,} of its {total:,} {what} are also in {trained.name}, which this run was trained on, "
        f"{LIKE_NEW}; leave them out for a score that does"
    )


def _shared(here: Path, there: Path, splits: bool) -> tuple[int, int, str]:
    """How many lines of one file, or files of one folder, are in the other, and of how many.

    Of a folder with splits, what is called test has never been trained on.
    """
    if here.is_file() and here.suffix.lower() in LINES_OF and there.is_file() and there.suffix.lower() in LINES_OF:
        if here.stat().st_size + there.stat().st_size > MOST_BYTES:
            return 0, 0, "lines"
        known = set(_lines(there))
        own = list(_lines(here))
        return sum(line in known for line in own), len(own), "lines"
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in _files(there):
        if splits and any(_TEST.fullmatch(Path(part).stem.lower()) for part in path.relative_to(there).parts):
            continue
        by_size[path.stat().st_size].append(path)
    own_files = list(_files(here))
    digests: dict[int, set[bytes]] = {}
    shared = 0
    for path in own_files:
        size = path.stat().st_size
        if size in by_size:
            digests.setdefault(size, {_digest(other) for other in by_size[size]})
            shared += _digest(path) in digests[size]
    return shared, len(own_files), "files"


def _lines(path: Path) -> Iterator[bytes]:
    for line in path.read_bytes().split(b"\n"):
        if len(line := line.strip().rstrip(b",")) >= LEAST_CHARACTERS:
            yield line


def _files(path: Path) -> list[Path]:
    found = [file for file in (path.rglob("*") if path.is_dir() else (path,)) if file.is_file()]
    return found if len(found) <= MOST_FILES and sum(f.stat().st_size for f in found) <= MOST_BYTES else []


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
