"""Checkpoints: published whole or not at all, verified before they are used.

A folder is written beside its place, every file synced and listed with its SHA-256, then renamed. A folder
whose checksums do not hold is set aside, never used and never deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from multistep.errors import RunDirectoryError

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(target: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder and move it to `target`, replacing what stands there.

    After a kill at any point, `target` is the old folder or the new one, complete, or nothing at all.
    """
    staging = target.with_name(f".{target.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write(staging)
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    manifest = {path.relative_to(staging).as_posix(): sha256(path) for path in files}
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in [*files, staging / MANIFEST, staging]:
        _sync(path)
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
    staging.replace(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def whole(folder: Path) -> bool:
    """Whether every file of a published folder is there with the bytes that were written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(sha256(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


class Checkpoints:
    """The checkpoints of one run, by id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, write: Callable[[Path], None]) -> None:
        publish(self._folder / name, write)

    def find(self, name: str) -> Path | None:
        """The checkpoint's folder if it is whole; a damaged one is set aside as `<name>.damaged`."""
        folder = self._folder / name
        if not folder.is_dir():
            return None
        if whole(folder):
            return folder
        aside = folder.with_name(f"{name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        folder.replace(aside)
        return None

    def path(self, name: str) -> Path:
        """The checkpoint's folder. Raises RunDirectoryError if it is missing or damaged."""
        if (folder := self.find(name)) is None:
            raise RunDirectoryError(
                f"{self._folder / name}: the checkpoint is missing or damaged, and nothing older can stand in for "
                "it; start a new run with --out DIR"
            )
        return folder

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete published checkpoints that nothing needs any more; those set aside stay."""
        needed = set(names)
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in needed and not folder.name.endswith(".damaged"):
                shutil.rmtree(folder)
