"""What was made of data and can be made again: kept in the user's cache, whole or not at all, within a limit."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from multistep.engine.checkpoints import LEFTOVERS, publish, whole
from multistep.errors import DataError, PlanError

FOLDER, LIMIT = "MULTISTEP_CACHE", "MULTISTEP_CACHE_LIMIT"  # environment variables
USUAL_LIMIT = "20GB"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LEFT_SECONDS = 24 * 3600  # after which what a kill left is cleared away


def cache_folder() -> Path:
    """MULTISTEP_CACHE, else multistep below XDG_CACHE_HOME (~/.cache)."""
    if own := os.environ.get(FOLDER):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multistep"


def kept(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """The folder `kind/key` of the cache, which `write` fills where it is not there or not whole.

    Several processes may ask for it at once: one writes, the others wait. Afterwards the least recently used folders
    go until all fit into MULTISTEP_CACHE_LIMIT. Raises DataError where the disk is full or the folder is closed to us.
    """
    from filelock import FileLock

    base = cache_folder() / kind
    try:
        base.mkdir(parents=True, exist_ok=True)
        with FileLock(base / f"{key}.lock"):
            if not whole(base / key):
                try:
                    publish(base / key, write)
                except BaseException:
                    shutil.rmtree(base / f".{key}{LEFTOVERS[0]}", ignore_errors=True)  # it may be large
                    raise
            os.utime(base / key)
        _evict(base / key, cache_limit())
    except OSError as error:
        raise DataError(
            f"{base}: what is made of long data cannot be kept there ({error.strerror or error}); set {FOLDER} to a "
            "folder with more room"
        ) from error
    return base / key


def cache_limit() -> int:
    """Bytes that may be kept. Raises PlanError for a limit that is no size."""
    said = os.environ.get(LIMIT) or USUAL_LIMIT
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", said.upper())
    unit = found and (found[2] if found[2].endswith("B") or not found[2] else f"{found[2]}B")
    if found is None or unit not in _UNITS:
        raise PlanError(f"{LIMIT} is {said!r}; allowed: a number of bytes, or one with KB, MB, GB or TB, such as 50GB")
    return int(float(found[1]) * _UNITS[unit])


def _evict(used: Path, limit: int) -> None:
    """Delete the least recently used folders until the rest fits; never the one that is used now."""
    found = []
    for folder in used.parent.parent.glob("*/*"):
        with suppress(OSError):  # another process deletes, too
            if (folder / "manifest.json").is_file() and not folder.name.startswith("."):
                size = sum(file.stat().st_size for file in folder.iterdir())
                found.append((folder.stat().st_mtime, size, folder))
            elif folder.name.endswith(LEFTOVERS) and time.time() - folder.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if total <= limit:
            break
        if folder != used:
            # Under another name first: whoever looks for it meanwhile finds all of it or nothing.
            aside = folder.with_name(f".{folder.name}.{os.getpid()}{LEFTOVERS[1]}")
            with suppress(OSError):
                folder.replace(aside)
                shutil.rmtree(aside, ignore_errors=True)
            total -= size
