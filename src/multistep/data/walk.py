"""What is seen in folders: files at any depth, without those that systems and editors leave there unseen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Beside what begins with a point: of archives, of Python, of network drives, and of desktops.
_HIDDEN = frozenset({"__macosx", "__pycache__", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
_ABOUT = frozenset({"readme", "license", "licence", "changelog", "citation", "notice"})
SHOWN = 5  # names in a note


@dataclass(frozen=True)
class Seen:
    """The files at any depth below a folder, in the order of their paths, and those below it that are hidden."""

    files: tuple[Path, ...]
    hidden: tuple[Path, ...]

    def notes(self, folder: Path) -> list[str]:
        """That hidden files were left out, where some were."""
        return hidden_note(folder, self.hidden)


def is_hidden(name: str) -> bool:
    """Whether a name is of a file or folder that nobody put there as data: .git, ._x, __MACOSX, Thumbs.db."""
    return name.startswith(".") or name.lower() in _HIDDEN


def is_about(path: Path) -> bool:
    """Whether a file is about the data: README.md, LICENSE, rt-polaritydata.README.1.0.txt."""
    return path.stem.lower() in _ABOUT or "readme" in path.name.lower().split(".")


def visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, without what is hidden."""
    return sorted((path for path in folder.iterdir() if not is_hidden(path.name)), key=lambda path: path.name)


def files_below(folder: Path, deepest: int | None = None) -> Iterator[tuple[Path, bool]]:
    """Every file at any depth (or so many folders deep), and whether it or a folder on the way to it is hidden.

    Links to folders are followed, since data sets are often laid out by links, but none that leads back.
    """
    yield from _below(str(folder), False, deepest, (os.path.realpath(folder),))


def _below(folder: str, hidden: bool, deepest: int | None, above: tuple[str, ...]) -> Iterator[tuple[Path, bool]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:  # a folder that may not be read holds nothing for us
        return
    for entry in entries:
        unseen = hidden or is_hidden(entry.name)
        if not entry.is_dir():
            if entry.is_file():
                yield Path(entry.path), unseen
        elif deepest is None or deepest > 0:
            real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if not (entry.is_symlink() and any(real == each or each.startswith(real + os.sep) for each in above)):
                yield from _below(entry.path, unseen, None if deepest is None else deepest - 1, (*above, real))


def seen_below(folder: Path) -> Seen:
    """All files below a folder."""
    files: tuple[list[Path], list[Path]] = ([], [])
    for path, hidden in files_below(folder):
        files[hidden].append(path)
    return Seen(tuple(files[0]), tuple(files[1]))


def hidden_note(folder: Path, hidden: Sequence[Path]) -> list[str]:
    """That hidden files were left out, by the names of what hides them."""
    if not hidden:
        return []
    names = dict.fromkeys(next(part for part in path.relative_to(folder).parts if is_hidden(part)) for path in hidden)
    return [f"{folder}: hidden files left out: {len(hidden):,} ({few(names)})"]


def few(names: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
