"""Names of models and data: which are of something here, which may be the hub's, and which are misspelt."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from multistep.core.values.tasks import BUILT_IN

CLOSE = 0.8  # as like as this, a name here is meant rather than one on the hub
ROUGHLY = 0.6
MOST_NAMES = 5_000  # of a folder that are looked at
QUERIES = ("elasticsearch://", "elasticsearch+https://")
_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
# Of files that tasks read; what ends so is no hub id, though it may look like one.
_ENDINGS = (
    ".txt .md .json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .xlsx .xls .npz .npy .gz .zst .zip .tar "
    ".tgz .bz2 .xz .wav .flac .mp3 .ogg .jpg .jpeg .png .webp .bmp .gif .tif .tiff .pt .pth .bin .safetensors .yaml "
    ".yml .py .html .xml"
)
FILE_ENDINGS = frozenset(_ENDINGS.split())


def is_here(name: str) -> bool:
    """Whether a name is that of a file or folder on this machine, perhaps with a configuration: "folder:name"."""
    folder = name.rpartition(":")[0]
    try:
        return Path(name).expanduser().exists() or (folder != "" and Path(folder).expanduser().is_dir())
    except (OSError, RuntimeError):  # too long a name, or the home of nobody
        return False


def is_query(name: str) -> bool:
    """Whether it names rows by a query that a server answers."""
    return name.startswith(QUERIES)


def may_be_hub_id(name: str) -> bool:
    """Whether a name that is of nothing here may be the hub's: "name", "owner/name", "owner/name:configuration".

    What needs no file, such as python-manual, is none of the hub's.
    """
    if name in BUILT_IN:
        return False
    path = Path(name)
    in_a_folder_here = "/" in name and path.parent.is_dir()
    return bool(_HUB_ID.fullmatch(name)) and path.suffix.lower() not in FILE_ENDINGS and not in_a_folder_here


def nearest_here(name: str, known: Iterable[str] = (), *, cutoff: float = ROUGHLY) -> str:
    """The file, folder or known name that looks most like it, also without an ending; "" if none is like it."""
    path = Path(name)
    try:
        path = path.expanduser()
        there = [other.name for other in islice(path.parent.iterdir(), MOST_NAMES) if other.name[0] != "."]
    except (OSError, RuntimeError):
        there = []
    own = path.name.lower()
    best, most = "", cutoff
    for other in [*there, *known]:
        for form in {other.lower(), Path(other).stem.lower()}:
            like = difflib.SequenceMatcher(None, form, own)
            if min(like.real_quick_ratio(), like.quick_ratio()) >= most and like.ratio() >= most:
                best, most = other, like.ratio()
    return best


def misspelt(name: str, known: Sequence[str] = ()) -> str | None:
    """Why a name that is of nothing here is not to be asked of the hub, with what may be meant; None where it may be.

    A name without an owner that looks like one here is taken for misspelt: the hub's own name of it has an owner.
    """
    if not may_be_hub_id(name):
        close = nearest_here(name, known)
        meant = f" Did you mean '{close}'?" if close else ""
        beside = "" if Path(name).is_absolute() else f" (looked for in {Path.cwd().name}/)"
        return f"{name}: no such file or folder{beside}; check the path.{meant}"
    if "/" not in name and (close := nearest_here(name, known, cutoff=CLOSE)):
        return (
            f"{name}: no such file or folder. Did you mean '{close}'? (One of the hub is named with its owner: "
            f"owner/{name})"
        )
    return None
