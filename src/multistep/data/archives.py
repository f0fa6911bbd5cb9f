"""Archives and packed files -> folders: unpacked once, safely, into a cache that is keyed by what they hold."""

from __future__ import annotations

import bz2
import functools
import hashlib
import json
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from multistep.data.cache import cache_folder
from multistep.data.walk import files_below
from multistep.errors import DataError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz")
PACKED: Mapping[str, Callable[..., IO[bytes]]] = {
    ".bz2": bz2.open,
    ".xz": lzma.open,
}  # one file each; .gz and .zst are read as they are
OTHERS = (".7z", ".rar", ".tar.zst", ".lz4", ".tar.lz4")
MOST_FILES = 2_000_000
MOST_SWELLING = 200  # times the archive's size: real data stay below 50, and bombs lie far above
SMALL = 2**30  # bytes: what unpacks to less is no danger, however much it swells
SPARED = 2**28  # bytes of the disk that are left free
_BLOCK = 2**20
_COUNTED = "counted.json"  # beside the files: how many they are, and their bytes


def is_archive(path: Path) -> bool:
    """Whether a name is that of an archive, or of one packed file that is not read as it is."""
    name = path.name.lower()
    return name.endswith((".zip", *TARS, *PACKED, *OTHERS))


def stem_of_archive(path: Path) -> str:
    """The name without the endings that say how it is packed."""
    name = path.name.lower()
    ending = max((e for e in (".zip", *TARS, *PACKED, *OTHERS) if name.endswith(e)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def unpacked(path: Path) -> Path:
    """The folder that an archive's files are in now, unpacked on the first call for this content.

    Below the cache's folder (MULTISTEP_CACHE) in archives, published whole or not at all. Raises DataError for what is
    damaged, encrypted, would lie outside its folder, is neither file nor folder, or is too much.
    """
    status = path.stat()
    return _unpacked(path.absolute(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _unpacked(path: Path, size: int, changed: int) -> Path:
    name = path.name.lower()
    if name.endswith(OTHERS):
        raise DataError(f"{path}: archives of this kind are not opened here; unpack it, or pack it as .zip or .tar.gz")
    base = cache_folder() / "archives"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
        folder = base / digest / (re.sub(r"[^\w.-]+", "_", stem_of_archive(path)) or "data")
        if _is_whole(folder):
            return folder
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unpacking-", dir=base, ignore_cleanup_errors=True) as made:
            inside = Path(made) / "data" / folder.name
            inside.mkdir(parents=True)
            allowance = _Allowance(path, size, shutil.disk_usage(base).free - SPARED)
            _unpack_of(name)(path, inside, allowance)
            (inside.parent / _COUNTED).write_text(json.dumps(_counted(inside)), encoding="utf-8")
            shutil.rmtree(base / digest, ignore_errors=True)  # what somebody has taken files out of
            try:
                inside.parent.rename(base / digest)
            except OSError:  # another process was first, with the same bytes
                if not _is_whole(folder):
                    raise
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError) as error:
        why = "it needs a password" if "password" in str(error) else str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be unpacked ({why}); unpack it yourself and name the folder") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be unpacked into {base} ({error.strerror or error})") from None
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether the files are there that were unpacked: caches are cleaned by others, and machines fail."""
    try:
        return bool(json.loads((folder.parent / _COUNTED).read_text(encoding="utf-8")) == _counted(folder))
    except (OSError, ValueError):
        return False


def _counted(folder: Path) -> list[int]:
    """How many files there are below a folder, and their bytes."""
    sizes = [file.stat().st_size for file, _ in files_below(folder)]
    return [len(sizes), sum(sizes)]


class _Allowance:
    """What an archive may still put on the disk."""

    def __init__(self, path: Path, size: int, free: int) -> None:
        self._path, self._size, self._free = path, size, free
        self.files = self.bytes = 0

    def take(self, files: int, size: int) -> None:
        """Raises DataError for more files or bytes than are sensible."""
        self.files, self.bytes = self.files + files, self.bytes + size
        if self.files > MOST_FILES:
            raise DataError(
                f"{self._path}: holds more than {MOST_FILES:,} files; unpack it yourself and name the folder"
            )
        if self.bytes > max(SMALL, MOST_SWELLING * self._size):
            most = max(SMALL, MOST_SWELLING * self._size)
            raise DataError(
                f"{self._path}: {self._size:,} bytes that unpack to more than {most:,}, over {MOST_SWELLING} times as "
                f"much; if that is right, unpack it yourself and name the folder"
            )
        if self.bytes > self._free:
            raise DataError(
                f"{self._path}: unpacks to more than the {max(0, self._free):,} bytes that are free on the disk of the "
                "cache; set MULTISTEP_CACHE to a folder on a larger one"
            )


def _unpack_of(name: str) -> Callable[[Path, Path, _Allowance], None]:
    return _unzip if name.endswith(".zip") else _untar if name.endswith(TARS) else _unpack_one


def _unzip(path: Path, folder: Path, allowance: _Allowance) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        allowance.take(len(members), sum(member.file_size for member in members))
        for member in members:
            target = folder / _inside(path, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                continue  # a link holds no data of its own, and may point anywhere
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as out:  # stops at the size that was counted
                shutil.copyfileobj(source, out, _BLOCK)


def _inside(path: Path, name: str) -> PurePosixPath:
    """A member's place below the folder. Raises DataError for one that lies elsewhere."""
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{path}: its member {name!r} would be written outside its folder; such an archive is not opened"
        )
    return place


def _untar(path: Path, folder: Path, allowance: _Allowance) -> None:
    with tarfile.open(path) as archive:
        for member in archive:
            allowance.take(1, member.size)
            try:
                archive.extract(member, folder, set_attrs=False, filter="data")
            except tarfile.FilterError as error:
                raise DataError(f"{path}: {error}; such an archive is not opened") from None


def _unpack_one(path: Path, folder: Path, allowance: _Allowance) -> None:
    opening = PACKED[path.suffix.lower()]
    with opening(path) as source, (folder / path.stem).open("wb") as out:
        allowance.take(1, 0)
        while block := source.read(_BLOCK):
            allowance.take(0, len(block))
            out.write(block)
