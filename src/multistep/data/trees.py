"""A folder of texts or code, at any depth -> a table with a file a row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multistep.data.long import TextFiles
from multistep.data.table import Table, of_columns
from multistep.data.text import kind_of, read_said
from multistep.data.walk import is_hidden
from multistep.errors import DataError

SPOKEN = (".srt", ".vtt", ".lrc", ".log", ".tokens")  # subtitles, logs, and what WikiText is called
PROSE = (".txt", ".md", ".markdown", ".rst", ".tex", ".org", ".adoc", ".text", *SPOKEN)
_CODE = """
    .py .pyi .pyx .ipynb .js .jsx .mjs .cjs .ts .tsx .vue .svelte .java .kt .kts .scala .groovy .clj .c .h .cc .cpp .cxx
    .hh .hpp .cu .cuh .m .mm .swift .go .rs .zig .rb .php .pl .pm .lua .r .jl .hs .ml .mli .fs .fsx .cs .vb .dart .ex
    .exs .erl .elm .lisp .el .scm .rkt .sh .bash .zsh .fish .ps1 .bat .sql .html .htm .css .scss .sass .less .proto
    .graphql .toml .yaml .yml .cmake .mk .gradle .v .sv .vhd .asm .s .f90 .f .pas .nim .cr .d
"""
CODE = frozenset(_CODE.split())
VENDORED = frozenset(
    {"node_modules", "bower_components", "vendor", "third_party", "site-packages", "venv", "env", "dist-packages"}
)
_MADE = frozenset({"build", "dist", "target", "out"})  # beside sources: what was made of them
_SOURCES = ("package.json", "setup.py", "pyproject.toml", "Cargo.toml", "pom.xml", "CMakeLists.txt", "Makefile")
LONGEST_LINE = 2000  # characters on average: what has longer ones was written by a machine
MOST_AT_ONCE = 2**26  # bytes of a file that is read whole where memory should not hold all
_SHOWN = 5


@dataclass
class _Tree:
    """What is found below a folder."""

    files: list[Path] = field(default_factory=list)
    hidden: int = 0
    vendored: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)


def texts_below(folder: Path, encoding: str | None = None, *, long: bool = False) -> Table:
    """All texts below a folder: its code if there is more of that than prose, else the prose of its commonest kind.

    Hidden files and folders and those of other people's code (node_modules, vendor, ...) are left out and counted, as
    are files that are no text, and such as a machine wrote (minified). The columns are `text` and `file`.
    Of notebooks the cells are read, without what they put out. With `long` no text stays in memory: each file is read
    again when its text is asked for, very long ones in pieces. Raises DataError where nothing is left.
    """
    tree = _Tree()
    _walk(folder, tree)
    sizes = _sizes(tree)
    code = [kind for kind in sizes if kind in CODE]
    prose = [kind for kind in sizes if kind in PROSE]
    if sum(sizes[kind] for kind in code) > sum(sizes[kind] for kind in prose):
        kinds, what = code, "files of code"
    elif prose:
        kinds, what = [max(prose, key=lambda kind: sizes[kind])], "texts"
    else:
        held = ", ".join(f"{kind or 'no suffix'} ({n})" for kind, n in tree.others.most_common(_SHOWN))
        raise DataError(
            f"{folder}: no text in this folder or below it{f'; it holds {held}' if held else ''}; allowed: "
            f"{', '.join(PROSE[:4])}, code such as .py, or tables"
        )
    texts, files, unread, machine = [], [], [], 0
    notes: list[str] = []
    for path in (path for path in tree.files if kind_of(path) in kinds):
        if long and path.stat().st_size > MOST_AT_ONCE:
            files.append(str(path))
            continue
        try:
            text, said = _read(path, encoding)
        except DataError:  # empty, or no text in spite of its name
            unread.append(path)
            continue
        if kind_of(path) in CODE and len(text) > LONGEST_LINE * (text.count("\n") + 1):
            machine += 1
            continue
        if not long:
            texts.append(text)
        files.append(str(path))
        notes += said
    if not files:
        raise DataError(f"{folder}: its {what} are empty, or no text")
    counts = Counter(kind_of(Path(file)) for file in files)
    shown = ", ".join(f"{kind} {n:,}" for kind, n in counts.most_common(_SHOWN))
    aside = [*_left_out(tree, kinds), *([f"{machine} minified"] if machine else [])]
    aside += [f"{len(unread)} empty or no text ({unread[0].name})"] if unread else []
    said_aside = f"; left out: {'; '.join(aside)}" if aside else ""
    notes = [f"{folder}: {len(files):,} {what} at any depth ({shown}), each a document{said_aside}", *notes[:_SHOWN]]
    if not long:
        return of_columns(str(folder), {"text": texts, "file": files}, files, notes=tuple(notes))
    columns = {"text": TextFiles(files, lambda path: _read(path, encoding)[0], encoding, MOST_AT_ONCE), "file": files}
    return Table(
        str(folder),
        dict.fromkeys(columns, True),
        range(1, len(files) + 1),
        "row",
        columns.__getitem__,
        notes=tuple(notes),
        roles={name: name for name in columns},
        place_of=files.__getitem__,
        each_of=columns.__getitem__,
    )


def _read(path: Path, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    text, said = read_said(path, encoding)
    return (cells_of(text) if kind_of(path) == ".ipynb" else text), said


def text_size(folder: Path) -> int:
    """How many bytes of prose and code there are below a folder."""
    tree = _Tree()
    _walk(folder, tree)
    return _sizes(tree).total()


def _sizes(tree: _Tree) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for path in tree.files:
        sizes[kind_of(path)] += path.stat().st_size
    return sizes


def cells_of(notebook: str) -> str:
    """The code and the prose of a Jupyter notebook, cell by cell; what is no notebook as it is."""
    try:
        cells = json.loads(notebook)["cells"]
        return "\n\n".join(text for cell in cells if (text := "".join(cell["source"]).strip()))
    except (ValueError, KeyError, TypeError):
        return notebook


def _walk(folder: Path, tree: _Tree) -> None:
    entries = sorted(folder.iterdir())
    made = any(path.name in _SOURCES for path in entries)
    for path in entries:
        if is_hidden(path.name):
            tree.hidden += sum(1 for _ in _files_in(path))
        elif path.is_dir():
            if path.name in VENDORED or path.name.endswith(".egg-info") or (made and path.name in _MADE):
                tree.vendored[path.name] += sum(1 for _ in _files_in(path))
            elif not path.is_symlink():  # or a tree could hold itself
                _walk(path, tree)
        elif kind_of(path) in CODE or kind_of(path) in PROSE:
            tree.files.append(path)
        else:
            tree.others[kind_of(path)] += 1


def _files_in(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir() and not path.is_symlink():
        yield from (each for each in path.rglob("*") if each.is_file())


def _left_out(tree: _Tree, kinds: Sequence[str]) -> list[str]:
    found = [f"{tree.hidden} hidden"] if tree.hidden else []
    found += [f"{count} in {name}" for name, count in tree.vendored.most_common(_SHOWN)]
    others = tree.others + Counter(kind_of(path) for path in tree.files if kind_of(path) not in kinds)
    shown = ", ".join(f"{kind or 'without suffix'} {count}" for kind, count in others.most_common(_SHOWN))
    return [*found, *([f"{others.total()} of other kinds ({shown})"] if others else [])]
