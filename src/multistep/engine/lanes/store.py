"""Folders that go between a run and its lanes where these do not share a disk: through a store that all reach.

A store is a place that fsspec knows (s3://, gs://, a mounted folder). Object stores cannot rename, so a folder lies
under a name that follows from its content, and is there once its manifest is, which is written last. What is read is
checked by the checksums in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from multistep.engine.checkpoints import MANIFEST, sha256
from multistep.errors import MultistepError, PlanError, RunFailed

PIECE_BYTES = 8 << 20  # that are carried at once
FILES = "files"  # of a parcel, beside its manifest


@dataclass(frozen=True)
class Parcel:
    """A folder in a store."""

    name: str


@dataclass(frozen=True)
class Filled:
    """What a lane answers where it was to fill a folder: its value, and the folder."""

    value: Any
    parcel: Parcel


class Slot:
    """In place of a folder that a lane is to fill."""


class Store:
    """A folder of a store, as one of those sees it who use it."""

    def __init__(self, url: str, tell: Callable[[], None] = lambda: None) -> None:
        """`tell` is called now and then while something is carried. Raises PlanError for a place that is not known."""
        self.url, self._tell = url.rstrip("/"), tell
        try:
            from fsspec.core import url_to_fs

            self._system, self._root = url_to_fs(self.url)
            self._on_disk = "file" in self._system.protocol
        except (ImportError, ValueError) as error:
            raise PlanError(
                f"--shared {url}: {error}; give the URL of a place that all nodes reach, such as s3://bucket/folder, "
                "and have what opens it installed on all of them"
            ) from error

    def write(self, name: str, content: bytes) -> None:
        """Raises PlanError where the place cannot be written to."""
        with self._reached(PlanError):
            self._system.pipe_file(self._ready(name), content)

    def read(self, name: str) -> bytes | None:
        """What is there under that name now. Raises PlanError where the place cannot be reached."""
        self._system.invalidate_cache()
        with self._reached(PlanError):
            try:
                content: bytes = self._system.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def send(self, folder: Path) -> Parcel:
        """Have a folder in the store, whole or not at all; one that is there already is not sent again.

        Raises RunFailed where the store cannot be reached, or a file is another by then.
        """
        manifest = _manifest(folder)
        content = json.dumps(manifest, sort_keys=True).encode()
        parcel = Parcel(hashlib.sha256(content).hexdigest()[:32])
        if self.read(f"{parcel.name}/{MANIFEST}") == content:
            return parcel
        for name, digest in manifest.items():
            with self._reached(RunFailed):
                path = self._ready(f"{parcel.name}/{FILES}/{name}")
                with (folder / name).open("rb") as source, self._system.open(path, "wb") as target:
                    found = self._carry(source, target)
            if found != digest:
                raise RunFailed(f"{folder / name}: changed while it was sent to {self.url}")
        self.write(f"{parcel.name}/{MANIFEST}", content)
        return parcel

    def fetch(self, parcel: Parcel, folder: Path) -> None:
        """Fill a folder with what was sent. Raises RunFailed where that is not there as it was sent."""
        if (content := self.read(f"{parcel.name}/{MANIFEST}")) is None:
            raise RunFailed(f"{self.url}/{parcel.name}: gone, though it is still needed; resume the run")
        for name, digest in json.loads(content).items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            path = self._path(f"{parcel.name}/{FILES}/{name}")
            with self._reached(RunFailed), self._system.open(path, "rb") as source, target.open("wb") as file:
                found = self._carry(source, file)
            if found != digest:
                raise RunFailed(f"{self.url}/{parcel.name}/{FILES}/{name}: not as it was written (SHA-256 {found})")

    def remove(self, name: str) -> None:
        with suppress(OSError):
            self._system.rm(self._path(name), recursive=True)

    def clear(self) -> None:
        """Remove all that lies there."""
        with suppress(OSError):
            self._system.rm(self._root, recursive=True)

    def _carry(self, source: IO[bytes], target: IO[bytes]) -> str:
        digest = hashlib.sha256()
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            target.write(piece)
            self._tell()
        return digest.hexdigest()

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _ready(self, name: str) -> str:
        """The path of a file that is about to be written: disks have folders, and stores make none, nor buckets."""
        path = self._path(name)
        if self._on_disk:
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    @contextmanager
    def _reached(self, kind: type[MultistepError]) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:  # such as a bucket that is not there
            raise kind(f"{self.url}: {error}; create it, or name another place with --shared URL") from error
        except Exception as error:  # of whatever library speaks to the place
            raise kind(f"{self.url}: cannot be used ({type(error).__name__}: {error})") from error


def _manifest(folder: Path) -> Mapping[str, str]:
    """The SHA-256 of each file, as a published folder tells them itself."""
    told = folder / MANIFEST
    if told.is_file():
        found: dict[str, str] = json.loads(told.read_text(encoding="utf-8"))
        return found
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


class Carrier:
    """The run's side: sends the folders that lanes are to read, and has those that they filled."""

    def __init__(self, store: Store, checkpoints: Path) -> None:
        self.store, self._checkpoints = store, checkpoints
        self._known = set[str]()  # names of parcels that are in the store

    def sent(self, arguments: Sequence[Any], *, fills: bool) -> list[Any]:
        """What a lane is asked with, its folders in the store; `fills`: it is to fill them."""
        return [self._sent(each, fills) for each in arguments]

    def _sent(self, argument: Any, fills: bool) -> Any:
        if isinstance(argument, Path):
            return Slot() if fills else self.send(argument)
        return [self._sent(each, fills) for each in argument] if isinstance(argument, list) else argument

    def send(self, folder: Path) -> Parcel:
        parcel = self.store.send(folder)
        self._known.add(parcel.name)
        return parcel

    def had(self, answer: Any, folder: Path) -> Any:
        """What a lane said, with what it filled in `folder`."""
        if not isinstance(answer, Filled):
            return answer
        self._known.add(answer.parcel.name)
        self.store.fetch(answer.parcel, folder)
        return answer.value

    def sweep(self) -> None:
        """Remove from the store the checkpoints that the run has no more."""
        here = {self._name(path) for path in self._checkpoints.glob(f"*/{MANIFEST}")}
        for name in self._known - here:
            self.store.remove(name)
        self._known &= here

    def _name(self, manifest: Path) -> str:
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def carried(store: Store, arguments: Iterable[Any]) -> Iterator[tuple[list[Any], Callable[[Any], Any]]]:
    """A lane's side: its arguments with folders here, and what makes its answer of a value.

    Folders are temporary: what is read was checked before, and what was written is in the store by then.
    """
    with TemporaryDirectory(prefix="multistep-") as here:
        places: list[Path] = []
        slots: list[Path] = []

        def of(argument: Any) -> Any:
            match argument:
                case Parcel() | Slot():
                    place = Path(here) / str(len(places))
                    place.mkdir()
                    places.append(place)
                    if isinstance(argument, Slot):
                        slots.append(place)
                    else:
                        store.fetch(argument, place)
                    return place
                case list():
                    return [of(each) for each in argument]
            return argument

        def answer(value: Any) -> Any:
            return Filled(value, store.send(slots[0])) if slots else value

        yield [of(each) for each in arguments], answer
