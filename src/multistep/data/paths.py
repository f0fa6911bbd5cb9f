"""What tables call the files beside them -> where these files are: below a root, by id, from another machine."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from multistep.data.archives import is_archive, stem_of_archive, unpacked
from multistep.data.names import NAMES
from multistep.data.table import Table
from multistep.data.walk import files_below, visible
from multistep.errors import DataError

DEEPEST = 6  # folders below the root in which files are looked for
ABOVE = 3  # folders above a table that its paths may be relative to, as in recipes of Kaldi
LOOKED_AT = 200  # rows, where a column is told by what it names
MOST_LOOKED_AT = 3_000_000  # files: a home folder is no place to look for one


def files_of(
    table: Table, names: Sequence[str], endings: Sequence[str], root: str | None
) -> tuple[list[Path], list[str]]:
    """The file that each row names, and what is to be said of where they were found.

    A name is a path below `root` (None: the table's folder), in any spelling of Windows or Unix. What is not there is
    looked for below the root by the end of its path, by its name, or, where it has none of the `endings` (small
    letters), by its name without one, also in archives that lie in the root; of files of one name in several folders
    that one counts whose folder has most of the table, or is called like it. A file that differs from its name in more
    folders than the others do is another one. A name that nothing is found for stays where it says: whoever opens the
    file counts it. Raises DataError for a root that is not there, and a name that several files have.
    """
    base = root_of(table, root)
    if base is None:
        return [Path(name).expanduser() for name in names], []
    placed = [base / Path(name).expanduser() for name in names]
    missing = [i for i, path in enumerate(placed) if not path.is_file()]
    if not missing:
        return placed, []
    if root is None and (above := _above(base, [names[i] for i in missing])) is not None:
        note = f"{table.origin}: paths are relative to {above}"
        placed = [path if path.is_file() else above / names[i] for i, path in enumerate(placed)]
        missing = [i for i in missing if not placed[i].is_file()]
        return placed, [note]
    index = _Index(base, tuple(endings), Path(table.origin).name)
    wanted = {i: _parts(names[i]) for i in missing}
    index.vote(wanted.values())
    bests = {i: index.best(parts) for i, parts in wanted.items()}
    # Where most files are at their place, or share a folder with their name, one that does not is lost.
    alike = Counter(most for most, best in bests.values() if best)
    usual = alike.most_common(1)[0][0] if alike and 2 * len(missing) > len(names) else None
    found: dict[int, Path] = {}
    for i, (most, best) in bests.items():
        if most < (len(wanted[i]) - 1 if usual is None else usual):
            continue
        if len(best) > 1:
            listed = " and ".join("/".join(index.within[path]) for path in best[:2])
            raise DataError(
                f"{table.place(i)}: '{names[i]}' may be {listed}; write its path from {base}, or name the folder with "
                "data.root"
            )
        if best:
            found[i] = placed[i] = best[0]
    return placed, [*_notes(table, index, names, found), *(index.notes if found else [])]


def naming_column(table: Table, columns: Sequence[str], endings: Sequence[str], root: str | None) -> str | None:
    """Of these columns the one that names files below the root in most of its rows, by a sample; None if none does."""
    base = root_of(table, root)
    if base is None or not len(table):
        return None
    index = _Index(base, tuple(endings), Path(table.origin).name)
    step = max(1, len(table) // LOOKED_AT)
    shares = {}
    for column in columns:
        cells = [str(cell) for cell in table.column(column)[::step] if cell is not None]
        shares[column] = sum(bool(index.candidates(_parts(cell))) for cell in cells) / max(1, len(cells))
    best = max(shares, key=lambda column: shares[column], default=None)
    return best if best is not None and shares[best] > 0.5 else None


def root_of(table: Table, root: str | None) -> Path | None:
    """The folder that a table's paths are relative to: the named one, else the table's. Raises DataError."""
    if root is None:
        return table.folder
    given = Path(root).expanduser()
    tried = [given] if given.is_absolute() or table.folder is None else [given, table.folder / given]
    for path in tried:
        if path.is_dir():
            return path
    raise DataError(f"data.root: no folder {' or '.join(map(str, tried))}; name the folder that paths are relative to")


def _above(folder: Path, names: Sequence[str]) -> Path | None:
    """A folder above in which most of the files are, by a sample of them."""
    sample = [name for name in names[:: max(1, len(names) // 20)] if "/" in name]
    for parent in folder.absolute().parents[:ABOVE]:
        if sample and sum((parent / name).is_file() for name in sample) > len(sample) / 2:
            return parent
    return None


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path in small letters, whichever system wrote it."""
    plain = re.sub(r"^[A-Za-z]:", "", name.strip().replace("\\", "/"))
    return tuple(part.lower() for part in PurePosixPath(plain).parts if part not in ("/", "..", "."))


@dataclass
class _Index:
    """The files below a folder by their names, and without suffix."""

    base: Path
    endings: tuple[str, ...]
    table: str
    by_name: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    within: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    votes: Counter[Path] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._add(self.base, ())
        names = {path.name for path in visible(self.base)}
        for path in visible(self.base):
            if path.is_file() and is_archive(path) and (stem := stem_of_archive(path)) not in names:
                folder = unpacked(path)
                self._add(folder, (stem,))
                self.notes.append(f"{path}: unpacked in {folder}")

    def _add(self, folder: Path, above: tuple[str, ...]) -> None:
        for number, (path, hidden) in enumerate(files_below(folder, DEEPEST)):
            if number > MOST_LOOKED_AT:
                raise DataError(
                    f"{folder}: too many files to look for those of {self.table}; name their folder with data.root"
                )
            name = path.name.lower()
            if hidden or not name.endswith(self.endings):
                continue
            self.within[path] = (*above, *path.relative_to(folder).parts)
            self.by_name[name].append(path)
            self.by_name[name[: -len(path.suffix)] + "/"].append(path)  # a slash is in no name

    def candidates(self, parts: tuple[str, ...]) -> list[Path]:
        if not parts:
            return []
        name = parts[-1]
        if name in self.by_name:
            return self.by_name[name]
        stem = name if not name.endswith(self.endings) else name.rpartition(".")[0]
        return self.by_name.get(stem + "/", [])

    def vote(self, wanted: Iterable[tuple[str, ...]]) -> None:
        """Count how much of the table each folder has."""
        for parts in wanted:
            self.votes.update({path.parent for path in self.candidates(parts)})

    def best(self, parts: tuple[str, ...]) -> tuple[int, list[Path]]:
        """The files that may be meant, those alone that nothing tells apart, and how many folders are alike."""
        ranked = {path: self._rank(path, parts) for path in self.candidates(parts)}
        most = max(ranked.values(), default=(-1, 0, 0))
        return most[0], [path for path, rank in ranked.items() if rank == most]

    def _rank(self, path: Path, parts: tuple[str, ...]) -> tuple[int, int, int]:
        """Parts of the path that are alike from behind, whether its folder is the table's, and the folder's share."""
        own = [part.lower() for part in self.within[path][:-1]]
        alike = 0
        for one, other in zip(reversed(own), reversed(parts[:-1]), strict=False):
            if one != other:
                break
            alike += 1
        meant, here = _split_in(self.table), _split_in("/".join(own))
        fits = 1 if here == meant else -1 if here and (meant or here != "train") else 0
        return alike, fits, self.votes[path.parent]


def _split_in(name: str) -> str | None:
    """The split that a word of a name is of."""
    return next((NAMES[word] for word in re.split(r"[\W_\d]+", name.lower()) if word in NAMES), None)


def _notes(table: Table, index: _Index, names: Sequence[str], found: dict[int, Path]) -> list[str]:
    if not found:
        return []
    folders = Counter("/".join(index.within[path][:-1]) or "." for path in found.values())
    listed = ", ".join(f"{name}/ {count:,}" for name, count in folders.most_common(4))
    first = next(iter(found))
    more = ", ..." if len(folders) > 4 else ""
    return [
        f"{table.origin}: files found by their names below {index.base}: {listed}{more} (first: '{names[first]}' is "
        f"{'/'.join(index.within[found[first]])})"
    ]
