"""Text files that name a file and its label a line, without a header -> tables: train.txt, val_annotations.txt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from multistep.data.class_names import with_class_names
from multistep.data.table import Table, of_columns
from multistep.data.text import read_text
from multistep.errors import DataError

KINDS = (".txt", ".lst", ".list")
_LOOKED_AT = 50  # lines, where it is asked whether a file is such a list
_FEW_LINES = 2  # of a list: one line that names a file may be anything
_MOST_READ = 65_536  # bytes, of the same


def is_labelled(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether a text file's first lines each name a file with such a suffix, and what it is."""
    if path.suffix.lower() not in KINDS or not path.is_file():
        return False
    with path.open("rb") as file:
        begun = file.read(_MOST_READ)
    lines = [line for line in begun.decode("utf-8", "replace").split("\n")[:_LOOKED_AT] if line.strip()]
    return len(lines) >= _FEW_LINES and all(_parted(line, suffixes) is not None for line in lines)


def labelled(path: Path, suffixes: Sequence[str]) -> Table | None:
    """The columns `file` and `label` of such a list; None where it is none. Raises DataError that names a line.

    The label is what stands behind the file, up to a tab: `cat/1.jpg 0`, `val_0.JPEG<tab>n01443537<tab>0<tab>32`.
    """
    if not is_labelled(path, suffixes):
        return None
    files, labels, places = [], [], []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        if (parted := _parted(line, suffixes)) is None:
            raise DataError(f"{path}:{number}: '{line.strip()}' is not a file and its label, as the lines before are")
        files.append(parted[0])
        labels.append(parted[1])
        places.append(f"{path}:{number}")
    note = f"{path}: each line is a file and its label"
    columns = {"file": files, "label": labels}
    table = of_columns(str(path), columns, places, notes=(note,), roles={}, folder=path.parent)
    return with_class_names(table, path.parent)


def _parted(line: str, suffixes: Sequence[str]) -> tuple[str, str] | None:
    endings = "|".join(re.escape(suffix) for suffix in suffixes)
    found = re.fullmatch(rf"(.*?(?:{endings}))(?:\t+|[,;]\s*| +)([^\t]+)(?:\t.*)?", line.strip(), re.IGNORECASE)
    if found is None or not found[2].strip():
        return None
    label = found[2].strip()
    # Several words without a tab are a sentence about the image, a box or several labels.
    return None if re.search(r"[\s,;]", label) and "\t" not in line else (found[1].strip(), label)
