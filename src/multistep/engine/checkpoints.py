"""Checkpoints: published whole or not at all, verified before they are used.

A folder is written beside its place, every file synced and listed with its SHA-256, then renamed. A folder
whose checksums do not hold is set aside, never used and never deleted. Published files are never written to
again, so that runs can share them by links.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from multistep.errors import RunDirectoryError

MANIFEST = "manifest.json"
STAGING, OLD = ".staging", ".old"
LEFTOVERS = (STAGING, OLD)  # endings of what a kill may leave, hidden beside a folder's place
CHECKPOINT = re.compile(r"\.?[^@]+@\d+(\.staging|\.old)?")  # names of checkpoints: trial@step


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(target: Path, write: Callable[[Path], bool | None]) -> None:
    """Have `write` fill a folder and move it to `target`, replacing what stands there; unless it returns False.

    After a kill at any point, `target` is the old folder or the new one, complete, or nothing at all.
    """
    staging = _staging(target)
    staging.mkdir(parents=True)
    if write(staging) is False:
        shutil.rmtree(staging)
        return
    _publish(staging, target)


def _publish(staging: Path, target: Path) -> None:
    """List what was written with its checksums, wait until it is on disk, and move it to its place."""
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    manifest = {path.relative_to(staging).as_posix(): sha256(path) for path in files}
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    readers = (staging / MANIFEST).stat().st_mode & 0o777  # as the umask has it; safetensors lets only the owner read
    for path in [*files, staging / MANIFEST]:
        path.chmod(readers)
        sync(path)
    _put(staging, target)


def _staging(target: Path) -> Path:
    """Where the folder is to be written first; nothing is there."""
    staging = _beside(target)
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}{STAGING}")


def _put(staging: Path, target: Path) -> None:
    sync(staging)
    old = target.with_name(f".{target.name}{OLD}")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
    staging.replace(target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
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


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Have a published file under a second name, which must be free: the same bytes on disk where that is possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        sync(Path(target))


class Checkpoints:
    """The checkpoints of one run, by id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staged = set[str]()  # what is being written, perhaps by several at once
        folder.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str) -> Path:
        """An empty folder for whoever writes this checkpoint; `put` publishes it."""
        staging = _staging(self._folder / name)
        staging.mkdir(parents=True)
        self._staged.add(name)
        return staging

    def put(self, name: str, staged: Path) -> None:
        _publish(staged, self._folder / name)
        self._staged.discard(name)

    def take(self, name: str, source: Path) -> bool:
        """Publish what another run published; False, and nothing is published, if that is not whole."""
        staging = _staging(self._folder / name)
        shutil.copytree(source, staging, copy_function=link_or_copy)
        # Looked at here, not there: these are the bytes that will be used.
        if not whole(staging):
            shutil.rmtree(staging)
            return False
        _put(staging, self._folder / name)
        return True

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
        """Delete published checkpoints that nothing needs any more; what was set aside, or no run wrote, stays."""
        needed = {*names, *(_beside(self._folder / name).name for name in self._staged)}
        for folder in self._folder.iterdir():
            own = CHECKPOINT.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
            if own and folder.name not in needed:
                shutil.rmtree(folder)
