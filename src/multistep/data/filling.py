"""A folder of the cache that fills while it is used already, and that later runs find once it is full."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

from multistep.data.cache import cache_folder, cache_limit
from multistep.engine.checkpoints import MANIFEST, sync

FREE_SHARE = 0.5  # of the disk that is free, at most, for one folder
FORGOTTEN_SECONDS = 2 * 24 * 3600.0  # after which what a killed process was filling is removed
_FILLING = ".filling-"


def filled(kind: str, key: str) -> Path | None:
    """The folder `kind/key` of the cache, which counts as used now; None where there is none, or not all of it."""
    folder = cache_folder() / kind / key
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if any((folder / name).stat().st_size != size for name, size in sizes.items()):
            return None
        os.utime(folder)
    except (OSError, ValueError):
        return None
    return folder


class Filling:
    """A folder that is removed with all that it holds unless it is published."""

    def __init__(self, kind: str, key: str) -> None:
        self._target = cache_folder() / kind / key
        self.folder = Path(tempfile.mkdtemp(prefix=_FILLING, dir=self._target.parent))
        self.drop = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def publish(self) -> None:
        """Let others find it, with all files that it has now. Raises OSError."""
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        (self.folder / MANIFEST).write_text(json.dumps(sizes), encoding="utf-8")
        for path in (*self.folder.iterdir(), self.folder):
            sync(path)
        try:
            self.folder.rename(self._target)
        except OSError:  # somebody was first, and has made the same of the same data; or what lies there is damaged
            if filled(self._target.parent.name, self._target.name) is not None:
                return
            shutil.rmtree(self._target)
            self.folder.rename(self._target)
        sync(self._target.parent)


def begin(kind: str, key: str, size: int) -> Filling | None:
    """A folder to fill with so many bytes; None where the cache's limit or the disk has no room for them.

    What was not used for longest goes, until it fits. Raises OSError where nothing can be written.
    """
    base = cache_folder()
    (base / kind).mkdir(parents=True, exist_ok=True)
    for folder in base.glob(f"*/{_FILLING}*"):
        if time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir())) > FORGOTTEN_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    held = {path: _bytes_in(path) for path in base.glob("*/*") if path.is_dir()}
    removable = [path for path in held if (path / MANIFEST).is_file() and not path.name.startswith(".")]
    limit = cache_limit()
    if size > min(limit, FREE_SHARE * (shutil.disk_usage(base).free + sum(held[path] for path in removable))):
        return None
    for path in sorted(removable, key=lambda path: path.stat().st_mtime):
        if _fits(size, held, limit, base):
            break
        shutil.rmtree(path, ignore_errors=True)
        del held[path]
    return Filling(kind, key) if _fits(size, held, limit, base) else None


def _fits(size: int, held: dict[Path, int], limit: int, base: Path) -> bool:
    return size + sum(held.values()) <= limit and size <= FREE_SHARE * shutil.disk_usage(base).free


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
