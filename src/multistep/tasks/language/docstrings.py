"""Docstrings of Python's own library, labelled by their package: real English on every machine, without a download."""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections import defaultdict
from pathlib import Path

from multistep.errors import DataError

DOCSTRINGS = "python-docstrings"
PACKAGES = 12  # those with the most docstrings
LOOKED_INTO = 36  # packages, the largest, since parsing all of the library takes twice as long
SHORTEST = 30  # characters; shorter ones ("Return a string.") tell nothing of where they stand
SKIPPED = ("test", "tests", "idlelib", "encodings", "site-packages", "dist-packages", "turtledemo", "pydoc_data")
HIDDEN = "..."


def python_docstrings() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Docstrings of modules, classes and functions, and the top-level package or module that each comes from.

    The source files are read, nothing is imported. Of equal docstrings the first is kept (by package, then file);
    the package's own name becomes "...", or it would give the answer away. Which packages there are, and their
    texts, differ from one Python version to the next. Raises DataError where the sources are not installed.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    entries = [path for path in folder.iterdir() if path.name not in SKIPPED] if folder.is_dir() else []
    files = {path.name.removesuffix(".py"): _sources(path) for path in entries}
    known = {name: paths for name, paths in files.items() if paths and name[0] != "_"}
    longest = sorted(known, key=lambda name: (-sum(p.stat().st_size for p in known[name]), name))[:LOOKED_INTO]
    by_package: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for name in sorted(longest):
        for text in (text for path in known[name] for text in _docstrings(path)):
            words = " ".join(_without(text, name).split())
            if len(words) >= SHORTEST and words not in seen:
                seen.add(words)
                by_package[name].append(words)
    largest = sorted(by_package, key=lambda name: (-len(by_package[name]), name))[:PACKAGES]
    if len(largest) < 2:
        raise DataError(
            f"{DOCSTRINGS}: {folder} holds no source files; python.org's and most other builds have them; name a table "
            "of texts and labels instead"
        )
    texts = tuple(text for name in sorted(largest) for text in by_package[name])
    return texts, tuple(name for name in sorted(largest) for _ in by_package[name])


def _sources(path: Path) -> list[Path]:
    """The source files of a package or of a module, without its tests."""
    if path.is_file():
        return [path] if path.suffix == ".py" else []
    return sorted(file for file in path.rglob("*.py") if not set(file.relative_to(path).parts) & set(SKIPPED))


def _docstrings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]


def _without(text: str, package: str) -> str:
    return re.sub(rf"\b{re.escape(package)}\b", HIDDEN, text, flags=re.IGNORECASE)
